//! Extreme eigenvalues and singular values for what is reported beside a solution.

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

/// Steps of [`largest_eigenvalue`], at most; an exact answer needs as many as the map has dimensions.
const STEPS: usize = 200;

/// Largest eigenvalue of a symmetric positive semidefinite map, by Lanczos' iteration with full reorthogonalisation, from a fixed start, so
/// that it is repeatable.
///
/// Power iteration would stop too early: where the first two eigenvalues are close, or the start hardly points along the first eigenvector,
/// its value stands still before it is right. Here the search ends when the residual of the Ritz pair, `β |s|`, is below 1e-9 of its value
/// (Golub and Van Loan, Matrix Computations, 10.1), and not before [`LEAST`] steps.
pub(crate) fn largest_eigenvalue(size: usize, map: impl Fn(&Mat<f64>) -> Mat<f64>) -> f64 {
    const LEAST: usize = 16;
    const CHECKED: usize = 8;
    if size == 0 {
        return 0.0;
    }
    // Irrational steps: a start that no structured eigenvector is orthogonal to.
    let mut direction = Mat::from_fn(size, 1, |i, _| 1.0 + 0.5 * (1.618_033_988_75 * (i + 1) as f64).sin());
    let steps = size.min(STEPS);
    let mut basis = Mat::zeros(size, steps);
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut length = direction.norm_l2();
    for step in 0..steps {
        for i in 0..size {
            basis[(i, step)] = direction[(i, 0)] / length;
        }
        let mut next = map(&basis.subcols(step, 1).to_owned());
        diagonal.push((basis.subcols(step, 1).transpose() * &next)[(0, 0)]);
        // Twice is enough: rounding of the first pass is taken out by the second.
        let known = basis.subcols(0, step + 1);
        for _ in 0..2 {
            let inside = known.transpose() * &next;
            next -= known * inside;
        }
        length = next.norm_l2();
        let over = step + 1 == steps || length <= f64::EPSILON * diagonal.iter().copied().fold(0.0, f64::max);
        if over || (step + 1 >= LEAST && (step + 1) % CHECKED == 0) {
            let (value, last) = first_of_tridiagonal(&diagonal, &beside);
            if over || length * last <= 1e-9 * value {
                return value;
            }
        }
        beside.push(length);
        direction = next;
    }
    0.0
}

/// The largest eigenvalue of a symmetric tridiagonal matrix, and the size of its eigenvector's last component.
fn first_of_tridiagonal(diagonal: &[f64], beside: &[f64]) -> (f64, f64) {
    let size = diagonal.len();
    let matrix = Mat::from_fn(size, size, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    });
    match matrix.self_adjoint_eigen(Side::Lower) {
        Ok(eigen) => (eigen.S()[size - 1].max(0.0), eigen.U()[(size - 1, size - 1)].abs()),
        // Only of numbers that are not finite.
        Err(_) => (f64::NAN, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where power iteration stood still: two eigenvalues that nearly agree, and a start that hardly has the first in it.
    #[test]
    fn the_first_is_found_beside_close_ones() {
        for size in [1, 2, 3, 15, 16, 17, 60, 400] {
            let values: Vec<f64> =
                (0..size).map(|i| if i == size - 1 { 2.0 } else { 2.0 - 1e-3 * (1.0 + i as f64) }).collect();
            let found = largest_eigenvalue(size, |v| Mat::from_fn(size, 1, |i, _| values[i] * v[(i, 0)]));
            assert!((found - 2.0).abs() < 1e-6, "{size}: {found}");
        }
        let hidden = |v: &Mat<f64>| Mat::from_fn(50, 1, |i, _| if i == 7 { 1e6 } else { 1.0 } * v[(i, 0)]);
        assert!((largest_eigenvalue(50, hidden) - 1e6).abs() < 1e-3);
        assert_eq!(largest_eigenvalue(5, |_| Mat::zeros(5, 1)), 0.0);
    }
}
