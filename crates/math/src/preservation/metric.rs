//! What a solve asks of its metric.

use std::fmt::Debug;
use std::sync::Arc;

use faer::{Mat, MatRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::LowRank;
use crate::MathError;

/// The metric of a solve, over keys of size `f`.
pub trait Preservation: Debug + Send + Sync {
    /// Key size `f`.
    fn size(&self) -> usize;

    /// `P⁻¹K` and `KᵀP⁻¹K` of keys `K` `[f, B]`.
    ///
    /// # Errors
    /// [`MathError::Dimension`] for keys of another size.
    fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError>;

    /// `X P Xᵀ`, `[B, B]`, for `X` `[B, f]` whose rows are of what [`Preservation::project`] gives.
    fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64>;

    /// `tr(Δ C Δᵀ)`: the part of a change's weight that is its effect on the corpus; without second moments, on keys of which none is more
    /// usual than another (`C = I`).
    fn cost(&self, change: &Change<'_>) -> f64;

    /// `P`, `[f, f]`, for the primal form; `None` where there is none.
    fn metric(&self) -> Option<Mat<f64>>;

    /// Whether [`Preservation::with_keys`] gives anything: not of a metric whose form other keys would break.
    fn takes_keys(&self) -> bool {
        true
    }

    /// The metric of `P + QQᵀ` for `Q` `[f, n]`, factored anew. Its [`Preservation::cost`] is not asked for: that is the business of the
    /// metric that keys were added to.
    ///
    /// # Errors
    /// [`MathError::Dimension`] for keys of another size; [`MathError::OutOfRange`] where the sum has no factor.
    fn with_keys(&self, keys: MatRef<'_, f64>) -> Result<Arc<dyn Preservation>, MathError>;
}

/// Keys seen through the metric.
#[derive(Clone, Debug)]
pub struct Projection {
    /// `P⁻¹K`, `[f, B]`.
    pub keys: Mat<f64>,
    /// `KᵀP⁻¹K`, `[B, B]`.
    pub gram: Mat<f64>,
}

/// A change whose cost is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// `Δ`.
    pub update: &'a LowRank,
    /// `tr(Δ P Δᵀ)`.
    pub weighed: f64,
    /// `‖Δ‖_F`.
    pub frobenius: f64,
}

/// What a metric is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreservationKind {
    /// Second moments C of a corpus: P = λC + ρI. What the layer computes for the corpus's keys is preserved.
    #[default]
    Moments,
    /// No second moments: P = (λ + ρ)I, as if C were the identity. Only the norm of the change counts.
    Ridge,
}

/// The scalars of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreservationWeights {
    /// `λ`: what a unit of change on the corpus costs (`mom2_update_weight` in the reference implementations).
    pub lambda: f64,
    /// `ρ`: ridge on the update's norm (`update_norm_lambda`).
    pub rho: f64,
}

impl PreservationWeights {
    pub(super) fn check(self) -> Result<(), MathError> {
        if !(self.lambda > 0.0 && self.lambda.is_finite()) {
            return Err(MathError::Parameter { name: "lambda", value: self.lambda, expected: "a number above 0" });
        }
        if !(self.rho >= 0.0 && self.rho.is_finite()) {
            return Err(MathError::Parameter { name: "update_norm_lambda", value: self.rho, expected: "0 or above" });
        }
        Ok(())
    }
}
