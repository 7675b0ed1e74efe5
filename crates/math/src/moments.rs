//! The uncentred second moment of a layer's keys.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Side};

use crate::MathError;
use crate::matrix::{check_finite, check_size, from_row_major};

/// How far rounding may take an entry, relative to its bound: half precision rounds to one part in 2048, and sums on an
/// accelerator are not symmetric to the last bit.
const ROUNDING: f64 = 0.01;

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
        let mut whole = Self { sum: Mat::zeros(f, f), count };
        whole.each_column("second moment", sum, |to, from| to.copy_from_slice(from))?;
        Ok(whole)
    }

    /// From a stored sum read row by row, for one that is too large to lie in memory twice: `next` fills row `i` of `f`
    /// values.
    ///
    /// # Errors
    /// What `next` gives; [`MathError::NotFinite`]; [`MathError::NotAMoment`] for a matrix that is no sum of `k kᵀ`: a
    /// negative diagonal entry, one that is not symmetric, or an off-diagonal entry beyond the bound of Cauchy and Schwarz.
    pub fn from_rows<E: From<MathError>>(
        f: usize,
        count: u64,
        mut next: impl FnMut(usize, &mut [f64]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut sum = Mat::zeros(f, f);
        for i in 0..f {
            // Of a symmetric matrix a column is a row.
            next(i, sum.col_as_slice_mut(i))?;
        }
        check_finite("second moment", sum.as_ref())?;
        check_moment(&sum)?;
        Ok(Self { sum, count })
    }

    /// Row `i` of the sum, `f` values.
    pub fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.size()).map(move |j| self.sum[(i.max(j), i.min(j))])
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

    /// Adds `Σ k kᵀ` of `tokens` keys by a product of someone else's: `add` is given the sum's columns, of `f` numbers each, and adds to their numbers
    /// from the diagonal down. What is above it means nothing.
    pub fn add_by(&mut self, tokens: u64, add: impl FnOnce(&mut [&mut [f64]])) {
        let mut columns: Vec<&mut [f64]> =
            self.sum.col_iter_mut().filter_map(|column| Some(column.try_as_col_major_mut()?.as_slice_mut())).collect();
        add(&mut columns);
        self.count += tokens;
    }

    /// Adds `Σ k kᵀ` of `tokens` keys that was summed elsewhere, row-major `[f, f]`, symmetric.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn add_sum(&mut self, sum: &[f32], tokens: u64) -> Result<(), MathError> {
        self.each_column("sum of key products", sum, |to, from| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += f64::from(*from));
        })?;
        self.count += tokens;
        Ok(())
    }

    /// Does `each` with every column of the sum, from the diagonal down, and the same values of a row-major symmetric matrix: of
    /// such a one a column is a row, and lies in memory as one piece.
    fn each_column<T: Copy + Into<f64>>(
        &mut self,
        what: &'static str,
        values: &[T],
        mut each: impl FnMut(&mut [f64], &[T]),
    ) -> Result<(), MathError> {
        let f = self.size();
        if values.len() != f * f {
            return Err(MathError::Dimension { what, found: values.len(), expected: f * f });
        }
        if !values.iter().all(|&value| value.into().is_finite()) {
            return Err(MathError::NotFinite { what });
        }
        for j in 0..f {
            each(&mut self.sum.col_as_slice_mut(j)[j..], &values[j * f + j..(j + 1) * f]);
        }
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

    /// Whether `C` is the identity, to the last bit of the sum.
    pub fn is_identity(&self) -> bool {
        let f = self.size();
        let one = self.count as f64;
        (0..f).all(|j| self.sum[(j, j)] == one && (j + 1..f).all(|i| self.sum[(i, j)] == 0.0))
    }

    /// Smallest and largest eigenvalue of `C`, or none where the iteration does not converge.
    pub fn extreme_eigenvalues(&self) -> Option<(f64, f64)> {
        let values = self.mean().self_adjoint_eigenvalues(Side::Lower).ok()?;
        Some((*values.first()?, *values.last()?))
    }
}

/// Fails unless a finite matrix can be a sum of `k kᵀ`, up to the rounding of half precision.
fn check_moment(sum: &Mat<f64>) -> Result<(), MathError> {
    let f = sum.nrows();
    let wrong = |row, column, value, why| Err(MathError::NotAMoment { row, column, value, why });
    let roots: Vec<f64> = (0..f).map(|i| sum[(i, i)].sqrt()).collect();
    for j in 0..f {
        if sum[(j, j)] < 0.0 {
            return wrong(j, j, sum[(j, j)], "the diagonal holds sums of squares");
        }
        for i in j + 1..f {
            let bound = roots[i] * roots[j];
            if (sum[(i, j)] - sum[(j, i)]).abs() > ROUNDING * bound {
                return wrong(i, j, sum[(i, j)], "the entry across the diagonal is another");
            }
            if sum[(i, j)].abs() > (1.0 + ROUNDING) * bound {
                return wrong(i, j, sum[(i, j)], "the diagonal entries of its row and column are too small for it");
            }
        }
    }
    Ok(())
}
