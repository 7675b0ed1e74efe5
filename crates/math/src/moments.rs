//! The uncentred second moment of a layer's keys.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Side};

use crate::MathError;
use crate::matrix::{check_size, from_row_major};

/// Sum of `k kᵀ` over tokens, `f × f` in f64, with the count of tokens; `C` is their quotient.
///
/// The sum is kept rather than the mean since sums over disjoint documents add: that is how the work is split, resumed,
/// extended and merged.
#[derive(Clone, Debug)]
pub struct SecondMoment {
    /// Only the lower triangle is meaningful.
    sum: Mat<f64>,
    count: u64,
}

impl SecondMoment {
    /// Of no tokens yet, for keys of size `f`.
    pub fn new(f: usize) -> Self {
        Self { sum: Mat::zeros(f, f), count: 0 }
    }

    /// From a stored sum (row-major `f × f`, symmetric) and count.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn from_sum(sum: &[f64], f: usize, count: u64) -> Result<Self, MathError> {
        Ok(Self { sum: from_row_major("second moment", sum, f, f)?, count })
    }

    /// Adds a block of keys, row-major `[tokens, f]`.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn add(&mut self, keys: &[f32]) -> Result<(), MathError> {
        let f = self.size();
        let tokens = keys.len().checked_div(f).unwrap_or(0);
        // Column-major f × tokens is the same memory as row-major tokens × f.
        let block = from_row_major("key block", keys, tokens, f)?;
        matmul(
            self.sum.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            block.transpose(),
            BlockStructure::Rectangular,
            block.as_ref(),
            BlockStructure::Rectangular,
            1.0,
            faer::get_global_parallelism(),
        );
        self.count += tokens as u64;
        Ok(())
    }

    /// Adds the moment of other documents.
    ///
    /// # Errors
    /// [`MathError::Dimension`] where the key sizes differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), MathError> {
        check_size("second moment to merge", other.size(), self.size())?;
        self.sum += &other.sum;
        self.count += other.count;
        Ok(())
    }

    /// Key size `f`.
    pub fn size(&self) -> usize {
        self.sum.nrows()
    }

    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum, row-major, symmetric.
    pub fn sum(&self) -> Vec<f64> {
        let f = self.size();
        let mut values = vec![0.0; f * f];
        for j in 0..f {
            for i in j..f {
                values[i * f + j] = self.sum[(i, j)];
                values[j * f + i] = self.sum[(i, j)];
            }
        }
        values
    }

    /// `C = sum / count`, symmetric; zero for no tokens.
    pub fn mean(&self) -> Mat<f64> {
        let scale = 1.0 / self.count.max(1) as f64;
        Mat::from_fn(self.size(), self.size(), |i, j| scale * self.sum[(i.max(j), i.min(j))])
    }

    /// Trace of `C`: the mean squared norm of a key.
    pub fn trace(&self) -> f64 {
        (0..self.size()).map(|i| self.sum[(i, i)]).sum::<f64>() / self.count.max(1) as f64
    }

    /// Smallest and largest eigenvalue of `C`, or none where the iteration does not converge.
    pub fn extreme_eigenvalues(&self) -> Option<(f64, f64)> {
        let values = self.mean().self_adjoint_eigenvalues(Side::Lower).ok()?;
        Some((*values.first()?, *values.last()?))
    }
}
