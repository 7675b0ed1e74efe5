//! Probabilities over a vocabulary.
//!
//! A row has tens of thousands of numbers. Exponentials are taken in f32, to a unit of the last place, and summed in f64; the
//! logarithm of the sum is taken in f64, so that what is subtracted from a logit is right before it is rounded once.

use crate::dispatch::vectorised;
use crate::elementary::exp;

/// Partial sums: their number is fixed, so that a row's sum has one order on every CPU.
const PARTS: usize = 16;

/// What a row of logits comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probabilities {
    /// The largest logit.
    pub largest: f32,
    /// The first place that has it.
    pub best: usize,
    /// `log Σ exp(logit)`.
    pub log_sum: f64,
}

impl Probabilities {
    /// `log p` of a place with this logit.
    pub fn log(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

/// Looks at one row of logits. Where one of them is not a number, neither is the sum.
pub fn probabilities(logits: &[f32]) -> Probabilities {
    vectorised(
        #[inline(always)]
        || {
            let mut each = [f32::NEG_INFINITY; PARTS];
            let (whole, rest) = logits.as_chunks::<PARTS>();
            for chunk in whole {
                for j in 0..PARTS {
                    each[j] = if chunk[j] > each[j] { chunk[j] } else { each[j] };
                }
            }
            let largest = each.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
            let mut sums = [0f64; PARTS];
            for chunk in whole {
                for j in 0..PARTS {
                    sums[j] += f64::from(exp(chunk[j] - largest));
                }
            }
            for (j, logit) in rest.iter().enumerate() {
                sums[j] += f64::from(exp(logit - largest));
            }
            let sum: f64 = sums.iter().sum();
            let best = logits.iter().position(|logit| *logit == largest).unwrap_or(0);
            Probabilities { largest, best, log_sum: f64::from(largest) + sum.ln() }
        },
    )
}

/// `log p` of every place, in the place of its logit; what the row came to.
pub fn log_softmax(logits: &mut [f32]) -> Probabilities {
    let found = probabilities(logits);
    vectorised(
        #[inline(always)]
        || logits.iter_mut().for_each(|logit| *logit = found.log(*logit) as f32),
    );
    found
}
