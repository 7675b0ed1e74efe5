//! Which layers absorb which part of the residual, and in which order: a choice of its own beside the objective.

use serde::{Deserialize, Serialize};

use crate::MathError;

/// What is measured again on the partly edited model before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// The layer's keys.
    pub keys: bool,
    /// The residual at the target layer.
    pub residual: bool,
}

/// One layer's share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The layer that is edited.
    pub layer: usize,
    /// Its part of the residual that stands when the step begins.
    pub fraction: f64,
    /// What is measured again first.
    pub refresh: Refresh,
}

/// An ordered list of steps toward one target layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The layer at whose output the targets are values.
    pub target_layer: usize,
    /// In the order in which they are applied.
    pub steps: Vec<Step>,
}

/// A rule that turns layers into a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The target layer, the last of the list, takes everything.
    Single,
    /// From the bottom up, step `i` of `m` takes `1/(m − i)` of what is left (MEMIT, arXiv 2210.07229).
    Memit,
}

impl Strategy {
    /// The plan for the given layers. The last one is the target layer, so that strategies can be compared over one
    /// list: `single` leaves the others alone.
    ///
    /// # Errors
    /// [`MathError::Layers`] for an empty list, or one that does not rise.
    pub fn plan(self, layers: &[usize]) -> Result<Plan, MathError> {
        let Some(&target_layer) = layers.last() else {
            return Err(MathError::Layers("layers is empty".into()));
        };
        if let Some([low, high]) = layers.array_windows().find(|[low, high]| low >= high) {
            return Err(MathError::Layers(format!(
                "layers must rise: {low} stands before {high} (lower layers are edited first)"
            )));
        }
        let refresh = Refresh { keys: true, residual: true };
        let steps = match self {
            Self::Single => vec![Step { layer: target_layer, fraction: 1.0, refresh }],
            Self::Memit => layers
                .iter()
                .enumerate()
                .map(|(i, &layer)| Step { layer, fraction: 1.0 / (layers.len() - i) as f64, refresh })
                .collect(),
        };
        Ok(Plan { target_layer, steps })
    }
}
