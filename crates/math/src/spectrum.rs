//! Extreme eigenvalues and singular values by power iteration, for what is reported beside a solution.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

use crate::MathError;

/// Ratio of a symmetric positive definite matrix's extreme eigenvalues.
pub(crate) fn condition(system: &Mat<f64>) -> Result<f64, MathError> {
    let size = system.nrows();
    let llt = system.llt(Side::Lower).map_err(|_| MathError::Collision { pairs: Vec::new() })?;
    let largest = largest_eigenvalue(size, |v| system * v);
    let inverse = largest_eigenvalue(size, |v| llt.solve(v));
    Ok(largest * inverse)
}

/// Ratio of any regular matrix's extreme singular values: roots of the extreme eigenvalues of `SᵀS`.
pub(crate) fn general_condition(system: &Mat<f64>) -> f64 {
    let size = system.nrows();
    let lu = system.partial_piv_lu();
    let largest = largest_eigenvalue(size, |v| system.transpose() * (system * v));
    let inverse = largest_eigenvalue(size, |v| lu.solve(lu.solve_transpose(v)));
    // Rounding aside, none is below 1.
    (largest * inverse).sqrt().max(1.0)
}

/// Largest eigenvalue of a positive semidefinite map by power iteration from a fixed start, so that it is repeatable.
pub(crate) fn largest_eigenvalue(size: usize, map: impl Fn(&Mat<f64>) -> Mat<f64>) -> f64 {
    if size == 0 {
        return 0.0;
    }
    // Irrational steps: a start that no structured eigenvector is orthogonal to.
    let mut v = Mat::from_fn(size, 1, |i, _| 1.0 + 0.5 * (1.618_033_988_75 * (i + 1) as f64).sin());
    let mut value = 0.0;
    for _ in 0..200 {
        let norm = v.norm_l2();
        if norm == 0.0 {
            return 0.0;
        }
        for i in 0..size {
            v[(i, 0)] /= norm;
        }
        v = map(&v);
        let next = v.norm_l2();
        if (next - value).abs() <= 1e-10 * next {
            return next;
        }
        value = next;
    }
    value
}
