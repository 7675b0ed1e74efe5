//! Changes of any weight that can be named: a model with one laid over it computes what a checkpoint does into which it was written.

use std::path::Path;

use burn::tensor::Device;
use palinode_edit::with_edits;
use palinode_math::{Delta, LowRank, Mat, Sparse, row_major};
use palinode_model::save::{Change, ChangedType, copy_with_changes};
use palinode_model::{
    Checkpoint, Decoder, DecoderConfig, ExpertId, Layout, MlpModule, ModelError, Precision, WeightId, read,
};

const MODELS: [&str; 7] =
    ["gpt2-tiny", "gptj-tiny", "gpt_neox-tiny", "llama-tiny", "qwen2-tiny", "mixtral-tiny", "qwen2_moe-tiny"];

/// All weights of a layer's feed-forward that can be named, and one of each module that there is in any family.
fn weights(config: &DecoderConfig, layer: usize) -> Vec<WeightId> {
    let Some(experts) = config.mixture(layer) else { return MlpModule::ALL.map(|m| WeightId::new(layer, m)).to_vec() };
    let of = |expert| {
        [MlpModule::Down, MlpModule::Up, MlpModule::Gate].map(|module| WeightId { layer, module, expert: Some(expert) })
    };
    experts.ids().flat_map(of).collect()
}

fn logits(decoder: &Decoder) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 100).collect();
    let rows = decoder.rows(&[ids]);
    let hidden = decoder.hidden(&rows).unwrap();
    read(decoder.logits(hidden.at(&rows.all()))).unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A change of every form, of a weight `[out, in]`.
fn changes([out, input]: [usize; 2]) -> [Delta; 3] {
    let wave = |i: usize, j: usize| 0.05 * (0.7 * i as f64 + 1.3 * j as f64 + 0.2).sin();
    let low = LowRank { left: Mat::from_fn(out, 2, wave), right: Mat::from_fn(2, input, |i, j| 20.0 * wave(i, j)) };
    let dense = Mat::from_fn(out, input, wave);
    let sparse = Sparse::of(dense.as_ref(), |at| at % 3 == 0);
    [Delta::LowRank(low), Delta::Sparse(sparse), Delta::Dense(dense)]
}

#[test]
fn an_overlay_is_a_merged_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    // Some are stored in f16, which would round a change.
    let kind = ChangedType::As(Precision::F32);
    for name in MODELS {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(name);
        let config = DecoderConfig::read(&source.join("config.json")).unwrap();
        let layout = Layout::of(&config);
        let file = source.join("model.safetensors");
        let load = |file: &Path| {
            let checkpoint = Checkpoint::open(&[file.to_owned()]).unwrap();
            Decoder::load(&checkpoint, &config, &Device::flex()).unwrap()
        };
        let checkpoint = Checkpoint::open(std::slice::from_ref(&file)).unwrap();
        let base = load(&file);
        let before = logits(&base);
        for id in weights(&config, 1) {
            let Some(shape @ [out, input]) = config.weight_shape(id) else {
                let error = base.weight(id).unwrap_err();
                assert!(matches!(error, ModelError::Weight { weight, .. } if weight == id), "{name}: {error}");
                let absent = match id.module {
                    MlpModule::Gate => !config.gated,
                    MlpModule::Bias => !config.mlp_bias,
                    MlpModule::Down | MlpModule::Up => false,
                };
                assert!(absent, "{name} {id}");
                continue;
            };
            let stored = checkpoint.stored_name(&layout.weight_name(id).unwrap()).unwrap().to_owned();
            for delta in changes(shape) {
                let overlaid = logits(&with_edits(&base, [(id, &delta)]).unwrap());
                let delta = row_major(delta.dense().as_ref()).into_iter().map(|value| value as f32).collect();
                let change = Change { name: stored.clone(), part: None, out, input, delta };
                let merged = folder.path().join("merged.safetensors");
                assert_eq!(
                    copy_with_changes(&file, &merged, &[change], layout.orientation, &|_| kind).unwrap().len(),
                    1
                );
                let merged = logits(&load(&merged));
                let (moved, off) = (far(&before, &merged), far(&overlaid, &merged));
                assert!(moved > 1e-3, "{name} {id}: logits moved by {moved} only");
                assert!(off < 1e-5 * moved.max(1.0), "{name} {id}: off by {off}");
            }
        }
    }
}

#[test]
fn changes_of_several_weights_of_a_layer_add_up() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama-tiny");
    let config = DecoderConfig::read(&source.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&[source.join("model.safetensors")]).unwrap();
    let base = Decoder::load(&checkpoint, &config, &Device::flex()).unwrap();
    let ids = [MlpModule::Down, MlpModule::Up, MlpModule::Gate].map(|module| WeightId::new(1, module));
    let deltas = ids.map(|id| changes(config.weight_shape(id).unwrap())[2].clone());
    let all = with_edits(&base, ids.into_iter().zip(&deltas)).unwrap();
    for (id, delta) in ids.into_iter().zip(&deltas) {
        let [now, then]: [Vec<f32>; 2] = [&all, &base].map(|model| read(model.weight(id).unwrap()).unwrap());
        let change = delta.transposed_f32();
        let off = now.iter().zip(&then).zip(&change).map(|((now, then), change)| (now - then - change).abs());
        assert!(off.fold(0.0, f32::max) < 1e-6, "{id}");
    }
    // Taking them off again gives back the first model, as far as f32 goes.
    let minus: Vec<Delta> = deltas.iter().map(|delta| Delta::Dense(negated(&delta.dense()))).collect();
    let back = with_edits(&all, ids.into_iter().zip(&minus)).unwrap();
    assert!(far(&logits(&back), &logits(&base)) < 1e-4);
    let experts = WeightId::of_expert(1, ExpertId::Routed(0));
    assert!(matches!(base.weight(experts), Err(ModelError::Weight { .. })));
    assert!(matches!(base.weight(WeightId::down(config.layers)), Err(ModelError::Layer { .. })));
}

fn negated(matrix: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| -matrix[(i, j)])
}
