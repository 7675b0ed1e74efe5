//! Which layers took a few edits how well.

use palinode_engine::Kind;
use palinode_engine::shown::Shown;
use serde::{Deserialize, Serialize};

/// The logical name of the scores of every try, one a line.
pub const TRIES: &str = "tries.jsonl";

/// Layers that were tried.
pub struct LocateKind;

impl Kind for LocateKind {
    const NAME: &'static str = "located";
    type Facts = LocateFacts;
    type Planned = ();
}

/// What a search over layers says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct LocateFacts {
    /// What to start from.
    pub start: Start,
    /// Metrics of the layers.
    #[serde(flatten)]
    pub shown: Shown,
}

/// Where to begin, and on what that rests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The layer.
    pub layer: usize,
    /// The clamp on `‖δ‖/‖h₀‖`.
    pub clamp: f64,
    /// The metric that decided.
    pub metric: String,
    /// Facts that were edited at every layer, each by itself.
    pub facts: usize,
    /// The layers that were tried.
    pub layers: Vec<usize>,
    /// Whether the layer is shown to be better than every other one.
    pub clear: bool,
    /// Layers that are not shown to be worse, in rising order, without it.
    pub alike: Vec<usize>,
}
