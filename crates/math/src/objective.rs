//! What each method means by memorizing: one number `μ` per edit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MathError;

/// Which key stands where in ROME's rank-one update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RomeKey {
    /// The mean over the context templates (r-ROME).
    #[default]
    Average,
    /// The bare prompt's (p-ROME).
    Bare,
    /// As published: the mean gives the direction, the bare prompt's key the constraint.
    Reference,
}

/// An editing objective by name, without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Equality constraint, one edit at a time (arXiv 2202.05262).
    Rome,
    /// Least squares for a batch (arXiv 2210.07229).
    Memit,
    /// Equality constraint for a batch (arXiv 2403.14236).
    Emmet,
}

/// An editing objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Equality constraint for one edit (arXiv 2202.05262): `μ = 0`.
    Rome {
        /// Which key is used.
        key: RomeKey,
    },
    /// Least squares for a batch (arXiv 2210.07229): `μ = 1`.
    Memit,
    /// Equality constraint for a batch (arXiv 2403.14236): `μ = ε`, which is 0 in the paper's formula.
    Emmet {
        /// Stabiliser `ε` (`emmet_lambda`), added only where the batch holds more than one edit, as in the reference.
        epsilon: f64,
    },
}

impl Objective {
    /// The objective of a kind. The stabiliser is EMMET's and the key is ROME's; others have neither.
    pub fn new(kind: ObjectiveKind, epsilon: f64, key: RomeKey) -> Self {
        match kind {
            ObjectiveKind::Rome => Self::Rome { key },
            ObjectiveKind::Memit => Self::Memit,
            ObjectiveKind::Emmet => Self::Emmet { epsilon },
        }
    }

    /// `μ` of every edit in a batch. An edit's own `strength` stands in place of the objective's.
    ///
    /// # Errors
    /// [`MathError::SingleOnly`] for ROME with more than one edit; [`MathError::Parameter`] for a negative strength or
    /// stabiliser.
    pub fn mu(&self, strengths: &[Option<f64>]) -> Result<Vec<f64>, MathError> {
        let batch = strengths.len();
        let common = match *self {
            Self::Rome { .. } if batch > 1 => return Err(MathError::SingleOnly { batch }),
            Self::Rome { .. } => 0.0,
            Self::Memit => 1.0,
            Self::Emmet { epsilon } if epsilon >= 0.0 && epsilon.is_finite() => {
                if batch > 1 {
                    epsilon
                } else {
                    0.0
                }
            }
            Self::Emmet { epsilon } => {
                return Err(MathError::Parameter { name: "emmet_lambda", value: epsilon, expected: "0 or above" });
            }
        };
        strengths
            .iter()
            .map(|strength| match strength {
                None => Ok(common),
                Some(own) if *own >= 0.0 && own.is_finite() => Ok(*own),
                Some(own) => Err(MathError::Parameter { name: "strength", value: *own, expected: "0 or above" }),
            })
            .collect()
    }

    /// The weight `λ` of the MEMIT objective that this one equals at the given weight: `ελ` for a stabilised EMMET,
    /// `λ` for MEMIT, none for an equality constraint.
    pub fn effective_lambda(&self, lambda: f64) -> Option<f64> {
        match *self {
            Self::Memit => Some(lambda),
            Self::Emmet { epsilon } if epsilon > 0.0 => Some(epsilon * lambda),
            _ => None,
        }
    }
}
