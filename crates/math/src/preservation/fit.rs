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
use crate::{MathError, PartKeys, SecondMoment};

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
    /// Of `C` and keys, row-major `[n, f]`. Costs a factorisation, f³/3, in the memory of the second moment, and f² for each key.
    ///
    /// # Errors
    /// [`MathError::Dimension`]; [`MathError::NotFinite`]; [`MathError::Parameter`] where there is no key.
    pub fn of(moment: SecondMoment, keys: &[f32]) -> Result<Self, MathError> {
        let f = moment.size();
        let count = keys.len() / f.max(1);
        if count == 0 {
            return Err(MathError::Parameter { name: "keys", value: 0.0, expected: "one key or more" });
        }
        let keys = from_row_major("keys", keys, count, f)?;
        if moment.is_identity() {
            return Ok(Self::Identity);
        }
        match Factor::in_place(moment, PreservationWeights { lambda: 1.0, rho: 0.0 }) {
            Ok(Some(factor)) => {
                let total: f64 = factor.forms(keys.transpose())?.into_iter().sum();
                Ok(Self::Ratio(total / count as f64 / f as f64))
            }
            Ok(None) => Ok(Self::Singular),
            Err(other) => Err(other),
        }
    }

    /// Of `C` and keys that it was measured on, as if it had not been: the keys of each document are judged by the second moment of all
    /// *other* tokens. With `A = Σ kkᵀ` over `N` tokens and the document's keys `K` `[f, n]`, what is averaged is
    /// the diagonal of `(N − n) Kᵀ(A − KKᵀ)⁻¹K = (N − n) G(I − G)⁻¹`, `G = KᵀA⁻¹K` (Woodbury). Near 1, and above it the more, the
    /// fewer tokens there are for a dimension.
    ///
    /// Of keys of several parts, each part is judged by its own block, one after the other, and the sums are added: a token that does not use
    /// a part adds nothing to it.
    ///
    /// Costs a factorisation, f³/3, f² for each key, and n³ for each document. [`Fit::Singular`] also where a document is
    /// the only one with a direction.
    ///
    /// # Errors
    /// As [`Fit::of`].
    pub fn held_out(moment: SecondMoment, documents: &[&PartKeys]) -> Result<Self, MathError> {
        let count: usize = documents.iter().map(|keys| keys.tokens()).sum();
        if count == 0 {
            return Err(MathError::Parameter { name: "keys", value: 0.0, expected: "one key or more" });
        }
        let tokens = moment.count() as f64;
        let (size, counts) = (moment.size(), moment.part_counts());
        let ranges: Vec<_> = moment.ranges().collect();
        let (several, mut moment) = (ranges.len() > 1, Some(moment));
        let mut total = 0.0;
        for (part, range) in ranges.into_iter().enumerate() {
            let f = range.len();
            if documents.iter().all(|keys| keys.users(part).is_empty()) {
                continue;
            }
            // Sums that were rounded may have a factor by luck.
            if several && counts[part] < f as u64 {
                return Ok(Self::Singular);
            }
            let weights = PreservationWeights { lambda: 1.0, rho: 0.0 };
            let block = if several { moment.as_ref().map(|moment| moment.part(part)) } else { moment.take() };
            let Some(block) = block else { continue };
            let Some(factor) = Factor::in_place(block, weights)? else { return Ok(Self::Singular) };
            for keys in documents {
                let n = keys.users(part).len();
                let own = from_row_major("keys", keys.values(part), n, f)?;
                let gram = factor.project(own.transpose())?.gram;
                let rest = Mat::from_fn(n, n, |i, j| f64::from(u8::from(i == j)) - gram[(i, j)] / tokens);
                let Ok(rest) = rest.llt(Side::Lower) else { return Ok(Self::Singular) };
                // G(I − G)⁻¹ = (I − G)⁻¹ − I.
                let inverse = rest.inverse();
                total += (tokens - keys.tokens() as f64) * (0..n).map(|i| inverse[(i, i)] - 1.0).sum::<f64>();
            }
        }
        Ok(Self::Ratio(total / count as f64 / size as f64))
    }
}
