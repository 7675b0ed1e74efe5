//! Settings for a model that nobody has tuned yet: the published ones, carried over by depth.

use std::path::Path;

use palinode_model::is_gguf;

use crate::artifacts::model::read_config;
use crate::sources::demo::corpus_of;

/// The clamp of the published runs of ROME.
const ROME_CLAMP: f64 = 4.0;
/// Adam's step in all published runs.
pub const PUBLISHED_RATE: f64 = 0.5;

/// Where and how to edit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// The layer of a single-layer edit.
    pub layer: usize,
    /// Evaluations of the targets' loss.
    pub steps: usize,
    /// Adam's step for the targets.
    pub learning_rate: f64,
    /// Clamp on ‖δ‖/‖h₀‖.
    pub clamp: f64,
    /// Weight decay of the targets.
    pub weight_decay: f64,
    /// Whether the layer was published for a model of this family and depth, or tried on this very model; else it is as deep as a published
    /// one.
    pub published: bool,
    /// Clamp on ‖δ‖/‖h₀‖ for a batch of edits.
    pub batch_clamp: f64,
    /// λ of a batch, the weight of preservation, scaled to the model's keys.
    pub lambda: f64,
    /// Whether the model is a GGUF file, and so can be written as one.
    pub gguf: bool,
}

/// For the demo's model: the targets of pipelines/demo.yaml.
const DEMO: Suggestion = Suggestion {
    layer: 0,
    steps: 40,
    learning_rate: 0.05,
    clamp: 2.0,
    weight_decay: 0.1,
    published: true,
    batch_clamp: 2.0,
    lambda: 100.0,
    gguf: false,
};

/// For a few facts in the model in a folder or a GGUF file; `None` where its configuration does not read, which the pipeline reports with its
/// place.
///
/// The settings are those of [`carried`]. The demo's model is small, and published steps and clamps move its values further than its weights
/// can follow: it gets the targets of its own pipeline, and its first layer. Of 16 edits, each by itself, these leave all facts about other
/// subjects alone; the published settings at the layer as deep as a published one lose half of them.
pub fn suggest(folder: &Path) -> Option<Suggestion> {
    if corpus_of(folder).is_some() { Some(DEMO) } else { carried(folder) }
}

/// The settings of the published run of the model's family, the layer at the same part of the model's depth. One edit may move a value further
/// than a batch of them: the clamp is ROME's. `None` as for [`suggest`].
pub fn carried(folder: &Path) -> Option<Suggestion> {
    let path = if is_gguf(folder) { folder.to_owned() } else { folder.join("config.json") };
    let config = read_config(&path).ok()?;
    let published = config.family.published_edit();
    Some(Suggestion {
        layer: published.layer_of(config.layers),
        published: config.family.has_published_edit() && published.layers == config.layers,
        steps: published.steps,
        learning_rate: PUBLISHED_RATE,
        clamp: ROME_CLAMP,
        weight_decay: published.weight_decay,
        batch_clamp: published.batch_clamp,
        lambda: published.lambda_of(config.largest_key()),
        gguf: is_gguf(folder),
    })
}
