//! MEMIT-FE: every layer absorbs what one pass says that it should.

use super::step::{Refresh, Step};
use crate::MathError;

/// Whole steps; targets after the first are read in a pass that has the first ones in their place.
pub(super) fn steps(layers: &[usize]) -> Result<Vec<Step>, MathError> {
    if layers.len() < 2 {
        return Err(MathError::Layers("one layer has no layers after it: two or more are needed".into()));
    }
    let read = Refresh { forward: true, ..Refresh::BOTH };
    let step = |(i, &layer)| Step { layer, fraction: 1.0, refresh: if i == 0 { Refresh::BOTH } else { read } };
    Ok(layers.iter().enumerate().map(step).collect())
}
