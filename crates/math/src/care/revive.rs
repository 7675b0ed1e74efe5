//! REVIVE: the part of a change that lies in the dominant subspace of the unedited weight is removed.

use faer::{MatRef, Scale};

use super::singular::singular;
use crate::{Delta, LowRank, MathError};

/// Removes `U Uᵀ Δ V Vᵀ`, with `U` and `V` the first `rank` left and right singular vectors of the unedited weight `[out, in]`. A low-rank
/// change stays low-rank, with `rank` more columns at most; rank 0 changes nothing.
///
/// # Errors
/// [`MathError::Dimension`]; [`MathError::NoSpectrum`].
pub fn revive(change: &Delta, weight: MatRef<'_, f64>, rank: usize) -> Result<Delta, MathError> {
    change.check_shape([weight.nrows(), weight.ncols()])?;
    if rank == 0 {
        return Ok(change.clone());
    }
    let (u, values, v) = singular(&Delta::Dense(weight.to_owned()))?;
    let rank = rank.min(values.len());
    let (u, v) = (u.subcols(0, rank), v.subrows(0, rank));
    // Uᵀ Δ V, [r, r].
    let inner = u.transpose() * change.times(v.transpose());
    let part = LowRank { left: Scale(-1.0) * (u * inner), right: v.to_owned() };
    Ok(match change {
        Delta::LowRank(low) => low.beside(&part).into(),
        other => Delta::Dense(other.dense() + part.dense()),
    })
}
