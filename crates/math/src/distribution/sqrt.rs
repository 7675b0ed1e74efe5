//! PMET's spread: lower layers take more than with MEMIT's.

use super::step::{Step, bottom_up};

/// `1/√(m − i)` each: the last one takes the rest.
pub(super) fn steps(layers: &[usize]) -> Vec<Step> {
    bottom_up(layers, |i| 1.0 / ((layers.len() - i) as f64).sqrt())
}
