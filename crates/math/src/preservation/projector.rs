//! A metric over the directions that a corpus hardly uses: AlphaEdit's null space (arXiv 2410.02355).
//!
//! With `C = V Λ Vᵀ` and `U` the columns of `V` with the smallest eigenvalues `Λᵤ`, every change is of the form `Δ = D Uᵀ`. The metric of
//! `D` is `Uᵀ(λC + ρI)U = λΛᵤ + ρI`, which is diagonal: what costs is the decomposition, once for each layer, and nothing is factored.

use std::sync::Arc;

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Side};

use super::cholesky::{add_lower_half, lower_half};
use super::metric::{Change, Preservation, PreservationWeights, Projection};
use crate::matrix::{check_finite, check_size, gram, trace_of_product};
use crate::{MathError, SecondMoment};

/// Which eigenvectors of `C` a change may use: those with the smallest eigenvalues, up to a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// Eigenvalues strictly below a number, as published. It depends on the scale of `C`.
    Below(f64),
    /// As many as hold together at most this share of the trace of `C`.
    Trace(f64),
    /// This share of the dimensions, rounded down.
    Dimensions(f64),
}

/// Eigenvalues and eigenvectors of `C`.
#[derive(Clone, Debug)]
pub struct Spectrum {
    /// `[f, f]`, a column each.
    vectors: Mat<f64>,
    /// Rising.
    values: Vec<f64>,
}

/// Where a threshold cuts a spectrum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Dimensions of a key.
    pub dimensions: usize,
    /// Directions that a change may use.
    pub kept: usize,
    /// The largest eigenvalue that is kept.
    pub below: Option<f64>,
    /// The smallest eigenvalue that is not.
    pub above: Option<f64>,
    /// The smallest eigenvalue.
    pub smallest: f64,
    /// The largest eigenvalue.
    pub largest: f64,
    /// The share of the trace that the kept eigenvalues hold.
    pub trace: f64,
}

impl Cut {
    /// Whether the eigenvalues on both sides differ by so little that rounding, or some other text, may move one across.
    pub fn near_tie(&self) -> bool {
        matches!((self.below, self.above), (Some(below), Some(above)) if above <= 1.05 * below)
    }
}

impl Spectrum {
    /// Decomposes `C`; about 9 f³ multiplications.
    ///
    /// # Errors
    /// [`MathError::Dimension`] for keys of several parts; [`MathError::NotFinite`]; [`MathError::NoSpectrum`] where the iteration does not converge.
    pub fn of(moment: &SecondMoment) -> Result<Self, MathError> {
        check_size("parts of a key", moment.parts(), 1)?;
        let mean = moment.mean();
        check_finite("second moment", mean.as_ref())?;
        let eigen = mean.self_adjoint_eigen(Side::Lower).map_err(|_| MathError::NoSpectrum)?;
        let values = eigen.S().column_vector().iter().copied().collect();
        Ok(Self { vectors: eigen.U().to_owned(), values })
    }

    /// From stored vectors, `[f, f]` with a column each, and values in rising order.
    ///
    /// # Errors
    /// [`MathError::Dimension`]; [`MathError::NotFinite`].
    pub fn from_parts(vectors: Mat<f64>, values: Vec<f64>) -> Result<Self, MathError> {
        check_size("number of eigenvectors", vectors.ncols(), values.len())?;
        check_size("size of eigenvectors", vectors.nrows(), values.len())?;
        check_finite("eigenvectors", vectors.as_ref())?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(MathError::NotFinite { what: "eigenvalues" });
        }
        Ok(Self { vectors, values })
    }

    /// Eigenvectors, a column each.
    pub fn vectors(&self) -> MatRef<'_, f64> {
        self.vectors.as_ref()
    }

    /// Eigenvalues, rising.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Where a threshold cuts.
    pub fn cut(&self, threshold: Threshold) -> Cut {
        let positive = |value: &f64| value.max(0.0);
        let trace: f64 = self.values.iter().map(positive).sum();
        let f = self.values.len();
        let kept = match threshold {
            Threshold::Below(bound) => self.values.partition_point(|value| *value < bound),
            Threshold::Dimensions(share) => ((share * f as f64) as usize).min(f),
            Threshold::Trace(share) if share >= 1.0 => f,
            Threshold::Trace(share) => {
                let mut sum = 0.0;
                self.values
                    .iter()
                    .map(positive)
                    .take_while(|value| {
                        sum += value;
                        sum <= share * trace
                    })
                    .count()
            }
        };
        Cut {
            dimensions: f,
            kept,
            below: kept.checked_sub(1).map(|i| self.values[i]),
            above: self.values.get(kept).copied(),
            smallest: self.values.first().copied().unwrap_or(0.0),
            largest: self.values.last().copied().unwrap_or(0.0),
            trace: self.values[..kept].iter().map(positive).sum::<f64>() / trace.max(f64::MIN_POSITIVE),
        }
    }
}

/// `λC + ρI` over the span of some directions; changes along all others cost without bound.
#[derive(Clone, Debug)]
pub struct Projector {
    /// `U`, `[f, r]`, orthonormal.
    basis: Arc<Mat<f64>>,
    /// Eigenvalues of `C`, one a direction.
    values: Vec<f64>,
    weights: PreservationWeights,
    /// Lower Cholesky factor of `UᵀPU`, `[r, r]`, where keys were added to it and it is no longer diagonal.
    lower: Option<Mat<f64>>,
}

impl Projector {
    /// The directions of a spectrum that a threshold leaves.
    ///
    /// # Errors
    /// [`MathError::NoDirections`] where there is none; those of [`Projector::from_basis`].
    pub fn new(spectrum: &Spectrum, threshold: Threshold, weights: PreservationWeights) -> Result<Self, MathError> {
        let cut = spectrum.cut(threshold);
        if cut.kept == 0 {
            return Err(MathError::NoDirections { dimensions: cut.dimensions, smallest: cut.smallest });
        }
        let basis = spectrum.vectors.subcols(0, cut.kept).to_owned();
        Self::from_basis(basis, spectrum.values[..cut.kept].to_vec(), weights)
    }

    /// Of orthonormal directions `[f, r]` that are eigenvectors of `C`, and their eigenvalues.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for weights out of range, and where both are 0: nothing is then preserved within the directions.
    pub fn from_basis(basis: Mat<f64>, values: Vec<f64>, weights: PreservationWeights) -> Result<Self, MathError> {
        check_size("number of eigenvalues", values.len(), basis.ncols())?;
        let PreservationWeights { lambda, rho } = weights;
        for (name, value) in [("lambda", lambda), ("update_norm_lambda", rho)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(MathError::Parameter { name, value, expected: "0 or above" });
            }
        }
        let smallest = values.iter().map(|value| lambda * value.max(0.0) + rho).fold(f64::INFINITY, f64::min);
        if smallest <= 0.0 {
            return Err(MathError::Parameter {
                name: "update_norm_lambda",
                value: rho,
                expected: "above 0 where a projector has no λ, or the corpus leaves a direction unused",
            });
        }
        Ok(Self { basis: Arc::new(basis), values, weights, lower: None })
    }

    /// Number of directions.
    pub fn rank(&self) -> usize {
        self.basis.ncols()
    }

    fn diagonal(&self, i: usize) -> f64 {
        self.weights.lambda * self.values[i].max(0.0) + self.weights.rho
    }
}

impl Preservation for Projector {
    fn size(&self) -> usize {
        self.basis.nrows()
    }

    fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError> {
        check_size("key size", keys.nrows(), self.size())?;
        let mut within = self.basis.transpose() * keys;
        let gram = if let Some(lower) = &self.lower {
            let threads = faer::get_global_parallelism();
            solve_lower_triangular_in_place(lower.as_ref(), within.as_mut(), threads);
            let gram = within.transpose() * &within;
            solve_upper_triangular_in_place(lower.transpose(), within.as_mut(), threads);
            gram
        } else {
            let root = Mat::from_fn(within.nrows(), within.ncols(), |i, j| within[(i, j)] / self.diagonal(i).sqrt());
            within = Mat::from_fn(within.nrows(), within.ncols(), |i, j| within[(i, j)] / self.diagonal(i));
            root.transpose() * &root
        };
        Ok(Projection { keys: self.basis.as_ref() * within, gram })
    }

    fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let within = x * self.basis.as_ref();
        let root = match &self.lower {
            Some(lower) => &within * lower,
            None => Mat::from_fn(within.nrows(), within.ncols(), |i, j| within[(i, j)] * self.diagonal(j).sqrt()),
        };
        &root * root.transpose()
    }

    fn cost(&self, change: &Change<'_>) -> f64 {
        let within = &change.update.right * self.basis.as_ref();
        let root = Mat::from_fn(within.nrows(), within.ncols(), |i, j| within[(i, j)] * self.values[j].max(0.0).sqrt());
        trace_of_product(&gram(change.update.left.as_ref()), &(&root * root.transpose())).max(0.0)
    }

    fn metric(&self) -> Option<Mat<f64>> {
        None
    }

    fn with_keys(&self, keys: MatRef<'_, f64>) -> Result<Arc<dyn Preservation>, MathError> {
        check_size("key size", keys.nrows(), self.size())?;
        let within = self.basis.transpose() * keys;
        let mut metric = match &self.lower {
            Some(lower) => lower_half(lower.as_ref(), 1.0),
            None => Mat::from_fn(self.rank(), self.rank(), |i, j| if i == j { self.diagonal(i) } else { 0.0 }),
        };
        add_lower_half(&mut metric, within.as_ref());
        let lower = metric.llt(Side::Lower).map_err(|_| MathError::OutOfRange { what: "UᵀPU" })?.L().to_owned();
        Ok(Arc::new(Self { lower: Some(lower), ..self.clone() }))
    }
}
