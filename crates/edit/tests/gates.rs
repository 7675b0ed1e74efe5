//! Gradients at every projection of a gated feed-forward, against differences of the loss. All but the last layer's reach the loss by other
//! tokens too, and the method leaves those out: so it is the last layer that is compared.

use std::path::Path;

use burn::tensor::Device;
use palinode_data::EditRequest;
use palinode_edit::{LifelongSettings, TuneLoss, TuneSettings, take, tune, with_edits};
use palinode_math::{Delta, Mat};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, MlpModule, ModelError, Text, WeightId};

fn model(name: &str) -> (Decoder, Text) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(name);
    let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")]).unwrap();
    let decoder = Decoder::load(&checkpoint, &config, &Device::flex()).unwrap();
    (decoder, Text::open(&folder.join("tokenizer.json")).unwrap())
}

fn request() -> EditRequest {
    EditRequest {
        id: "1".into(),
        prompt: "{} is a city in the south of".into(),
        subject: "The harbour".into(),
        target_new: "South Africa".into(),
        ..EditRequest::default()
    }
}

/// The mean loss of the target's tokens.
fn loss(decoder: &Decoder, text: &Text) -> f64 {
    let settings = TuneSettings {
        layer: 0,
        loss: TuneLoss::Target,
        epochs: 1,
        mini_batch: 1,
        shuffle: None,
        learning_rate: 1e-9,
        bound: None,
        stop_loss: 0.0,
    };
    tune(decoder, text, &[request()], &settings, |_, _| {}).unwrap().losses[0]
}

#[test]
fn gradients_are_differences_of_the_loss() {
    for name in ["llama-tiny", "qwen3-tiny", "gemma2-tiny", "granite-tiny"] {
        let (decoder, text) = model(name);
        let last = decoder.config().layers - 1;
        for module in [MlpModule::Gate, MlpModule::Up, MlpModule::Down] {
            let id = WeightId::new(last, module);
            let settings = LifelongSettings { weights: vec![id], learning_rate: 1.0, mini_batch: 1 };
            let taken = take(&decoder, &text, &[request()], &settings).unwrap().remove(0).remove(0);
            // The gradient of the weight, [out, in]; along itself the loss changes most.
            let gradient = taken.gradients.transpose() * &taken.keys;
            let norm = gradient.norm_l2();
            assert!(norm > 1e-6, "{name} {id}: {norm}");
            let by = 0.05;
            let moved = |sign: f64| {
                let step = Mat::from_fn(gradient.nrows(), gradient.ncols(), |i, j| sign * by * gradient[(i, j)] / norm);
                loss(&with_edits(&decoder, [(id, &Delta::Dense(step))]).unwrap(), &text)
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * by);
            assert!((slope / norm - 1.0).abs() < 0.02, "{name} {id}: {slope} {norm}");
        }
    }
}

/// Where a norm or a multiplier stands behind the weight, a search sees what the written weight then does.
#[test]
fn a_tuned_weight_has_the_loss_that_the_search_saw() {
    for name in ["llama-tiny", "gemma2-tiny", "granite-tiny"] {
        let (decoder, text) = model(name);
        let tuned = |epochs: usize| {
            let settings = TuneSettings {
                layer: 1,
                loss: TuneLoss::Target,
                epochs,
                mini_batch: 1,
                shuffle: None,
                learning_rate: 0.01,
                bound: None,
                stop_loss: 0.0,
            };
            tune(&decoder, &text, &[request()], &settings, |_, _| {}).unwrap()
        };
        let once = tuned(1);
        let edited = with_edits(&decoder, once.changes.iter().map(|(id, delta)| (*id, delta))).unwrap();
        let seen = tuned(2).losses;
        assert!(seen[1] < seen[0], "{name}: {seen:?}");
        assert!((loss(&edited, &text) - seen[1]).abs() < 1e-4, "{name}: {} {seen:?}", loss(&edited, &text));
    }
}

/// A bias is edited like a weight, where there is one.
#[test]
fn a_bias_is_a_weight_of_one_column() {
    let (decoder, text) = model("gpt2-tiny");
    let id = WeightId::new(decoder.config().layers - 1, MlpModule::Bias);
    let d = decoder.config().hidden;
    assert_eq!(decoder.weight(id).unwrap().dims(), [1, d]);
    let change = Delta::Dense(Mat::from_fn(d, 1, |i, _| 0.1 * (i as f64).sin()));
    let edited = with_edits(&decoder, [(id, &change)]).unwrap();
    assert!((loss(&edited, &text) - loss(&decoder, &text)).abs() > 1e-4);
    let (gated, _) = model("llama-tiny");
    let none = WeightId::new(0, MlpModule::Bias);
    assert!(matches!(gated.weight(none), Err(ModelError::Weight { weight, .. }) if weight == none));
}
