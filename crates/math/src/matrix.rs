//! Passages between faer's matrices and row-major slices.

use faer::{Mat, MatRef};

use crate::MathError;

/// A matrix from row-major values.
///
/// # Errors
/// [`MathError::Dimension`] where the number of values is not `rows · columns`; [`MathError::NotFinite`].
pub fn from_row_major<T: Copy + Into<f64>>(
    what: &'static str,
    values: &[T],
    rows: usize,
    columns: usize,
) -> Result<Mat<f64>, MathError> {
    if values.len() != rows * columns {
        return Err(MathError::Dimension { what, found: values.len(), expected: rows * columns });
    }
    let matrix = Mat::from_fn(rows, columns, |i, j| values[i * columns + j].into());
    check_finite(what, matrix.as_ref())?;
    Ok(matrix)
}

/// A matrix's values, row by row.
pub fn row_major(matrix: MatRef<'_, f64>) -> Vec<f64> {
    let mut values = Vec::with_capacity(matrix.nrows() * matrix.ncols());
    for i in 0..matrix.nrows() {
        values.extend((0..matrix.ncols()).map(|j| matrix[(i, j)]));
    }
    values
}

/// Mean Euclidean norm of the columns; 0 for a matrix without columns.
pub fn mean_column_norm(matrix: MatRef<'_, f64>) -> f64 {
    let columns = matrix.ncols();
    if columns == 0 {
        return 0.0;
    }
    (0..columns).map(|j| matrix.col(j).norm_l2()).sum::<f64>() / columns as f64
}

pub(crate) fn check_finite(what: &'static str, matrix: MatRef<'_, f64>) -> Result<(), MathError> {
    if matrix.is_all_finite() { Ok(()) } else { Err(MathError::NotFinite { what }) }
}

pub(crate) fn check_size(what: &'static str, found: usize, expected: usize) -> Result<(), MathError> {
    if found == expected { Ok(()) } else { Err(MathError::Dimension { what, found, expected }) }
}

/// `XᵀX`.
pub(crate) fn gram(x: MatRef<'_, f64>) -> Mat<f64> {
    x.transpose() * x
}

/// `tr(A B)` of symmetric matrices.
pub(crate) fn trace_of_product(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>()).sum()
}
