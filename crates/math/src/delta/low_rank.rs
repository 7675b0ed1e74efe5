//! A change as two thin factors.

use faer::{Mat, MatRef};

use crate::matrix::{gram, trace_of_product};
use crate::spectrum::largest_eigenvalue;

/// A change of a weight as two factors: `Δ = left · right`, in `[out, in]` orientation.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[out, r]`.
    pub left: Mat<f64>,
    /// `[r, in]`.
    pub right: Mat<f64>,
}

impl LowRank {
    /// `Δ`, `[out, in]`.
    pub fn dense(&self) -> Mat<f64> {
        &self.left * &self.right
    }

    /// `Δ X` for `X` `[in, n]`, without forming `Δ`.
    pub fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        &self.left * (&self.right * x)
    }

    /// Frobenius norm of `Δ`, from the factors.
    pub fn frobenius(&self) -> f64 {
        trace_of_product(&gram(self.left.as_ref()), &(&self.right * self.right.transpose())).max(0.0).sqrt()
    }

    /// Largest singular value of `Δ`, by power iteration on the factors.
    pub fn spectral(&self) -> f64 {
        let gram = gram(self.left.as_ref());
        largest_eigenvalue(self.right.ncols(), |v| self.right.transpose() * (&gram * (&self.right * v))).sqrt()
    }

    /// The sum with another change, its factors beside these.
    #[must_use]
    pub fn beside(&self, other: &Self) -> Self {
        Self { left: beside(&self.left, &other.left), right: above(&self.right, &other.right) }
    }

    /// The part of the first `rank` columns of the left factor: what a sum was before it grew.
    #[must_use]
    pub fn first(&self, rank: usize) -> Self {
        let rank = rank.min(self.left.ncols());
        Self { left: self.left.subcols(0, rank).to_owned(), right: self.right.subrows(0, rank).to_owned() }
    }

    /// The part behind the first `rank` columns of the left factor: what a sum grew by since.
    #[must_use]
    pub fn after(&self, rank: usize) -> Self {
        let (all, rank) = (self.left.ncols(), rank.min(self.left.ncols()));
        let more = all - rank;
        Self { left: self.left.subcols(rank, more).to_owned(), right: self.right.subrows(rank, more).to_owned() }
    }
}

fn beside(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols() + b.ncols(), |i, j| if j < a.ncols() { a[(i, j)] } else { b[(i, j - a.ncols())] })
}

fn above(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows() + b.nrows(), a.ncols(), |i, j| if i < a.nrows() { a[(i, j)] } else { b[(i - a.nrows(), j)] })
}
