//! Losses at the head, with their gradients written out.
//!
//! Logits are the largest thing that a step makes: a row of V numbers for each position, 200 KiB for GPT-2's vocabulary. Autodiff would keep
//! several copies of all of them until the step is over. But what it would compute from them is known and short: the gradient of a
//! cross-entropy or a KL divergence with respect to logits needs the probabilities and nothing else, and its way back through the head
//! is one product with the head's weight, which is frozen and has no gradient of its own. So the gradient with respect to the head's
//! input is computed at once, some rows at a time, and logits are let go before the next rows are read. What is left to autodiff begins
//! below the head: `Σ normed · gradient`, with the gradient taken as a constant, has exactly that gradient with respect to `normed`.

use std::cell::RefCell;

use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use palinode_model::{Decoder, HeadLosses, ModelError, Softmax, cat, gather, read, softmax};

/// Numbers in a chunk of logits: 64 MiB of f32. Fewer rows would read the head's weight more often than they use it.
const CHUNK: usize = 16 << 20;

/// A loss for each row.
pub struct RowLosses {
    /// `[n, 1]`, not weighted.
    pub values: Tensor<2>,
    /// Gradient of their weighted sum with respect to the normed rows, `[n, d]`.
    pub gradient: Tensor<2>,
}

/// `−log p(token)` at each of the normed `rows` `[n, d]`, with tokens and weights `[n, 1]`; the gradient is that of `Σ weight · value`.
///
/// With logits `l` and `p = softmax(l)`: `∂(−log pₜ)/∂l = p − eₜ`.
///
/// With `best`, the second value is how far each token's log-probability is below that of the most probable one, `[n, 1]`.
///
/// # Errors
/// What the device failed at.
pub fn likelihoods(
    decoder: &Decoder,
    rows: &Tensor<2>,
    tokens: &Tensor<2, Int>,
    weights: &Tensor<2>,
    best: bool,
) -> Result<(RowLosses, Option<Tensor<2>>), ModelError> {
    if decoder.has_kernels() {
        let tokens: Vec<u32> = read::<i32, 2, Int>(tokens.clone())?.into_iter().map(|token| token as u32).collect();
        let weights: Vec<f32> = read(weights.clone())?;
        if let Some(HeadLosses { values, gradient, shortfalls }) = decoder.cross_entropies(rows, &tokens, &weights) {
            return Ok((RowLosses { values, gradient }, best.then_some(shortfalls)));
        }
    }
    let shortfalls = RefCell::new(Vec::new());
    let losses = chunks(decoder, rows, |logits, from, to| {
        let count = to - from;
        let token = tokens.clone().narrow(0, from, count);
        let weight = weights.clone().narrow(0, from, count);
        let Softmax { p, log_p } = softmax(logits);
        let best = best.then(|| log_p.clone().max_dim(1));
        let values = gather(log_p, token.clone()).neg();
        shortfalls.borrow_mut().extend(best.map(|best| best + values.clone()));
        let slope = (p * weight.clone()).scatter(1, token, weight.neg(), IndexingUpdateOp::Add);
        (values, slope)
    });
    let shortfalls = shortfalls.into_inner();
    Ok((losses, best.then(|| cat(shortfalls, 0))))
}

/// `KL(p ‖ p₀)` at each of the normed `rows` `[n, d]`, given `log p₀` `[n, V]`, and the gradient of their sum.
///
/// `∂KL/∂l = p · (log p − log p₀ − KL)`.
pub fn divergences(decoder: &Decoder, rows: &Tensor<2>, reference: &Tensor<2>) -> RowLosses {
    if let Some(HeadLosses { values, gradient, .. }) = decoder.divergences(rows, reference) {
        return RowLosses { values, gradient };
    }
    chunks(decoder, rows, |logits, from, to| {
        let Softmax { p, log_p } = softmax(logits);
        let ratio = log_p - reference.clone().narrow(0, from, to - from);
        let values = (p.clone() * ratio.clone()).sum_dim(1);
        let slope = p * (ratio - values.clone());
        (values, slope)
    })
}

/// Losses and slopes with respect to logits, chunk by chunk; the slopes are carried through the head.
fn chunks(
    decoder: &Decoder,
    rows: &Tensor<2>,
    loss: impl Fn(Tensor<2>, usize, usize) -> (Tensor<2>, Tensor<2>),
) -> RowLosses {
    let n = rows.dims()[0];
    let size = (CHUNK / decoder.config().vocab).max(1);
    // As many chunks as that takes, of the same size: a short one at the end costs as much as a long one.
    let size = n.div_ceil(n.div_ceil(size).max(1)).max(1);
    let (mut values, mut gradient) = (Vec::new(), Vec::new());
    for from in (0..n).step_by(size) {
        let to = n.min(from + size);
        let logits = decoder.read_out(rows.clone().narrow(0, from, to - from));
        // The way back depends on them where they have a cap.
        let kept = decoder.config().logit_cap.map(|_| logits.clone());
        let (value, slope) = loss(logits, from, to);
        values.push(value);
        gradient.push(decoder.read_out_back(slope, kept));
    }
    RowLosses { values: cat(values, 0), gradient: cat(gradient, 0) }
}
