//! BLUE: only the first and the last layer, each on its own account.

use super::step::{Refresh, Step};
use crate::MathError;

/// Two whole steps; the second one's targets are found at its own layer on the model that the first one left.
pub(super) fn steps(layers: &[usize]) -> Result<Vec<Step>, MathError> {
    let &[first, .., last] = layers else {
        return Err(MathError::Layers("one layer has no boundary: two or more are needed".into()));
    };
    let anew = Refresh { targets: true, ..Refresh::BOTH };
    Ok(vec![
        Step { layer: first, fraction: 1.0, refresh: Refresh::BOTH },
        Step { layer: last, fraction: 1.0, refresh: anew },
    ])
}
