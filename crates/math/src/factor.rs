//! The preservation metric and its Cholesky factor.

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Side};

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

/// Lower Cholesky factor `L` of `P = L Lᵀ`, `f × f`.
#[derive(Clone, Debug)]
pub struct Factor {
    lower: Mat<f64>,
    preservation: Preservation,
}

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
            _ => Ok(Self { lower, preservation }),
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
        Ok(Self { lower, preservation })
    }

    /// Row `i` of `L`, its `i + 1` values up to the diagonal.
    pub fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..=i).map(move |j| self.lower[(i, j)])
    }

    /// The same metric with `λ` replaced, without factoring again. Only without a ridge, where `λ` scales the whole
    /// metric.
    pub fn rescaled(&self, lambda: f64) -> Option<Self> {
        if self.preservation.rho != 0.0 || !(lambda > 0.0 && lambda.is_finite()) {
            return None;
        }
        let scale = (lambda / self.preservation.lambda).sqrt();
        let lower = Mat::from_fn(self.size(), self.size(), |i, j| scale * self.lower[(i, j)]);
        Some(Self { lower, preservation: Preservation { lambda, ..self.preservation } })
    }

    /// Key size `f`.
    pub fn size(&self) -> usize {
        self.lower.nrows()
    }

    /// `λ` and `ρ`.
    pub fn preservation(&self) -> Preservation {
        self.preservation
    }

    /// `L`.
    pub fn lower(&self) -> MatRef<'_, f64> {
        self.lower.as_ref()
    }

    /// `L⁻¹ X`.
    pub(crate) fn forward(&self, x: MatRef<'_, f64>) -> Result<Mat<f64>, MathError> {
        check_size("key size", x.nrows(), self.size())?;
        let mut y = x.to_owned();
        solve_lower_triangular_in_place(self.lower.as_ref(), y.as_mut(), faer::get_global_parallelism());
        Ok(y)
    }

    /// `L⁻ᵀ Y`.
    pub(crate) fn backward(&self, mut y: Mat<f64>) -> Mat<f64> {
        solve_upper_triangular_in_place(self.lower.transpose(), y.as_mut(), faer::get_global_parallelism());
        y
    }

    /// `P`.
    pub(crate) fn metric(&self) -> Mat<f64> {
        &self.lower * self.lower.transpose()
    }
}
