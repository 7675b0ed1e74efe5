//! The preservation metric and its Cholesky factor.

use std::sync::{Arc, Mutex, PoisonError};

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Scale, Side};

use crate::matrix::{check_finite, check_size};
use crate::{MathError, SecondMoment};

/// Weights of the preservation metric `P = λC + ρI`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preservation {
    /// `λ`: what a unit of change on the corpus costs (`mom2_update_weight` in the reference implementations).
    pub lambda: f64,
    /// `ρ`: ridge on the update's norm (`update_norm_lambda`).
    pub rho: f64,
}

impl Preservation {
    fn check(self) -> Result<(), MathError> {
        if !(self.lambda > 0.0 && self.lambda.is_finite()) {
            return Err(MathError::Parameter { name: "lambda", value: self.lambda, expected: "a number above 0" });
        }
        if !(self.rho >= 0.0 && self.rho.is_finite()) {
            return Err(MathError::Parameter { name: "update_norm_lambda", value: self.rho, expected: "0 or above" });
        }
        Ok(())
    }
}

/// Lower Cholesky factor `L` of `P = L Lᵀ`, `f × f`. Copies share it, those for another `λ` too.
///
/// ```
/// use palinode_math::{Factor, MathError, Preservation, SecondMoment};
///
/// let mut moment = SecondMoment::new(2);
/// moment.add(&[1.0, 0.0])?;
/// // One token says nothing about the second direction: C has rank 1.
/// let preservation = Preservation { lambda: 100.0, rho: 0.0 };
/// assert!(matches!(Factor::new(&moment, preservation), Err(MathError::NotPositiveDefinite { index: 1, .. })));
///
/// // A second token does, and so would a ridge on the change's norm.
/// moment.add(&[0.0, 2.0])?;
/// Factor::new(&moment, preservation)?;
/// Factor::new(&moment, Preservation { rho: 10.0, ..preservation })?;
/// # Ok::<(), MathError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Factor {
    /// `L`, but for the scale.
    lower: Arc<Mat<f64>>,
    /// What `lower` is to be multiplied by.
    scale: f64,
    preservation: Preservation,
    /// Of the keys that were projected last: sweeps over `λ`, `ε` and `μ` project the same ones again and again.
    recent: Arc<Mutex<Option<Recent>>>,
}

/// Keys, and what was made of them with `lower` as it is.
#[derive(Debug)]
struct Recent {
    keys: Mat<f64>,
    projection: Projection,
}

/// Keys seen through the metric.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    /// `P⁻¹K`, `f × B`.
    pub keys: Mat<f64>,
    /// `KᵀP⁻¹K`, `B × B`.
    pub gram: Mat<f64>,
}

/// Numbers in the largest set of keys that is kept: 128 MiB.
const MOST_KEPT: usize = 16 << 20;

impl Factor {
    /// Factors `λC + ρI`.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for weights out of range; [`MathError::NotFinite`]; [`MathError::NotPositiveDefinite`]
    /// where a pivot is not above rounding: too few tokens for the key size, or units that never fire.
    pub fn new(moment: &SecondMoment, preservation: Preservation) -> Result<Self, MathError> {
        preservation.check()?;
        let size = moment.size();
        let mut metric = moment.mean();
        check_finite("second moment", metric.as_ref())?;
        for j in 0..size {
            for i in 0..size {
                metric[(i, j)] *= preservation.lambda;
            }
            metric[(j, j)] += preservation.rho;
        }
        let largest = (0..size).map(|i| metric[(i, i)]).fold(0.0, f64::max);
        let fails = |index: usize, pivot: f64| MathError::NotPositiveDefinite {
            size,
            tokens: moment.count(),
            index,
            pivot,
            largest,
        };
        let lower = match metric.llt(Side::Lower) {
            Ok(factor) => factor.L().to_owned(),
            Err(faer::linalg::cholesky::llt::factor::LltError::NonPositivePivot { index }) => {
                return Err(fails(index, 0.0));
            }
        };
        // A pivot of the size of rounding means that its row is a combination of the others: the factor exists by luck.
        let floor = size as f64 * f64::EPSILON * largest;
        let smallest = (0..size).map(|i| (i, lower[(i, i)] * lower[(i, i)])).min_by(|a, b| a.1.total_cmp(&b.1));
        match smallest {
            Some((index, pivot)) if pivot <= floor => Err(fails(index, pivot)),
            _ => Ok(Self::of(lower, preservation)),
        }
    }

    /// From a stored factor of size `f`, read row by row: `next` fills the `i + 1` values of row `i`.
    ///
    /// # Errors
    /// What `next` gives; [`MathError::Parameter`]; [`MathError::NotFinite`]; [`MathError::NotAFactor`] for a pivot that is
    /// not above 0.
    pub fn from_rows<E: From<MathError>>(
        f: usize,
        preservation: Preservation,
        mut next: impl FnMut(usize, &mut [f64]) -> Result<(), E>,
    ) -> Result<Self, E> {
        preservation.check()?;
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
        Ok(Self::of(lower, preservation))
    }

    fn of(lower: Mat<f64>, preservation: Preservation) -> Self {
        Self { lower: Arc::new(lower), scale: 1.0, preservation, recent: Arc::default() }
    }

    /// Row `i` of `L`, its `i + 1` values up to the diagonal.
    pub fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..=i).map(move |j| self.scale * self.lower[(i, j)])
    }

    /// The same metric with `λ` replaced, without factoring again. Only without a ridge, where `λ` scales the whole
    /// metric.
    pub fn rescaled(&self, lambda: f64) -> Option<Self> {
        if self.preservation.rho != 0.0 || !(lambda > 0.0 && lambda.is_finite()) {
            return None;
        }
        let scale = self.scale * (lambda / self.preservation.lambda).sqrt();
        Some(Self { scale, preservation: Preservation { lambda, ..self.preservation }, ..self.clone() })
    }

    /// Key size `f`.
    pub fn size(&self) -> usize {
        self.lower.nrows()
    }

    /// `λ` and `ρ`.
    pub fn preservation(&self) -> Preservation {
        self.preservation
    }

    /// `P⁻¹K` and `KᵀP⁻¹K` of keys `f × B`.
    pub(crate) fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError> {
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

    /// `X P Xᵀ` for `X` `B × f`.
    pub(crate) fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let spread = x * self.lower.as_ref();
        Scale(self.scale.powi(2)) * (&spread * spread.transpose())
    }

    /// `P`.
    pub(crate) fn metric(&self) -> Mat<f64> {
        Scale(self.scale.powi(2)) * (self.lower.as_ref() * self.lower.transpose())
    }
}
