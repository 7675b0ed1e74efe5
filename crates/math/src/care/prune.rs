//! PRUNE: a change's largest singular values damped to the size of the weight's own (arXiv 2405.16821).

use faer::MatRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::singular::singular;
use crate::{Delta, LowRank, MathError};

/// What is made of the damped change `A` of a change `Δ`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PruneForm {
    /// As in the paper: `A` takes the place of the change, W₀ + A.
    #[default]
    Paper,
    /// As in the published code: `A` is added to the edited weight, W₀ + Δ + A.
    Published,
}

/// Damps every singular value `s` of a change that is larger than `m`, the largest of the unedited weight `[out, in]`, to
/// `ln s − ln m + m`. A low-rank change stays low-rank; where no value is larger the paper's form changes nothing.
///
/// # Errors
/// [`MathError::Dimension`]; [`MathError::NoSpectrum`].
pub fn prune(change: &Delta, weight: MatRef<'_, f64>, form: PruneForm) -> Result<Delta, MathError> {
    change.check_shape([weight.nrows(), weight.ncols()])?;
    let most = Delta::Dense(weight.to_owned()).spectral();
    let (mut left, values, right) = singular(change)?;
    if form == PruneForm::Paper && values.iter().all(|s| *s <= most) {
        return Ok(change.clone());
    }
    for (j, s) in values.into_iter().enumerate() {
        let damped = if s > most { s.ln() - most.ln() + most } else { s };
        let by = if form == PruneForm::Published { s + damped } else { damped };
        (0..left.nrows()).for_each(|i| left[(i, j)] *= by);
    }
    let low = LowRank { left, right };
    Ok(if matches!(change, Delta::LowRank(_)) { low.into() } else { Delta::Dense(low.dense()) })
}
