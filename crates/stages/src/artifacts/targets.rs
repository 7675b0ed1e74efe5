//! Targets on their way between stages.

use palinode_edit::{FactToken, TargetSite};
use palinode_engine::shown::Shown;
use palinode_engine::{Digest, Error, Given, Kind, StageContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::model::file;
use crate::artifacts::tensors::Tensors;

/// The logical name of the values: tensors [`INITIAL`] and [`DELTA`], `[requests, d]`.
pub const VALUES: &str = "targets.safetensors";
/// h₀.
pub const INITIAL: &str = "initial";
/// δ.
pub const DELTA: &str = "delta";
/// The logical name of the losses.
pub const TRACES: &str = "traces.json";

/// The values that edits should write.
pub struct TargetsKind;

impl Kind for TargetsKind {
    const NAME: &'static str = "targets";
    type Facts = TargetsFacts;
    type Planned = PlannedTargets;
}

/// What targets say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct TargetsFacts {
    /// The model that they were found on, by its digest.
    pub base: String,
    /// How many they are.
    pub requests: usize,
    /// The requests that they were found for, by contents.
    pub asked: Digest,
    /// The layer.
    pub layer: usize,
    /// Where in the layer.
    pub site: TargetSite,
    /// Parameters of the stage that can change a result, as they were written; the stage `targets` reads them.
    pub with: Value,
    /// How the searches ended.
    #[serde(flatten)]
    pub shown: Shown,
}

/// What is known of targets before they are found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedTargets {
    /// The layer.
    pub layer: Option<usize>,
    /// The token.
    #[serde(default)]
    pub fact_token: Option<FactToken>,
    /// The parameter, by name, that works at one layer alone.
    #[serde(default)]
    pub one_layer: Option<String>,
}

/// The losses of one request's search.
#[derive(Debug, Serialize, Deserialize)]
pub struct Losses<S> {
    /// The request's name.
    pub id: String,
    /// What each step cost.
    pub steps: S,
}

/// The values `z = h₀ + δ` of an artifact, `[requests, d]` row-major.
pub fn values(cx: &StageContext, given: &Given<'_, TargetsKind>) -> Result<Vec<f32>, Error> {
    let tensors = Tensors::read(cx, file(given, VALUES)?)?;
    let ((_, initial), (_, delta)) = (tensors.values(INITIAL)?, tensors.values(DELTA)?);
    Ok(initial.iter().zip(&delta).map(|(h, d)| *h as f32 + *d as f32).collect())
}
