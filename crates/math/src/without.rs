//! The update without some of its edits, from what a solve leaves: no key is measured again, and no metric is needed.
//!
//! A solve gives `G` with `SG = DᵀP⁻¹`, one row an edit, and `Δ = RG`. Without the edits `J`, those that stay (`K`) have the system
//! `S' = S_KK`, with the strengths `M'` that they have by themselves, and the same rows of `DᵀP⁻¹`. So
//!
//! ```text
//! S'G' = (DᵀP⁻¹)_K = S_KK G_K + S_KJ G_J
//! G' = G_K + S'⁻¹ (S_KJ G_J + (M_K − M'_K) G_K)                      (dual form)
//! ```
//!
//! It is exact: nothing of the metric is in it, so that it holds for second moments, a ridge, a projector and a history alike, and it solves
//! the very system that a solve without `J` solves. Where the primal form was solved, `S` was never formed. It has `G = M⁻¹KᵀA⁻¹` with
//! `A = P + KM⁻¹Kᵀ`, and taking `J` out of `A` is a change of low rank (Woodbury), with the keys of `J` alone:
//!
//! ```text
//! G' = G_K + G_K K_J (I − G_J K_J)⁻¹ G_J                              (primal form)
//! ```

use faer::Mat;
use faer::linalg::solvers::Solve;

use crate::MathError;
use crate::delta::LowRank;
use crate::matrix::{check_finite, check_size};
use crate::solve::{System, inverse};

/// The update of a solve without the edits `gone`, by column, and the system that goes with it. `was` are the strengths `μ` of the solve,
/// and `is` those that a solve without these edits has, both of all columns: EMMET's stabiliser is added only where a batch holds more than
/// one edit.
///
/// # Errors
/// [`MathError::Dimension`] where the parts do not belong together; [`MathError::Parameter`] for the primal form with other strengths;
/// [`MathError::Collision`] where what stays is singular.
pub fn without(
    update: &LowRank,
    system: &System,
    gone: &[usize],
    was: &[f64],
    is: &[f64],
) -> Result<(LowRank, System), MathError> {
    let batch = update.left.ncols();
    check_size("rank of the update", update.right.nrows(), batch)?;
    check_size("edits of the system", system.edits(), batch)?;
    match system {
        System::Dual(whole) => check_size("rows of the system", whole.nrows(), batch)?,
        System::Primal(keys) => check_size("size of a key", keys.nrows(), update.right.ncols())?,
    }
    check_size("strengths before", was.len(), batch)?;
    check_size("strengths after", is.len(), batch)?;
    let stay: Vec<usize> = (0..batch).filter(|i| !gone.contains(i)).collect();
    let gone: Vec<usize> = (0..batch).filter(|i| gone.contains(i)).collect();
    let (stays, f) = (stay.len(), update.right.ncols());
    let left = columns(&update.left, &stay);
    if stays == 0 {
        return Ok((LowRank { left, right: Mat::zeros(0, f) }, part(system, &stay)));
    }
    let rows = |which: &[usize]| Mat::from_fn(which.len(), f, |i, j| update.right[(which[i], j)]);
    let (own, taken) = (rows(&stay), rows(&gone));
    let (change, rest) = match system {
        System::Dual(whole) => {
            let mut rest = block(whole, &stay, &stay);
            let mut missing = block(whole, &stay, &gone) * &taken;
            for (i, &edit) in stay.iter().enumerate() {
                let less = was[edit] - is[edit];
                rest[(i, i)] -= less;
                for j in 0..f {
                    missing[(i, j)] += less * own[(i, j)];
                }
            }
            let change = inverse(&rest, is_symmetric(whole))?(&missing.transpose().to_owned());
            (change, System::Dual(rest))
        }
        System::Primal(keys) => {
            if let Some(&edit) = stay.iter().find(|&&edit| was[edit] != is[edit]) {
                return Err(MathError::Parameter {
                    name: "mu",
                    value: is[edit],
                    expected: "what it was in the primal form",
                });
            }
            let keys = columns(keys, &gone);
            let inner = Mat::<f64>::identity(gone.len(), gone.len()) - &taken * &keys;
            ((&own * &keys) * inner.partial_piv_lu().solve(&taken), part(system, &stay))
        }
    };
    let right = own + change;
    check_finite("update", right.as_ref())?;
    Ok((LowRank { left, right }, rest))
}

/// Whether a system is symmetric, to rounding: it is not where other keys span the update than those that it is measured at.
fn is_symmetric(system: &Mat<f64>) -> bool {
    let near = |i: usize, j: usize| {
        let scale = (system[(i, i)] * system[(j, j)]).abs().sqrt();
        (system[(i, j)] - system[(j, i)]).abs() <= 1e-9 * scale
    };
    (0..system.nrows()).all(|i| (0..i).all(|j| near(i, j)))
}

/// The system of some of the edits, whose strengths are as they were.
fn part(system: &System, stay: &[usize]) -> System {
    match system {
        System::Dual(system) => System::Dual(block(system, stay, stay)),
        System::Primal(keys) => System::Primal(columns(keys, stay)),
    }
}

fn block(of: &Mat<f64>, rows: &[usize], columns: &[usize]) -> Mat<f64> {
    Mat::from_fn(rows.len(), columns.len(), |i, j| of[(rows[i], columns[j])])
}

fn columns(of: &Mat<f64>, which: &[usize]) -> Mat<f64> {
    Mat::from_fn(of.nrows(), which.len(), |i, j| of[(i, which[j])])
}
