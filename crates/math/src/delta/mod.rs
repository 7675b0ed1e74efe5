//! A change of one weight, in the form in which it is smallest.
//!
//! A solve gives two thin factors, whose product is a thousand times their size: they are what is cached, exported and undone, and the
//! product exists only while it is added to a weight. After-care and training give changes that are no product of thin factors. Whoever
//! takes a change asks it what it does ([`Delta::times`], [`Delta::frobenius`], …), and looks at the form only to store it.

mod low_rank;
mod sparse;

use faer::{Mat, MatRef};

use crate::MathError;
use crate::matrix::{check_finite, check_size};
use crate::spectrum::largest_eigenvalue;

pub use low_rank::LowRank;
pub use sparse::Sparse;

/// Inputs of a weight whose changes are multiplied out at a time.
const INPUTS: usize = 1024;

/// A change `Δ` of a weight, `[out, in]`.
///
/// ```
/// use palinode_math::{Delta, LowRank, from_row_major};
///
/// let left = from_row_major("left", &[1.0, 2.0], 2, 1)?;
/// let right = from_row_major("right", &[3.0, 0.0, 4.0], 1, 3)?;
/// let low = Delta::LowRank(LowRank { left, right });
/// let dense = Delta::Dense(low.dense());
/// assert_eq!((low.shape(), low.numbers(), dense.numbers()), ([2, 3], 5, 6));
/// assert!((low.frobenius() - dense.frobenius()).abs() < 1e-12);
///
/// // Low rank and low rank is low rank, side by side; with anything else it is a sum.
/// assert_eq!(low.clone().plus(&low)?.rank(), Some(2));
/// assert_eq!(low.plus(&dense)?.rank(), None);
/// # Ok::<(), palinode_math::MathError>(())
/// ```
#[derive(Clone, Debug)]
pub enum Delta {
    /// Two factors.
    LowRank(LowRank),
    /// Some entries; all others are 0.
    Sparse(Sparse),
    /// All entries.
    Dense(Mat<f64>),
}

impl Delta {
    /// Rows and columns: the weight's outputs and inputs.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::LowRank(LowRank { left, right }) => [left.nrows(), right.ncols()],
            Self::Sparse(sparse) => sparse.shape(),
            Self::Dense(dense) => [dense.nrows(), dense.ncols()],
        }
    }

    /// A bound on the rank, where the form gives one.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::LowRank(low) => Some(low.left.ncols()),
            Self::Sparse(_) | Self::Dense(_) => None,
        }
    }

    /// Numbers that are stored, those which say where an entry lies included.
    pub fn numbers(&self) -> usize {
        match self {
            Self::LowRank(LowRank { left, right }) => left.nrows() * left.ncols() + right.nrows() * right.ncols(),
            Self::Sparse(sparse) => 2 * sparse.values().len(),
            Self::Dense(dense) => dense.nrows() * dense.ncols(),
        }
    }

    /// `Δ`, `[out, in]`.
    pub fn dense(&self) -> Mat<f64> {
        match self {
            Self::LowRank(low) => low.dense(),
            Self::Sparse(sparse) => sparse.dense(),
            Self::Dense(dense) => dense.clone(),
        }
    }

    /// `Δᵀ`, `[in, out]` row-major, as a model computes with it: summed in f64 and rounded once. In f64 no more than some inputs' numbers are in
    /// memory at a time.
    pub fn transposed_f32(&self) -> Vec<f32> {
        let [out, inputs] = self.shape();
        let mut values = Vec::with_capacity(out * inputs);
        match self {
            Self::LowRank(LowRank { left, right }) => {
                for from in (0..inputs).step_by(INPUTS) {
                    let part = left * right.subcols(from, INPUTS.min(inputs - from));
                    values.extend(part.col_iter().flat_map(faer::ColRef::iter).map(|value| *value as f32));
                }
            }
            Self::Sparse(sparse) => {
                values.resize(out * inputs, 0.0);
                sparse.entries().for_each(|([i, j], value)| values[j * out + i] = value as f32);
            }
            Self::Dense(dense) => {
                values.extend(dense.col_iter().flat_map(faer::ColRef::iter).map(|value| *value as f32));
            }
        }
        values
    }

    /// `Δ X`, `[out, n]`, for `X` `[in, n]`.
    pub fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        match self {
            Self::LowRank(low) => low.times(x),
            Self::Sparse(sparse) => sparse.times(x),
            Self::Dense(dense) => dense * x,
        }
    }

    /// `‖Δ‖_F`.
    pub fn frobenius(&self) -> f64 {
        match self {
            Self::LowRank(low) => low.frobenius(),
            Self::Sparse(sparse) => sparse.values().iter().map(|value| value * value).sum::<f64>().sqrt(),
            Self::Dense(dense) => dense.norm_l2(),
        }
    }

    /// Largest singular value of `Δ`, by power iteration.
    pub fn spectral(&self) -> f64 {
        let inputs = self.shape()[1];
        match self {
            Self::LowRank(low) => low.spectral(),
            Self::Sparse(sparse) => {
                largest_eigenvalue(inputs, |v| sparse.times_transposed(sparse.times(v.as_ref()).as_ref())).sqrt()
            }
            Self::Dense(dense) => largest_eigenvalue(inputs, |v| dense.transpose() * (dense * v)).sqrt(),
        }
    }

    /// Adds the change to a weight `[out, in]`.
    ///
    /// # Errors
    /// [`MathError::Dimension`].
    pub fn add_to(&self, weight: &mut Mat<f64>) -> Result<(), MathError> {
        self.check_shape([weight.nrows(), weight.ncols()])?;
        match self {
            Self::LowRank(low) => *weight += low.dense(),
            Self::Sparse(sparse) => sparse.entries().for_each(|([i, j], value)| weight[(i, j)] += value),
            Self::Dense(dense) => *weight += dense,
        }
        Ok(())
    }

    /// Both changes as one. Factors are put side by side and entries together, as rounds of a sequence need it; different forms are summed.
    ///
    /// # Errors
    /// [`MathError::Dimension`] for a change of a weight of another shape.
    pub fn plus(self, other: &Self) -> Result<Self, MathError> {
        other.check_shape(self.shape())?;
        Ok(match (self, other) {
            (Self::LowRank(a), Self::LowRank(b)) => Self::LowRank(a.beside(b)),
            (Self::Sparse(a), Self::Sparse(b)) => Self::Sparse(a.plus(b)),
            (a, b) => {
                let mut sum = a.dense();
                b.add_to(&mut sum)?;
                Self::Dense(sum)
            }
        })
    }

    /// The same change with every stored value rounded to single precision.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let single = |value: f64| f64::from(value as f32);
        let matrix = |m: &Mat<f64>| Mat::from_fn(m.nrows(), m.ncols(), |i, j| single(m[(i, j)]));
        match self {
            Self::LowRank(LowRank { left, right }) => {
                Self::LowRank(LowRank { left: matrix(left), right: matrix(right) })
            }
            Self::Sparse(sparse) => Self::Sparse(sparse.map(single)),
            Self::Dense(dense) => Self::Dense(matrix(dense)),
        }
    }

    /// Fails for a change of a weight of another shape, and for factors that do not fit each other.
    ///
    /// # Errors
    /// [`MathError::Dimension`].
    pub fn check_shape(&self, shape: [usize; 2]) -> Result<(), MathError> {
        if let Self::LowRank(LowRank { left, right }) = self {
            check_size("rank of the right factor", right.nrows(), left.ncols())?;
        }
        check_size("number of a change's outputs", self.shape()[0], shape[0])?;
        check_size("number of a change's inputs", self.shape()[1], shape[1])
    }

    /// Fails for a change that holds NaN or an infinity.
    ///
    /// # Errors
    /// [`MathError::NotFinite`].
    pub fn check_finite(&self) -> Result<(), MathError> {
        match self {
            Self::LowRank(LowRank { left, right }) => {
                check_finite("left factor", left.as_ref())?;
                check_finite("right factor", right.as_ref())
            }
            Self::Dense(dense) => check_finite("change", dense.as_ref()),
            Self::Sparse(sparse) if sparse.values().iter().all(|value| value.is_finite()) => Ok(()),
            Self::Sparse(_) => Err(MathError::NotFinite { what: "change" }),
        }
    }
}

impl From<LowRank> for Delta {
    fn from(low: LowRank) -> Self {
        Self::LowRank(low)
    }
}
