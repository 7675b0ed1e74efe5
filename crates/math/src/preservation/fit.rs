//! Whether a second moment is one of these keys.
//!
//! For keys `k` of the text that `C` was measured on, the mean of `kᵀC⁻¹k` is `tr(C⁻¹C) = f`, whatever the keys are: the one number that
//! is known beforehand. Keys of other text of the same layer have directions that the corpus had less of, and come out a few times larger.
//! Keys of another layer or another model stand in directions that `C` knows nothing of, and come out tens to thousands of times larger.
//! Another scale shows as itself: a sum over a million tokens in place of the mean gives a millionth.
//!
//! On text that `C` was measured on the mean says nothing, since it is 1 whatever `C` is worth. It says something where that text is taken out
//! of `C` first ([`Fit::held_out`]), and that needs neither another pass nor another factorisation: a document is a change of low rank.

use super::cholesky::Factor;
use super::metric::{Preservation as _, PreservationWeights};
use crate::matrix::from_row_major;
use crate::{MathError, SecondMoment};

use faer::linalg::solvers::DenseSolveCore as _;
use faer::{Mat, Side};

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

    /// Of `C` and keys that it was measured on, as if it had not been: the keys of a document, row-major `[n, f]` each, are judged by the
    /// second moment of all *other* tokens. With `A = Σ kkᵀ` over `N` tokens and the document's keys `K` `[f, n]`, what is averaged is
    /// the diagonal of `(N − n) Kᵀ(A − KKᵀ)⁻¹K = (N − n) G(I − G)⁻¹`, `G = KᵀA⁻¹K` (Woodbury). Near 1, and above it the more, the
    /// fewer tokens there are for a dimension.
    ///
    /// Costs a factorisation, f³/3, f² for each key, and n³ for each document. [`Fit::Singular`] also where a document is
    /// the only one with a direction.
    ///
    /// # Errors
    /// As [`Fit::of`].
    pub fn held_out(moment: &SecondMoment, documents: &[&[f32]]) -> Result<Self, MathError> {
        let f = moment.size();
        let factor = match Factor::new(moment, PreservationWeights { lambda: 1.0, rho: 0.0 }) {
            Ok(factor) => factor,
            Err(MathError::NotPositiveDefinite { .. }) => return Ok(Self::Singular),
            Err(other) => return Err(other),
        };
        let (mut total, mut count) = (0.0, 0);
        for keys in documents {
            let n = keys.len() / f.max(1);
            let keys = from_row_major("keys", keys, n, f)?;
            let tokens = moment.count() as f64;
            let gram = factor.project(keys.transpose())?.gram;
            let rest = Mat::from_fn(n, n, |i, j| f64::from(u8::from(i == j)) - gram[(i, j)] / tokens);
            let Ok(rest) = rest.llt(Side::Lower) else { return Ok(Self::Singular) };
            // G(I − G)⁻¹ = (I − G)⁻¹ − I.
            let inverse = rest.inverse();
            total += (tokens - n as f64) * (0..n).map(|i| inverse[(i, i)] - 1.0).sum::<f64>();
            count += n;
        }
        if count == 0 {
            return Err(MathError::Parameter { name: "keys", value: 0.0, expected: "one key or more" });
        }
        Ok(Self::Ratio(total / count as f64 / f as f64))
    }
}
