//! Whether a second moment is one of these keys.
//!
//! For keys `k` of the text that `C` was measured on, the mean of `kᵀC⁻¹k` is `tr(C⁻¹C) = f`, whatever the keys are: the one number that
//! is known beforehand. Keys of other text of the same layer have directions that the corpus had less of, and come out a few times larger.
//! Keys of another layer or another model stand in directions that `C` knows nothing of, and come out tens to thousands of times larger.
//! Another scale shows as itself: a sum over a million tokens in place of the mean gives a millionth.

use super::cholesky::Factor;
use super::metric::PreservationWeights;
use crate::matrix::from_row_major;
use crate::{MathError, SecondMoment};

/// How a second moment fits keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// The mean of `kᵀC⁻¹k` over the keys, divided by `f`: near 1 for keys of the same layer and the same kind of text.
    Ratio(f64),
    /// `C` is the identity, which was measured on nothing.
    Identity,
    /// `C` has no inverse.
    Singular,
}

impl Fit {
    /// Of `C` and keys, row-major `[n, f]`. Costs a factorisation, f³/3, and f² for each key.
    ///
    /// # Errors
    /// [`MathError::Dimension`]; [`MathError::NotFinite`]; [`MathError::Parameter`] where there is no key.
    pub fn of(moment: &SecondMoment, keys: &[f32]) -> Result<Self, MathError> {
        let f = moment.size();
        let count = keys.len() / f.max(1);
        if count == 0 {
            return Err(MathError::Parameter { name: "keys", value: 0.0, expected: "one key or more" });
        }
        let keys = from_row_major("keys", keys, count, f)?;
        if moment.is_identity() {
            return Ok(Self::Identity);
        }
        match Factor::new(moment, PreservationWeights { lambda: 1.0, rho: 0.0 }) {
            Ok(factor) => {
                let total: f64 = factor.forms(keys.transpose())?.into_iter().sum();
                Ok(Self::Ratio(total / count as f64 / f as f64))
            }
            Err(MathError::NotPositiveDefinite { .. }) => Ok(Self::Singular),
            Err(other) => Err(other),
        }
    }
}
