//! Which layers absorb which part of the residual, and in which order: a choice of its own beside the objective.
//!
//! A strategy is a file with one function from layers to steps, and a line in [`Strategy`].

mod boundary;
mod forward;
mod memit;
mod single;
mod sqrt;
mod step;
mod weights;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use step::{Refresh, Step};

use crate::MathError;

/// An ordered list of steps toward one target layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The layer at whose output the targets are values.
    pub target_layer: usize,
    /// In the order in which they are applied.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The first layer that takes what is missing at another one, and that one.
    pub fn passed_on(&self) -> Option<(usize, usize)> {
        let mut aim = self.target_layer;
        self.steps.iter().find_map(|step| {
            if step.refresh.targets || step.refresh.forward {
                aim = step.layer;
            }
            (step.layer != aim).then_some((step.layer, aim))
        })
    }

    /// Whether no step sees what an earlier one wrote: one layer, or several of which nothing is measured again in between.
    pub fn is_apart(&self) -> bool {
        self.steps.iter().skip(1).all(|step| step.refresh == Refresh::NONE)
    }

    /// Whether a step needs targets of its own, other than those of the first one.
    pub fn retargets(&self) -> bool {
        self.steps.iter().any(|step| step.refresh.targets || step.refresh.forward)
    }

    /// The same plan with keys and residual measured again, or not, before every step but those that find their own targets.
    #[must_use]
    pub fn refreshing(mut self, what: RefreshKind) -> Self {
        let keys = matches!(what, RefreshKind::Keys | RefreshKind::Both);
        let residual = matches!(what, RefreshKind::Residual | RefreshKind::Both);
        for step in self.steps.iter_mut().filter(|step| !step.refresh.targets && !step.refresh.forward) {
            step.refresh = Refresh { keys, residual, targets: false, forward: false };
        }
        self
    }
}

/// What is measured again on the partly edited model before each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RefreshKind {
    /// Only keys. Every earlier layer is assumed to have absorbed its whole part.
    Keys,
    /// Only the residual. Keys are those of the unedited model.
    Residual,
    /// Keys and residual.
    Both,
    /// Nothing.
    None,
}

/// A distribution of an edit over layers by name, without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StrategyKind {
    /// The last of the layers absorbs everything. The others do not change.
    Single,
    /// From the lowest layer up, layer i of m absorbs 1/(m − i) of the remaining residual (MEMIT).
    Memit,
    /// As memit, with 1/√(m − i): lower layers absorb more (PMET).
    Sqrt,
    /// Each layer absorbs an equal part of the unedited model's residual. Nothing is measured again: this is memit without
    /// refresh.
    Uniform,
    /// Each layer absorbs a share of the remaining residual, in proportion to its number in `weights`.
    Weights,
    /// Only the first and the last layer, each with its own targets (BLUE). The stage `targets` has to find targets at the
    /// first layer. The targets at the last layer are found on the model after the first step.
    Boundary,
    /// Every layer of the list. The stage `targets` has to find targets at the first one. With these in their place, the model computes the
    /// targets of the other layers in one pass (MEMIT-FE).
    Forward,
}

/// A rule that turns layers into a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// The target layer, the last of the list, takes everything.
    Single,
    /// From the bottom up, step `i` of `m` takes `1/(m − i)` of what is left (MEMIT, arXiv 2210.07229).
    Memit,
    /// As `Memit`, with `1/√(m − i)` of what is left (PMET, arXiv 2308.08742).
    Sqrt,
    /// An equal part of the residual of the unedited model each, nothing measured again: `Memit` without refresh.
    Uniform,
    /// Step `i` takes `wᵢ / Σ_{j ≥ i} wⱼ` of what is left; equal weights are `Memit`.
    Weights(Vec<f64>),
    /// The first and the last layer, each with the whole residual of targets of its own (BLUE, arXiv 2502.00158).
    Boundary,
    /// Every layer with the whole residual of targets of its own: those after the first are read in a pass that has the first one's targets
    /// in their place (MEMIT-FE).
    Forward,
}

impl Strategy {
    /// The rule of a kind; none for `Weights` without weights, which others have no use for.
    pub fn new(kind: StrategyKind, weights: Option<Vec<f64>>) -> Option<Self> {
        Some(match kind {
            StrategyKind::Single => Self::Single,
            StrategyKind::Memit => Self::Memit,
            StrategyKind::Sqrt => Self::Sqrt,
            StrategyKind::Uniform => Self::Uniform,
            StrategyKind::Weights => Self::Weights(weights?),
            StrategyKind::Boundary => Self::Boundary,
            StrategyKind::Forward => Self::Forward,
        })
    }

    /// The plan for the given layers. All strategies but `Boundary` and `Forward` aim at the last one, so that they can be compared over
    /// one list: `Single` leaves the others alone.
    ///
    /// # Errors
    /// [`MathError::Layers`] for an empty list, one that does not rise, or one that does not fit the strategy.
    pub fn plan(&self, layers: &[usize]) -> Result<Plan, MathError> {
        let Some(&last) = layers.last() else {
            return Err(MathError::Layers("layers is empty".into()));
        };
        if let Some([low, high]) = layers.array_windows().find(|[low, high]| low >= high) {
            return Err(MathError::Layers(if low == high {
                format!("layer {low} is given twice")
            } else {
                format!("layers must rise: {low} stands before {high} (lower layers are edited first)")
            }));
        }
        let steps = match self {
            Self::Single => single::steps(layers),
            Self::Memit => memit::steps(layers),
            Self::Sqrt => sqrt::steps(layers),
            Self::Uniform => return Ok(Self::Memit.plan(layers)?.refreshing(RefreshKind::None)),
            Self::Weights(weights) => weights::steps(layers, weights)?,
            Self::Boundary => boundary::steps(layers)?,
            Self::Forward => forward::steps(layers)?,
        };
        let own = steps.iter().any(|step| step.refresh.targets || step.refresh.forward);
        let target_layer = if own { steps[0].layer } else { last };
        Ok(Plan { target_layer, steps })
    }
}
