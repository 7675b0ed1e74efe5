//! The last layer takes everything.

use super::step::{Step, bottom_up};

/// One step.
pub(super) fn steps(layers: &[usize]) -> Vec<Step> {
    bottom_up(&layers[layers.len() - 1..], |_| 1.0)
}
