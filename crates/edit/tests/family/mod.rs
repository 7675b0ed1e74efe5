//! The small models of every family, with the numbers that scripts/make_family_fixtures.py computed on them in plain PyTorch.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{LayerEdit, TargetSettings, TargetSite};
use palinode_golden::{FAMILIES, Folder, Json, family};
use palinode_math::{Factor, PartFactors, Preservation, PreservationWeights, SecondMoment};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};

pub struct Family {
    pub name: &'static str,
    pub decoder: Decoder,
    pub text: Text,
    pub templates: ContextTemplates,
    /// Of the first request's target; `methods.*` uses the same.
    pub settings: TargetSettings,
    pub numbers: Folder,
}

/// The metric of a second moment, whether its keys have parts or not.
#[allow(dead_code, reason = "not every test needs it")]
pub fn metric(moment: &SecondMoment, lambda: f64) -> Arc<dyn Preservation> {
    let weights = PreservationWeights { lambda, rho: 0.0 };
    if moment.parts() > 1 {
        Arc::new(PartFactors::new(moment.clone(), weights).unwrap())
    } else {
        Arc::new(Factor::new(moment, weights).unwrap())
    }
}

/// The change of a layer's down-projection, row by row: of a mixture, those of its experts side by side, which are 0 where none is changed.
#[allow(dead_code, reason = "not every test needs it")]
pub fn whole_change(config: &DecoderConfig, layer: usize, edits: &[LayerEdit]) -> Vec<f64> {
    let (d, f) = (config.hidden, config.key_size(layer));
    let mut all = vec![0.0; d * f];
    for edit in edits.iter().filter(|edit| edit.weight.layer == layer) {
        let from = match (config.mixture(layer), edit.weight.expert) {
            (Some(experts), Some(id)) => experts.parts()[experts.part(id).unwrap()].start,
            (None, None) => 0,
            other => panic!("{other:?}"),
        };
        let change = edit.delta.dense();
        for i in 0..d {
            (0..change.ncols()).for_each(|j| all[i * f + from + j] = change[(i, j)]);
        }
    }
    all
}

pub fn families() -> Vec<Family> {
    FAMILIES.into_iter().map(open).collect()
}

fn open(name: &'static str) -> Family {
    let model = family(name);
    let config = DecoderConfig::read(&model.join("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(&model).unwrap().iter().map(|file| model.join(file)).collect();
    let numbers = Folder::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name));
    let facts = numbers.json("edit.json");
    let number = |name: &str| facts.field("settings").field(name).number();
    Family {
        name,
        decoder: Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap(),
        text: Text::open(&model.join("tokenizer.json")).unwrap(),
        templates: ContextTemplates { groups: facts.field("groups").list().iter().map(Json::texts).collect() },
        settings: TargetSettings {
            fact_token: palinode_edit::FactToken::default(),
            site: TargetSite::BlockOutput,
            layer: number("layer") as usize,
            steps: number("steps") as usize,
            learning_rate: number("learning_rate"),
            kl_factor: number("kl_factor"),
            weight_decay: number("weight_decay"),
            clamp: number("clamp"),
            stop_loss: number("stop_loss"),
            rules: palinode_edit::TargetRules::default(),
        },
        numbers,
    }
}

/// A request as the fixtures have it.
pub fn request(facts: &Json) -> EditRequest {
    let text = |field: &str| facts.field(field).text().to_owned();
    EditRequest {
        id: text("id"),
        subject: text("subject"),
        prompt: text("prompt"),
        target_new: text("target_new"),
        ..EditRequest::default()
    }
}

/// The largest difference of two traces of losses, in the first five steps and in all. They have to be of one length.
pub fn losses(ours: impl Iterator<Item = f32>, theirs: &Json) -> (f64, f64) {
    let ours: Vec<f64> = ours.map(f64::from).collect();
    let theirs: Vec<f64> = theirs.list().iter().map(Json::number).collect();
    assert_eq!(ours.len(), theirs.len(), "number of steps");
    let differences: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).collect();
    assert!(differences.iter().all(|difference| difference.is_finite()));
    let most = |some: &[f64]| some.iter().copied().fold(0.0, f64::max);
    (most(&differences[..differences.len().min(5)]), most(&differences))
}
