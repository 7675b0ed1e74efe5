//! The metric without second moments.

use std::sync::Arc;

use faer::{Mat, MatRef, Scale};

use super::cholesky::Factor;
use super::metric::{Change, Preservation, PreservationWeights, Projection};
use crate::MathError;
use crate::matrix::check_size;

/// `P = λI + ρI`, as if `C` were the identity: every direction of key space costs the same, whatever a corpus uses it for.
///
/// ```
/// use palinode_math::{Form, PreservationWeights, Problem, Ridge, from_row_major, solve};
///
/// let ridge = Ridge::new(2, PreservationWeights { lambda: 3.0, rho: 0.0 })?;
/// let keys = from_row_major("keys", &[1.0, 2.0], 2, 1)?;
/// let residual = from_row_major("residual", &[4.0], 1, 1)?;
/// let problem =
///     Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &[1.0], form: Form::Auto };
/// // R kᵀ / (|k|² + λμ) = 4 · [1, 2] / (5 + 3).
/// let change = solve(&ridge, &problem)?.update.dense();
/// assert!((change[(0, 0)] - 0.5).abs() < 1e-15 && (change[(0, 1)] - 1.0).abs() < 1e-15);
/// # Ok::<(), palinode_math::MathError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ridge {
    size: usize,
    weights: PreservationWeights,
}

impl Ridge {
    /// Over keys of size `f`.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for weights out of range.
    pub fn new(f: usize, weights: PreservationWeights) -> Result<Self, MathError> {
        weights.check()?;
        Ok(Self { size: f, weights })
    }

    /// What `I` is multiplied by.
    fn scale(&self) -> f64 {
        self.weights.lambda + self.weights.rho
    }
}

impl Preservation for Ridge {
    fn size(&self) -> usize {
        self.size
    }

    fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError> {
        check_size("key size", keys.nrows(), self.size)?;
        let by = Scale(self.scale().recip());
        Ok(Projection { keys: by * keys, gram: by * (keys.transpose() * keys) })
    }

    fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        Scale(self.scale()) * (x * x.transpose())
    }

    fn cost(&self, change: &Change<'_>) -> f64 {
        change.frobenius * change.frobenius
    }

    fn metric(&self) -> Option<Mat<f64>> {
        Some(Scale(self.scale()) * Mat::<f64>::identity(self.size, self.size))
    }

    fn with_keys(&self, keys: MatRef<'_, f64>) -> Result<Arc<dyn Preservation>, MathError> {
        check_size("key size", keys.nrows(), self.size)?;
        let whole = Scale(self.scale()) * Mat::<f64>::identity(self.size, self.size);
        Factor::grown(whole, keys, self.weights)
    }
}
