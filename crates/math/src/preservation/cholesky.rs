//! The metric `P = λC + ρI` by its Cholesky factor.
//!
//! `P` is never inverted. Its factor `L` costs f³/3 multiplications once; from then on `P⁻¹K` is two triangular solves of f² each per key,
//! and `KᵀP⁻¹K` falls out halfway as `(L⁻¹K)ᵀ(L⁻¹K)`, symmetric and positive semidefinite to the last bit, as an explicit inverse would not
//! have it. Two things are then free that a sweep repeats again and again:
//!
//! * Without a ridge, another `λ` only multiplies `P`: `L` is kept as it was factored with a number beside it ([`Factor::rescaled`]), and
//!   all `λ` of a sweep share one factorisation.
//! * Values of `λ`, `ε` and `μ` project the same keys. What was projected last is kept, in terms of the unscaled `L`, so that copies for
//!   another `λ` find it too. It is the keys themselves that are compared: that costs f·B, a solve f²·B.

use std::sync::{Arc, Mutex, PoisonError};

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltError, LltRegularization, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatRef, Scale, Side, Spec};

use super::metric::{Change, Preservation, PreservationWeights, Projection};
use crate::matrix::{check_finite, check_size};
use crate::{MathError, SecondMoment};

/// Lower Cholesky factor `L` of `P = L Lᵀ`, `f × f`. Copies share it, those for another `λ` too.
///
/// ```
/// use palinode_math::{Factor, MathError, PreservationWeights, SecondMoment};
///
/// let mut moment = SecondMoment::new(2);
/// moment.add(&[1.0, 0.0])?;
/// // One token says nothing about the second direction: C has rank 1.
/// let weights = PreservationWeights { lambda: 100.0, rho: 0.0 };
/// assert!(matches!(Factor::new(&moment, weights), Err(MathError::NotPositiveDefinite { index: 1, .. })));
///
/// // A second token does, and so would a ridge on the change's norm.
/// moment.add(&[0.0, 2.0])?;
/// Factor::new(&moment, weights)?;
/// Factor::new(&moment, PreservationWeights { rho: 10.0, ..weights })?;
/// # Ok::<(), MathError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Factor {
    /// `L`, but for the scale.
    lower: Arc<Mat<f64>>,
    /// What `lower` is to be multiplied by.
    scale: f64,
    weights: PreservationWeights,
    /// Of the keys that were projected last: sweeps over `λ`, `ε` and `μ` project the same ones again and again.
    recent: Arc<Mutex<Option<Recent>>>,
}

/// Keys, and what was made of them with `lower` as it is.
#[derive(Debug)]
struct Recent {
    keys: Mat<f64>,
    projection: Projection,
}

/// Numbers in the largest set of keys that is kept: 128 MiB.
const MOST_KEPT: usize = 16 << 20;

/// A pivot that is no larger beside the largest entry is rounding of single precision, where tokens are too few for it to be anything else.
const SHORT: f64 = 1e-4;

impl Factor {
    /// Factors `λC + ρI`.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for weights out of range; [`MathError::Dimension`] for keys of several parts, see
    /// [`PartFactors`](super::PartFactors); [`MathError::NotFinite`]; [`MathError::NotPositiveDefinite`]
    /// where a pivot is not above rounding: too few tokens for the key size, or units that never fire.
    pub fn new(moment: &SecondMoment, weights: PreservationWeights) -> Result<Self, MathError> {
        check_size("parts of a key", moment.parts(), 1)?;
        Self::of_mean(moment.mean(), moment.count(), weights)
    }

    /// As [`Factor::new`], for a second moment that is not needed any more: 16 f² bytes in all, also where it fails.
    ///
    /// # Errors
    /// As [`Factor::new`].
    pub fn of_moment(moment: SecondMoment, weights: PreservationWeights) -> Result<Self, MathError> {
        check_size("parts of a key", moment.parts(), 1)?;
        let count = moment.count();
        Self::of_mean(moment.into_mean(), count, weights)
    }

    fn of_mean(mean: Mat<f64>, tokens: u64, weights: PreservationWeights) -> Result<Self, MathError> {
        let (metric, pivots) = Pivots::of(mean, tokens, weights)?;
        let mut lower = metric.clone();
        if let Err(index) = factor_lower_half(&mut lower) {
            if let Some(tokens) = pivots.short {
                return Err(pivots.fail(tokens, 0.0));
            }
            // The pivot is found by factoring the part before it.
            drop(lower);
            let (index, pivot) = failing_pivot(metric.as_ref(), index);
            return Err(pivots.fail(index, pivot));
        }
        drop(metric);
        Self::checked(lower, &pivots, weights)
    }

    /// As [`Factor::new`], in the memory that the second moment lies in: 8 f² bytes in all. `None` where the metric is not positive definite, of
    /// which nothing is left then that could tell more; [`Factor::of_moment`] does.
    ///
    /// # Errors
    /// As [`Factor::new`], but for [`MathError::NotPositiveDefinite`].
    pub fn in_place(moment: SecondMoment, weights: PreservationWeights) -> Result<Option<Self>, MathError> {
        check_size("parts of a key", moment.parts(), 1)?;
        let count = moment.count();
        let (mut lower, pivots) = Pivots::of(moment.into_mean(), count, weights)?;
        if factor_lower_half(&mut lower).is_err() {
            return Ok(None);
        }
        match Self::checked(lower, &pivots, weights) {
            Err(MathError::NotPositiveDefinite { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Of a factor whose pivots are above rounding.
    fn checked(mut lower: Mat<f64>, pivots: &Pivots, weights: PreservationWeights) -> Result<Self, MathError> {
        clear_upper_half(&mut lower);
        // A pivot of the size of rounding means that its row is a combination of the others: the factor exists by luck.
        let floor = pivots.size as f64 * f64::EPSILON * pivots.largest;
        let all = (0..pivots.size).map(|i| (i, lower[(i, i)] * lower[(i, i)]));
        match (all.min_by(|a, b| a.1.total_cmp(&b.1)), pivots.short) {
            (Some((_, pivot)), Some(tokens)) if pivot <= SHORT * pivots.largest => Err(pivots.fail(tokens, 0.0)),
            (Some((index, pivot)), _) if pivot <= floor => Err(pivots.fail(index, pivot)),
            _ => Ok(Self::of(lower, weights)),
        }
    }

    /// From a stored factor of size `f`, read row by row: `next` fills the `i + 1` values of row `i`.
    ///
    /// # Errors
    /// What `next` gives; [`MathError::Parameter`]; [`MathError::NotFinite`]; [`MathError::NotAFactor`] for a pivot that is
    /// not above 0.
    pub fn from_rows<E: From<MathError>>(
        f: usize,
        weights: PreservationWeights,
        mut next: impl FnMut(usize, &mut [f64]) -> Result<(), E>,
    ) -> Result<Self, E> {
        weights.check()?;
        let mut lower = Mat::zeros(f, f);
        let mut row = vec![0.0; f];
        for i in 0..f {
            let row = &mut row[..=i];
            next(i, row)?;
            if row[i] <= 0.0 {
                return Err(MathError::NotAFactor { index: i, value: row[i] }.into());
            }
            for (j, value) in row.iter().enumerate() {
                lower[(i, j)] = *value;
            }
        }
        check_finite("Cholesky factor", lower.as_ref())?;
        Ok(Self::of(lower, weights))
    }

    /// Of `P + QQᵀ`, which is positive definite where `P` is. Only the lower half of `P` is read.
    pub(super) fn grown(
        mut metric: Mat<f64>,
        keys: MatRef<'_, f64>,
        weights: PreservationWeights,
    ) -> Result<Arc<dyn Preservation>, MathError> {
        add_lower_half(&mut metric, keys);
        factor_lower_half(&mut metric).map_err(|_| MathError::OutOfRange { what: "P + Σ KₚKₚᵀ" })?;
        clear_upper_half(&mut metric);
        Ok(Arc::new(Self::of(metric, weights)))
    }

    fn of(lower: Mat<f64>, weights: PreservationWeights) -> Self {
        Self { lower: Arc::new(lower), scale: 1.0, weights, recent: Arc::default() }
    }

    /// Row `i` of `L`, its `i + 1` values up to the diagonal.
    pub fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..=i).map(move |j| self.scale * self.lower[(i, j)])
    }

    /// The same metric with `λ` replaced, without factoring again. Only without a ridge, where `λ` scales the whole
    /// metric.
    pub fn rescaled(&self, lambda: f64) -> Option<Self> {
        if self.weights.rho != 0.0 || !(lambda > 0.0 && lambda.is_finite()) {
            return None;
        }
        let scale = self.scale * (lambda / self.weights.lambda).sqrt();
        Some(Self { scale, weights: PreservationWeights { lambda, ..self.weights }, ..self.clone() })
    }

    /// `kᵀP⁻¹k` of each key of `K` `[f, B]`.
    ///
    /// # Errors
    /// [`MathError::Dimension`] for keys of another size.
    pub fn forms(&self, keys: MatRef<'_, f64>) -> Result<Vec<f64>, MathError> {
        check_size("key size", keys.nrows(), self.size())?;
        let mut half = keys.to_owned();
        let threads = faer::get_global_parallelism();
        solve_lower_triangular_in_place(self.lower.as_ref().as_ref(), half.as_mut(), threads);
        Ok(half.col_iter().map(|column| column.squared_norm_l2() * self.scale.powi(-2)).collect())
    }

    /// `λ` and `ρ`.
    pub fn weights(&self) -> PreservationWeights {
        self.weights
    }
}

/// What pivots of a metric are held against.
struct Pivots {
    size: usize,
    tokens: u64,
    largest: f64,
    /// The tokens, where they are fewer than a key has numbers. Then no more pivots than tokens are above 0. Sums that were rounded show that
    /// somewhere behind, as small pivots of either sign; so what is said is what exact sums would show. A count of 1 is that of a mean whose
    /// tokens were not counted.
    short: Option<usize>,
}

impl Pivots {
    /// `λC + ρI` of `C` over so many tokens, in the memory of `C`, and what its pivots are held against.
    fn of(mut metric: Mat<f64>, tokens: u64, weights: PreservationWeights) -> Result<(Mat<f64>, Self), MathError> {
        weights.check()?;
        let size = metric.nrows();
        check_finite("second moment", metric.as_ref())?;
        let positive = (0..size).map(|i| metric[(i, i)]).sum::<f64>() > 0.0;
        for j in 0..size {
            for i in 0..size {
                metric[(i, j)] *= weights.lambda;
            }
            metric[(j, j)] += weights.rho;
        }
        let largest = (0..size).map(|i| metric[(i, i)]).fold(0.0, f64::max);
        // Numbers below the smallest normal one have lost their digits.
        let faded = largest < f64::MIN_POSITIVE && positive;
        if faded || !metric.as_ref().is_all_finite() {
            return Err(MathError::OutOfRange { what: "λC + ρI" });
        }
        let short = usize::try_from(tokens).ok().filter(|tokens| (2..size).contains(tokens) && weights.rho == 0.0);
        Ok((metric, Self { size, tokens, largest, short }))
    }

    fn fail(&self, index: usize, pivot: f64) -> MathError {
        let Self { size, tokens, largest, .. } = *self;
        MathError::NotPositiveDefinite { size, tokens, index, pivot, largest }
    }
}

impl Preservation for Factor {
    fn size(&self) -> usize {
        self.lower.nrows()
    }

    fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError> {
        check_size("key size", keys.nrows(), self.size())?;
        let scaled = |p: &Projection| {
            let by = self.scale.powi(-2);
            Projection { keys: Scale(by) * &p.keys, gram: Scale(by) * &p.gram }
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = recent.as_ref().filter(|known| known.keys.ncols() == keys.ncols() && known.keys == keys) {
            return Ok(scaled(&known.projection));
        }
        let threads = faer::get_global_parallelism();
        let mut half = keys.to_owned();
        solve_lower_triangular_in_place(self.lower.as_ref().as_ref(), half.as_mut(), threads);
        let gram = half.transpose() * &half;
        solve_upper_triangular_in_place(self.lower.transpose(), half.as_mut(), threads);
        let projection = Projection { keys: half, gram };
        let found = scaled(&projection);
        *recent = (keys.nrows() * keys.ncols() <= MOST_KEPT).then(|| Recent { keys: keys.to_owned(), projection });
        Ok(found)
    }

    fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let spread = x * self.lower.as_ref();
        Scale(self.scale.powi(2)) * (&spread * spread.transpose())
    }

    fn cost(&self, change: &Change<'_>) -> f64 {
        let PreservationWeights { lambda, rho } = self.weights;
        ((change.weighed - rho * change.frobenius * change.frobenius) / lambda).max(0.0)
    }

    fn metric(&self) -> Option<Mat<f64>> {
        Some(Scale(self.scale.powi(2)) * (self.lower.as_ref() * self.lower.transpose()))
    }

    fn with_keys(&self, keys: MatRef<'_, f64>) -> Result<Arc<dyn Preservation>, MathError> {
        check_size("key size", keys.nrows(), self.size())?;
        Self::grown(lower_half(self.lower.as_ref().as_ref(), self.scale.powi(2)), keys, self.weights)
    }
}

/// The lower half of `scale · L Lᵀ`, f³/3 multiplications: a factorisation reads no other.
pub(super) fn lower_half(lower: MatRef<'_, f64>, scale: f64) -> Mat<f64> {
    let mut product = Mat::zeros(lower.nrows(), lower.nrows());
    let (half, other) = (BlockStructure::TriangularLower, BlockStructure::TriangularUpper);
    let threads = faer::get_global_parallelism();
    matmul(product.as_mut(), half, Accum::Replace, lower, half, lower.transpose(), other, scale, threads);
    product
}

/// Adds the lower half of `Q Qᵀ`.
pub(super) fn add_lower_half(metric: &mut Mat<f64>, keys: MatRef<'_, f64>) {
    let (half, whole) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    let threads = faer::get_global_parallelism();
    matmul(metric.as_mut(), half, Accum::Add, keys, whole, keys.transpose(), whole, 1.0, threads);
}

/// Puts `L` in the place of the lower half of `P`. What is above the diagonal means nothing then. The error is the place of a pivot that is not above 0.
fn factor_lower_half(metric: &mut Mat<f64>) -> Result<(), usize> {
    let threads = faer::get_global_parallelism();
    let scratch = cholesky_in_place_scratch::<f64>(metric.nrows(), threads, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    match cholesky_in_place(metric.as_mut(), LltRegularization::default(), threads, stack, Spec::default()) {
        Ok(_) => Ok(()),
        Err(LltError::NonPositivePivot { index }) => Err(index),
    }
}

/// Sets what lies above the diagonal to 0.
fn clear_upper_half(matrix: &mut Mat<f64>) {
    for j in 0..matrix.ncols() {
        matrix.col_as_slice_mut(j)[..j].fill(0.0);
    }
}

/// The pivot that a factorisation stopped at, which it does not tell: with `A` the part of the metric before it and `a` the column beside
/// that, `P_ii − aᵀA⁻¹a`. A part that was just factored with success may fail by itself, where rounding decides; then it is that part's.
fn failing_pivot(metric: MatRef<'_, f64>, index: usize) -> (usize, f64) {
    let before = metric.submatrix(0, 0, index, index);
    match before.llt(Side::Lower) {
        Ok(factor) => {
            let mut beside = metric.submatrix(index, 0, 1, index).transpose().to_owned();
            let threads = faer::get_global_parallelism();
            solve_lower_triangular_in_place(factor.L(), beside.as_mut(), threads);
            (index, metric[(index, index)] - beside.squared_norm_l2())
        }
        Err(LltError::NonPositivePivot { index: earlier }) => failing_pivot(metric, earlier),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In its own memory a second moment has the same factor, to the last bit, and none where it has none.
    #[test]
    fn factors_in_place_are_the_same() {
        let weights = PreservationWeights { lambda: 3.0, rho: 0.0 };
        for size in [1, 3, 64, 200, 333] {
            let of = |i: usize, j: usize| (0.01 * (i * j) as f64).cos() + if i == j { size as f64 } else { 0.0 };
            let moment = |at: usize| {
                let sum: Vec<f64> =
                    (0..size * size).map(|x| if x == at { -1.0 } else { of(x / size, x % size) }).collect();
                SecondMoment::from_sum(&sum, size, 7 * size as u64).unwrap()
            };
            let there = Factor::new(&moment(size * size), weights).unwrap();
            let here = Factor::in_place(moment(size * size), weights).unwrap().unwrap();
            assert_eq!(*there.lower, *here.lower, "{size}");
            let given = Factor::of_moment(moment(size * size), weights).unwrap();
            assert_eq!(*there.lower, *given.lower, "{size}");
            // The last pivot fails.
            assert!(matches!(
                Factor::new(&moment(size * size - 1), weights),
                Err(MathError::NotPositiveDefinite { .. })
            ));
            assert!(Factor::in_place(moment(size * size - 1), weights).unwrap().is_none(), "{size}");
        }
    }
}
