//! Singular values of a change.

use faer::Mat;

use crate::{Delta, LowRank, MathError};

/// Left singular vectors, singular values, right singular vectors.
pub type Singular = (Mat<f64>, Vec<f64>, Mat<f64>);

/// A change, and its singular value decomposition: `U` `[out, r]`, the values, `Vᵀ` `[r, in]`. Of thin factors only small matrices are
/// decomposed: with `left = Q₁R₁` and `rightᵀ = Q₂R₂` it is that of `R₁R₂ᵀ`, turned by `Q₁` and `Q₂`.
pub fn singular(change: &Delta) -> Result<Singular, MathError> {
    let failed = |_| MathError::NoSpectrum;
    let parts = |matrix: &Mat<f64>| {
        let svd = matrix.thin_svd().map_err(failed)?;
        let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        Ok((svd.U().to_owned(), values, svd.V().to_owned()))
    };
    match change {
        Delta::LowRank(LowRank { left, right }) if left.ncols() < left.nrows().min(right.ncols()) => {
            let (first, second) = (left.qr(), right.transpose().qr());
            let core = first.thin_R() * second.thin_R().transpose();
            let (u, values, v) = parts(&core)?;
            Ok((first.compute_thin_Q() * u, values, (second.compute_thin_Q() * v).transpose().to_owned()))
        }
        other => {
            let (u, values, v) = parts(&other.dense())?;
            Ok((u, values, v.transpose().to_owned()))
        }
    }
}
