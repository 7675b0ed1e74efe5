//! Settings for a model that nobody has tuned yet: the published ones, carried over by depth.

use std::path::Path;

use palinode_model::Family;

use crate::artifacts::model::read_config;

/// Where and how to edit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// The layer of a single-layer edit.
    pub layer: usize,
    /// Evaluations of the targets' loss.
    pub steps: usize,
    /// Clamp on ‖δ‖/‖h₀‖.
    pub clamp: f64,
    /// Weight decay of the targets.
    pub weight_decay: f64,
}

/// For the model in a folder; `None` where its configuration does not read, which the pipeline will tell in its own way.
///
/// The published runs edit layer 17 of 48 (GPT-2 XL), 5 of 28 (GPT-J) and 5 of 32 (Llama-2-7b); other depths are taken in
/// proportion. One edit may move a value further than a batch of them: the clamp is ROME's.
pub fn suggest(folder: &Path) -> Option<Suggestion> {
    let config = read_config(&folder.join("config.json")).ok()?;
    let (layer, of, steps, weight_decay) = if config.family == Family::Gpt2 {
        (17, 48, 20, 0.5)
    } else if config.family == Family::GptJ {
        (5, 28, 25, 0.5)
    } else {
        (5, 32, 25, 1e-3)
    };
    let layer = (config.layers * layer + of / 2) / of;
    Some(Suggestion { layer: layer.min(config.layers - 1), steps, clamp: 4.0, weight_decay })
}
