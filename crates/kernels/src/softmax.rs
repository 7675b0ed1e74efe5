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
    #[inline(always)]
    pub fn log(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

/// Looks at one row of logits. Where one of them is not a number, neither is the sum.
pub fn probabilities(logits: &[f32]) -> Probabilities {
    vectorised(
        #[inline(always)]
        || {
            let (largest, best) = largest(logits);
            let (whole, rest) = logits.as_chunks::<PARTS>();
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
            Probabilities { largest, best, log_sum: f64::from(largest) + sum.ln() }
        },
    )
}

/// `log p` of every place, in the place of its logit; what the row came to.
pub fn log_softmax(logits: &mut [f32]) -> Probabilities {
    let found = probabilities(logits);
    vectorised(
        #[inline(always)]
        || {
            for logit in logits.iter_mut() {
                *logit = (f64::from(*logit) - found.log_sum) as f32;
            }
        },
    );
    found
}

/// What one row of logits says of a token. The gradient of `−weight · log p(token)` with respect to the logits takes their place:
/// `weight · (p − e)`, `e` being 1 at the token.
pub fn cross_entropy(logits: &mut [f32], token: usize, weight: f32) -> Probabilities {
    let (found, sum) = exponentials(logits);
    vectorised(
        #[inline(always)]
        || {
            let factor = (f64::from(weight) / sum) as f32;
            for x in logits.iter_mut() {
                *x *= factor;
            }
        },
    );
    logits[token] -= weight;
    found
}

/// `KL(p ‖ q)` of one row of logits, given `log q`. Its gradient with respect to the logits takes their place: `p · (log p − log q − KL)`.
pub fn divergence(logits: &mut [f32], log_q: &[f32]) -> f64 {
    assert_eq!(logits.len(), log_q.len(), "as many numbers of both");
    let found = probabilities(logits);
    vectorised(
        #[inline(always)]
        || {
            let log_p = |logit: f32| found.log(logit) as f32;
            let mut sums = [0f64; PARTS];
            let (whole, rest) = logits.as_chunks::<PARTS>();
            let (whole_q, rest_q) = log_q.as_chunks::<PARTS>();
            for (chunk, chunk_q) in whole.iter().zip(whole_q) {
                for j in 0..PARTS {
                    let log_p = log_p(chunk[j]);
                    sums[j] += f64::from(exp(log_p) * (log_p - chunk_q[j]));
                }
            }
            for (j, (logit, log_q)) in rest.iter().zip(rest_q).enumerate() {
                let log_p = log_p(*logit);
                sums[j] += f64::from(exp(log_p) * (log_p - log_q));
            }
            let sum: f64 = sums.iter().sum();
            let kl = sum as f32;
            for (logit, log_q) in logits.iter_mut().zip(log_q) {
                let log_p = log_p(*logit);
                *logit = exp(log_p) * (log_p - log_q - kl);
            }
            sum
        },
    )
}

/// As [`probabilities`], with `exp(logit − largest)` in the place of each logit, and their sum.
fn exponentials(logits: &mut [f32]) -> (Probabilities, f64) {
    vectorised(
        #[inline(always)]
        || {
            let (largest, best) = largest(logits);
            let mut sums = [0f64; PARTS];
            let (whole, rest) = logits.as_chunks_mut::<PARTS>();
            for chunk in whole {
                for j in 0..PARTS {
                    chunk[j] = exp(chunk[j] - largest);
                    sums[j] += f64::from(chunk[j]);
                }
            }
            for (j, logit) in rest.iter_mut().enumerate() {
                *logit = exp(*logit - largest);
                sums[j] += f64::from(*logit);
            }
            let sum: f64 = sums.iter().sum();
            (Probabilities { largest, best, log_sum: f64::from(largest) + sum.ln() }, sum)
        },
    )
}

/// The largest of some logits, and the first place that has it.
#[inline(always)]
fn largest(logits: &[f32]) -> (f32, usize) {
    let mut each = [f32::NEG_INFINITY; PARTS];
    let (whole, rest) = logits.as_chunks::<PARTS>();
    for chunk in whole {
        for j in 0..PARTS {
            each[j] = if chunk[j] > each[j] { chunk[j] } else { each[j] };
        }
    }
    let largest = each.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    // Sixteen at a time: a loop that may end at each number is no vector's.
    let has = |chunk: &[f32; PARTS]| chunk.iter().map(|logit| u32::from(*logit == largest)).sum::<u32>() > 0;
    let from = whole.iter().position(has).unwrap_or(whole.len()) * PARTS;
    let found = logits[from..].iter().position(|logit| *logit == largest);
    (largest, found.map_or(0, |at| from + at))
}
