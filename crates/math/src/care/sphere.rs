//! SPHERE: the part of a change in the main directions of the weight's rows is reduced.

use faer::{Mat, MatRef, Side};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Delta, LowRank, MathError};

/// Added to a row's norm before it divides, as in the published code.
const EPSILON: f64 = 1e-8;

/// Which side of a weight the directions are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sides {
    /// Directions of the layer's output, d.
    Output,
    /// Directions of the key, f.
    Input,
}

/// Reduces a change of the weight `[out, in]`. With `M` the weight, its rows over the chosen side scaled to norm 1, `S = MᵀM / rows`, `V` the
/// first `r` eigenvectors of `S`, `r` = 1 + the number of leading eigenvalues whose running sum is at most the share `eta` of all: the part
/// `alpha` of `VVᵀΔ` (or `ΔVVᵀ`) is taken away. A low-rank change stays low-rank; with `alpha = 0` nothing changes.
///
/// # Errors
/// [`MathError::Dimension`]; [`MathError::Parameter`] for shares that are not within 0 and 1; [`MathError::NoSpectrum`].
pub fn sphere(change: &Delta, weight: MatRef<'_, f64>, side: Sides, eta: f64, alpha: f64) -> Result<Delta, MathError> {
    change.check_shape([weight.nrows(), weight.ncols()])?;
    for (name, value) in [("eta", eta), ("alpha", alpha)] {
        if !(0.0..=1.0).contains(&value) {
            return Err(MathError::Parameter { name, value, expected: "within 0 and 1" });
        }
    }
    if alpha == 0.0 {
        return Ok(change.clone());
    }
    let rows = if side == Sides::Output { weight.transpose() } else { weight };
    let norms: Vec<f64> = rows.row_iter().map(|row| row.norm_l2() + EPSILON).collect();
    let scaled = Mat::from_fn(rows.nrows(), rows.ncols(), |i, j| rows[(i, j)] / norms[i]);
    let eigen = (scaled.transpose() * &scaled).self_adjoint_eigen(Side::Lower).map_err(|_| MathError::NoSpectrum)?;
    let values: Vec<f64> = eigen.S().column_vector().iter().rev().copied().collect();
    let total: f64 = values.iter().sum();
    let mut sum = 0.0;
    let within = values.iter().take_while(|value| {
        sum += **value;
        sum / total <= eta
    });
    let size = values.len();
    let count = (within.count() + 1).min(size);
    let main = eigen.U().subcols(size - count, count);
    let less = |x: &Mat<f64>| match side {
        Sides::Output => x - faer::Scale(alpha) * (main * (main.transpose() * x)),
        Sides::Input => x - faer::Scale(alpha) * ((x * main) * main.transpose()),
    };
    Ok(match (change, side) {
        (Delta::LowRank(low), Sides::Output) => LowRank { left: less(&low.left), right: low.right.clone() }.into(),
        (Delta::LowRank(low), Sides::Input) => LowRank { left: low.left.clone(), right: less(&low.right) }.into(),
        (other, _) => Delta::Dense(less(&other.dense())),
    })
}
