//! Layers by weight.

use super::step::{Step, bottom_up};
use crate::MathError;

/// `wᵢ / Σ_{j ≥ i} wⱼ` each: the last one takes the rest.
pub(super) fn steps(layers: &[usize], weights: &[f64]) -> Result<Vec<Step>, MathError> {
    if weights.len() != layers.len() {
        return Err(MathError::Layers(format!("{} weights for {} layers", weights.len(), layers.len())));
    }
    if let Some(bad) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
        return Err(MathError::Layers(format!("a weight is {bad}: weights are above 0; leave a layer out instead")));
    }
    Ok(bottom_up(layers, |i| weights[i] / weights[i..].iter().sum::<f64>()))
}
