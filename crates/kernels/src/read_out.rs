//! What is done with logits behind the head.

use crate::dispatch::vectorised;
use crate::elementary::tanh;

/// Logits are multiplied and then, where there is a cap, bounded: `cap · tanh(m·l / cap)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadOut {
    /// What they are multiplied by.
    pub multiplier: f32,
    /// What none is larger than.
    pub cap: Option<f32>,
}

impl ReadOut {
    /// Whether nothing is done.
    pub fn is_nothing(&self) -> bool {
        self.multiplier == 1.0 && self.cap.is_none()
    }

    /// Does it, in the place of the logits.
    pub fn apply(&self, logits: &mut [f32]) {
        let Self { multiplier, cap } = *self;
        if multiplier != 1.0 {
            vectorised(
                #[inline(always)]
                || logits.iter_mut().for_each(|logit| *logit *= multiplier),
            );
        }
        if let Some(cap) = cap {
            vectorised(
                #[inline(always)]
                || logits.iter_mut().for_each(|logit| *logit = cap * tanh(*logit / cap)),
            );
        }
    }

    /// The way back, in the place of the gradient with respect to what [`ReadOut::apply`] gave, which are these `logits`.
    ///
    /// # Panics
    /// Where there are more of the one than of the other.
    pub fn back(&self, slope: &mut [f32], logits: &[f32]) {
        assert_eq!(slope.len(), logits.len(), "as many numbers of both");
        let Self { multiplier, cap } = *self;
        let cap = cap.unwrap_or(f32::INFINITY);
        vectorised(
            #[inline(always)]
            || {
                for (slope, logit) in slope.iter_mut().zip(logits) {
                    // The slope of cap · tanh(l/cap) is 1 − tanh².
                    let share = logit / cap;
                    *slope *= multiplier * (1.0 - share * share);
                }
            },
        );
    }
}
