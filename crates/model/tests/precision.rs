//! Weights held in 16 bits: the same answers as far as their rounding goes, and edits in full.

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Precision, WeightId};

fn load(folder: &str, precision: Precision) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(&folder).unwrap().iter().map(|file| folder.join(file)).collect();
    Decoder::load_as(&Checkpoint::open(&files).unwrap(), &config, &Device::flex(), precision).unwrap()
}

const MODELS: [&str; 5] = [
    "examples/demo-model/model",
    "crates/model/tests/fixtures/gptj-tiny",
    "crates/model/tests/fixtures/llama-tiny",
    "crates/model/tests/fixtures/gpt_neox-tiny",
    "crates/model/tests/fixtures/qwen3-tiny",
];

fn logits(decoder: &Decoder) -> Vec<f32> {
    let ids: Vec<u32> = (0..24).map(|i| (i * 7 + 3) % 100).collect();
    let rows = decoder.rows(&[ids.as_slice(), &ids[..9]]);
    let hidden = decoder.hidden(&rows).unwrap();
    decoder.logits(hidden.at(&rows.all())).into_data().try_into_vec::<f32>().unwrap()
}

/// Of differences, relative to how far logits lie from their mean.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let mean = a.iter().map(|&x| f64::from(x)).sum::<f64>() / a.len() as f64;
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut a.iter().map(|&x| f64::from(x) - mean))
}

#[test]
fn logits_differ_by_rounding() {
    for name in MODELS {
        let exact = logits(&load(name, Precision::F32));
        let (bf16, f16) = (logits(&load(name, Precision::Bf16)), logits(&load(name, Precision::F16)));
        let (bf16, f16) = (apart(&exact, &bf16), apart(&exact, &f16));
        println!("{name}: bf16 {bf16:.1e}, f16 {f16:.1e}");
        assert!(bf16 > 0.0 && bf16 < 2e-2, "{name}: {bf16}");
        assert!(f16 > 0.0 && f16 < 2.5e-3, "{name}: {f16}");
    }
}

#[test]
fn an_edit_is_held_in_full() {
    let decoder = load(MODELS[0], Precision::Bf16);
    let weight = decoder.weight(WeightId::down(1)).unwrap();
    let change = Tensor::<2>::random(weight.dims(), Distribution::Normal(0.0, 1e-6), &decoder.device());
    let edited = decoder.with_change(WeightId::down(1), change.clone()).unwrap();
    let found = edited.weight(WeightId::down(1)).unwrap() - weight;
    let off = (found - change.clone()).abs().max().into_scalar::<f32>();
    assert!(off < 1e-7, "{off}");
    assert_ne!(logits(&edited), logits(&decoder));
}
