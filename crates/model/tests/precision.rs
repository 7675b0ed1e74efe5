//! Weights held in 16 bits, or rounded to them in products: the same answers as far as their rounding goes, and edits in full.

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use palinode_model::generate::{Prompt, Sampling, generate, generate_all};
use palinode_model::{Checkpoint, Compute, Decoder, DecoderConfig, Precision, WeightId};

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

/// Sums are in f32, and so is all else: less is lost than with weights that are held in bf16, whose products are rounded as well.
#[test]
fn products_of_rounded_factors_differ_by_rounding() {
    for name in MODELS {
        let plain = load(name, Precision::F32);
        let exact = logits(&plain);
        let rounded = apart(&exact, &logits(&plain.clone().with_compute(Compute::Bf16)));
        let held = apart(&exact, &logits(&load(name, Precision::Bf16)));
        println!("{name}: rounded {rounded:.1e}, held {held:.1e}");
        assert!(rounded > 0.0 && rounded < 1.2e-2, "{name}: {rounded}");
        // What is asked of kernels says nothing where the tensor library computes.
        let tensors = plain.clone().without_kernels();
        assert_eq!(logits(&tensors.clone().with_compute(Compute::Bf16)), logits(&tensors), "{name}");
        assert_eq!(logits(&plain.with_compute(Compute::F32)), exact, "{name}");
    }
}

/// A text is the same whatever it is written beside, with copies of weights and without.
#[test]
fn texts_of_rounded_factors_do_not_depend_on_others() {
    for name in MODELS {
        let decoder = load(name, Precision::F32).with_compute(Compute::Bf16);
        let sampling = Sampling::TopK { k: 5, seed: 3 };
        let prompts: Vec<Prompt> = (0..7)
            .map(|i: u32| Prompt { tokens: (0..=i).map(|j| (j * 5 + i) % 100).collect(), length: 20, stream: i.into() })
            .collect();
        let together = generate_all(&decoder, &prompts, sampling, None).unwrap();
        for (prompt, text) in prompts.iter().zip(&together) {
            // Too few tokens for copies.
            let short = generate(&decoder, &prompt.tokens, prompt.tokens.len() + 8, sampling, prompt.stream, None);
            let short = short.unwrap();
            assert_eq!(short[..], text[..short.len()], "{name}");
            let alone = generate(&decoder, &prompt.tokens, 20, sampling, prompt.stream, None).unwrap();
            assert_eq!(&alone, text, "{name}");
        }
    }
}

/// An edit is smaller than what rounding would take from it: its weight is not rounded, and what the layer's projection gives changes by the
/// edit's share alone.
#[test]
fn an_edited_weight_is_not_rounded() {
    let plain = load(MODELS[0], Precision::F32);
    let weight = plain.weight(WeightId::down(1)).unwrap();
    // Less than a tenth of the last bit that bf16 keeps.
    let share = 1e-4;
    let written = |decoder: &Decoder| {
        let rows = decoder.rows(&[(0..24).map(|i| (i * 7 + 3) % 100).collect::<Vec<u32>>()]);
        let mut hidden = decoder.embed(&rows);
        hidden = decoder.block(0, &rows, hidden).unwrap().hidden;
        decoder.block(1, &rows, hidden).unwrap().mlp.at(&rows.all()).into_data().try_into_vec::<f32>().unwrap()
    };
    let bias = written(&plain.with_change(WeightId::down(1), weight.clone().neg()).unwrap());
    for compute in [Compute::F32, Compute::Bf16] {
        let with = |times: f64| {
            let change = weight.clone().mul_scalar(times);
            written(&plain.clone().with_compute(compute).with_change(WeightId::down(1), change).unwrap())
        };
        let (before, after) = (with(0.0), with(share));
        let size = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let wanted = |i: usize| share * f64::from(before[i] - bias[i]);
        let off = size(&mut (0..before.len()).map(|i| f64::from(after[i] - before[i]) - wanted(i)));
        let off = off / size(&mut (0..before.len()).map(wanted));
        println!("{compute:?}: {off:.1e}");
        assert!(off < 2e-2, "{compute:?}: {off}");
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
