//! A change of some of a weight's entries.

use faer::{Mat, MatRef};

use crate::MathError;
use crate::matrix::check_size;

/// A change whose entries are 0 but for some: where they lie, and their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    shape: [usize; 2],
    /// `row · columns + column`, rising.
    at: Vec<usize>,
    values: Vec<f64>,
}

impl Sparse {
    /// A change of a weight of this shape, `[out, in]`: entry `at[n]`, counted row by row, is `values[n]`. Entries come in rising order.
    ///
    /// # Errors
    /// [`MathError::Dimension`] for different numbers of places and values; [`MathError::Entries`] for a place outside the weight, or
    /// places that do not rise.
    pub fn new(shape: [usize; 2], at: Vec<usize>, values: Vec<f64>) -> Result<Self, MathError> {
        check_size("number of values", values.len(), at.len())?;
        let size = shape[0].checked_mul(shape[1]).ok_or(MathError::Entries("the shape is too large"))?;
        if !at.is_sorted_by(|a, b| a < b) {
            return Err(MathError::Entries("the places do not rise"));
        }
        if at.last().is_some_and(|last| *last >= size) {
            return Err(MathError::Entries("a place lies outside the weight"));
        }
        Ok(Self { shape, at, values })
    }

    /// Those entries of a matrix that `keep` tells to, given where they lie, row by row; entries that are 0 are none.
    pub fn of(dense: MatRef<'_, f64>, mut keep: impl FnMut(usize) -> bool) -> Self {
        let (rows, columns) = (dense.nrows(), dense.ncols());
        let (mut at, mut values) = (Vec::new(), Vec::new());
        for i in 0..rows {
            for j in 0..columns {
                let (place, value) = (i * columns + j, dense[(i, j)]);
                if keep(place) && value != 0.0 {
                    at.push(place);
                    values.push(value);
                }
            }
        }
        Self { shape: [rows, columns], at, values }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Where the entries lie, counted row by row; rising.
    pub fn at(&self) -> &[usize] {
        &self.at
    }

    /// The entries, in the order of [`Sparse::at`].
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Row, column and value of every entry.
    pub fn entries(&self) -> impl Iterator<Item = ([usize; 2], f64)> + '_ {
        let columns = self.shape[1];
        self.at.iter().zip(&self.values).map(move |(&at, &value)| ([at / columns, at % columns], value))
    }

    /// `Δ`, `[out, in]`.
    pub fn dense(&self) -> Mat<f64> {
        let mut dense = Mat::zeros(self.shape[0], self.shape[1]);
        self.entries().for_each(|([i, j], value)| dense[(i, j)] = value);
        dense
    }

    /// `Δ X` for `X` `[in, n]`.
    pub fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let mut product = Mat::zeros(self.shape[0], x.ncols());
        for ([i, j], value) in self.entries() {
            (0..x.ncols()).for_each(|n| product[(i, n)] += value * x[(j, n)]);
        }
        product
    }

    /// `Δᵀ X` for `X` `[out, n]`.
    pub(crate) fn times_transposed(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let mut product = Mat::zeros(self.shape[1], x.ncols());
        for ([i, j], value) in self.entries() {
            (0..x.ncols()).for_each(|n| product[(j, n)] += value * x[(i, n)]);
        }
        product
    }

    /// The sum with another change of the same weight: entries of either.
    #[must_use]
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut entries: Vec<(usize, f64)> = self.pairs().chain(other.pairs()).collect();
        entries.sort_by_key(|(at, _)| *at);
        let mut sum = Self { shape: self.shape, at: Vec::new(), values: Vec::new() };
        for (at, value) in entries {
            match sum.values.last_mut() {
                Some(last) if sum.at.last() == Some(&at) => *last += value,
                _ => {
                    sum.at.push(at);
                    sum.values.push(value);
                }
            }
        }
        sum
    }

    /// The same entries with other values.
    pub(crate) fn map(&self, value: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.iter().map(|v| value(*v)).collect(), ..self.clone() }
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.at.iter().copied().zip(self.values.iter().copied())
    }
}
