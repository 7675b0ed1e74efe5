//! What causal tracing found, on its way to those who show it.

use palinode_engine::Kind;
use palinode_engine::shown::Shown;
use palinode_eval::{Role, TraceKind};
use serde::{Deserialize, Serialize};

/// The logical name of the prompts' results, one a line.
pub const PROMPTS: &str = "prompts.jsonl";
/// The logical name of the averages, as a table.
pub const AVERAGES: &str = "averages.csv";
/// The logical name of the noise.
pub const NOISE: &str = "noise.safetensors";

/// Effects of restored states.
pub struct TraceArtifact;

impl Kind for TraceArtifact {
    const NAME: &'static str = "trace";
    type Facts = TraceFacts;
    type Planned = ();
}

/// What a trace says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct TraceFacts {
    /// What was traced.
    pub trace: Averages,
    /// Metrics, and what was left out.
    #[serde(flatten)]
    pub shown: Shown,
}

/// Effects over prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Averages {
    /// The prompts.
    pub prompts: usize,
    /// Prompts that were left out, since the model does not know their answer.
    pub unknown: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Layers in a window.
    pub window: usize,
    /// Draws of noise for each prompt.
    pub draws: usize,
    /// The standard deviation of the embeddings of the subjects' tokens.
    pub deviation: f64,
    /// The standard deviation of the noise.
    pub noise: f64,
    /// Mean `p(answer)` without noise.
    pub clean: f64,
    /// With noise.
    pub noisy: f64,
    /// A row for each kind of state and role of a token.
    pub effects: Vec<Effects>,
}

/// Mean indirect effects of a kind of state at tokens of a role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Effects {
    /// What was restored.
    pub restored: TraceKind,
    /// Where.
    pub role: Role,
    /// Prompts that have such a token.
    pub prompts: usize,
    /// Mean effect by layer: over the tokens of a prompt first, then over prompts.
    pub effect: Vec<f64>,
    /// Student's 95 % interval of each over prompts; none of a single prompt.
    pub interval: Option<Vec<[f64; 2]>>,
}
