//! One layer's part of an edit.

use serde::{Deserialize, Serialize};

/// What is measured again on the partly edited model before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// The layer's keys.
    pub keys: bool,
    /// The residual at the target layer. Where it is not, every earlier step is taken to have done its whole part.
    pub residual: bool,
    /// The targets themselves: found anew, at the step's own layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub targets: bool,
    /// The targets are what a pass over the model before all steps has at the step's own layer, with the first step's targets in their
    /// place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

impl Refresh {
    /// Keys and residual, as MEMIT does.
    pub const BOTH: Self = Self { keys: true, residual: true, targets: false, forward: false };
    /// Nothing: every step is computed on the unedited model.
    pub const NONE: Self = Self { keys: false, residual: false, targets: false, forward: false };
}

/// One layer's share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The layer that is edited.
    pub layer: usize,
    /// Its part of the residual that is left when the step begins.
    pub fraction: f64,
    /// What is measured again first.
    pub refresh: Refresh,
}

/// One step for each layer, of fractions of what is left.
pub(super) fn bottom_up(layers: &[usize], fraction: impl Fn(usize) -> f64) -> Vec<Step> {
    let step = |(i, &layer): (usize, &usize)| Step { layer, fraction: fraction(i), refresh: Refresh::BOTH };
    layers.iter().enumerate().map(step).collect()
}
