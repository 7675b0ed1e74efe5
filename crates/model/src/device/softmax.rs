//! Probabilities over a vocabulary.
//!
//! A vocabulary has 50,000 to 250,000 tokens, most of them with tiny probabilities. Added one by one in f32, as Burn (0.22.1) adds them in
//! its softmax on a CPU, each of the small ones is rounded against a sum that is already large: over GPT-2's vocabulary the probabilities
//! then sum to 1.0005, every one of them is wrong by that much, and a KL divergence that is 0 begins at 1e-5. Here the largest logit is
//! taken off first, and the exponentials are added by [`Tensor::sum_dim`], which adds in dozens of sums side by side on a CPU and as a tree
//! on a GPU: no number meets a sum of more than a few thousand. `crates/model/tests/reductions.rs` holds what that gives against f64.

use burn::tensor::Tensor;

/// Rows of logits, normalised.
pub struct Softmax {
    /// Probabilities, `[n, V]`.
    pub p: Tensor<2>,
    /// Their logarithms, `[n, V]`. They are not taken from the probabilities: the logarithm of one that is 0 in f32 is finite.
    pub log_p: Tensor<2>,
}

/// Probabilities and their logarithms for logits `[n, V]`: with `m` the largest logit of a row and `s = Σ exp(l − m)`, `p = exp(l − m)/s` and
/// `log p = (l − m) − log s`.
pub fn softmax(logits: Tensor<2>) -> Softmax {
    let (shifted, exponentials, sum) = parts(logits);
    Softmax { p: exponentials / sum.clone(), log_p: shifted - sum.log() }
}

/// Logarithms of probabilities for logits `[n, V]`: [`Softmax::log_p`] alone.
pub fn log_softmax(logits: Tensor<2>) -> Tensor<2> {
    let (shifted, _, sum) = parts(logits);
    shifted - sum.log()
}

/// `l − m`, `exp(l − m)`, both `[n, V]`, and the sum of the latter, `[n, 1]`.
fn parts(logits: Tensor<2>) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let largest = logits.clone().detach().max_dim(1);
    let shifted = logits - largest;
    let exponentials = shifted.clone().exp();
    let sum = exponentials.clone().sum_dim(1);
    (shifted, exponentials, sum)
}
