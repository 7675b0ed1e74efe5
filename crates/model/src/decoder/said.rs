//! What rows say of tokens, and losses of that with their gradients, where kernels compute: logits are looked at and let go.
//!
//! A row of logits has tens or hundreds of thousands of numbers. They are computed for some rows at a time, a loss turns each row into its
//! gradient where it lies, and the product with the head that carries gradients back reads it from there.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use palinode_kernels as kernels;
use palinode_kernels::{Matrix, ReadOut, Threads};
use rayon::prelude::*;

use crate::decoder::copies::Copies;
use crate::device::numbers::{Numbers, rows as tensor_of};
use crate::{Decoder, ModelError, gather, log_softmax, read};

/// Numbers in a chunk of logits: 64 MiB. Fewer rows would read the head's weight more often than they use it.
const CHUNK: usize = 16 << 20;

/// What a row says of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// Logarithm of the token's probability.
    pub log_p: f64,
    /// The most probable token; of several, the one with the smallest number.
    pub best: u32,
}

/// Losses of rows, and the gradient of their weighted sum.
#[derive(Clone, Debug)]
pub struct HeadLosses {
    /// Of each row, `[n, 1]`, not weighted.
    pub values: Tensor<2>,
    /// With respect to the normed rows, `[n, d]`.
    pub gradient: Tensor<2>,
    /// How far each row's token is below the most probable one, in log-probability, `[n, 1]`; 0 where a loss has no token.
    pub shortfalls: Tensor<2>,
}

/// The head's numbers.
struct HostHead {
    weight: Numbers,
    compute: kernels::Compute,
    bias: Option<Numbers>,
    copies: Option<Arc<Copies>>,
}

impl HostHead {
    /// `x · weight (+ bias)`.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let bias = self.bias.as_ref().map(Numbers::slice);
        match self.copies.as_ref().and_then(|copies| copies.head()) {
            Some([there, _]) => kernels::product_packed(x, there, bias, Threads::All),
            None => kernels::product(x, self.weight(), bias, Threads::All),
        }
    }

    /// `slope · weightᵀ`.
    fn back(&self, slope: &[f32]) -> Vec<f32> {
        match self.copies.as_ref().and_then(|copies| copies.head()) {
            Some([_, back]) => kernels::product_packed(slope, back, None, Threads::All),
            None => kernels::product(slope, self.weight().turned(), None, Threads::All),
        }
    }

    fn weight(&self) -> Matrix<'_> {
        self.weight.matrix().expect("looked at when it was made").computed_in(self.compute)
    }
}

impl Decoder {
    /// What rows of the last block's output, `[n, d]`, say of tokens: pairs of a row's number and a token, rows rising.
    ///
    /// # Errors
    /// What the device failed at.
    pub fn said(&self, rows: Tensor<2>, of: &[(usize, u32)]) -> Result<Vec<Said>, ModelError> {
        let normed = self.final_norm(rows);
        let (Some(head), Some(x)) = (self.host_head(), Numbers::of(normed.clone())) else {
            return self.said_by_tensors(normed, of);
        };
        let d = self.config.hidden;
        let mut found = Vec::with_capacity(of.len());
        let mut left = of;
        for (number, x) in x.slice().chunks(self.chunk(x.slice().len() / d) * d).enumerate() {
            let (logits, first) = (self.host_logits(&head, x), number * self.chunk(normed.dims()[0]));
            let count = x.len() / d;
            let (some, behind) = left.split_at(left.partition_point(|(row, _)| *row < first + count));
            left = behind;
            let vocab = self.config.vocab;
            let one = |logits: &[f32]| kernels::probabilities(logits);
            let rows: Vec<_> = logits.par_chunks_exact(vocab).map(one).collect();
            found.extend(some.iter().map(|&(row, token)| {
                let row = row - first;
                let said = &rows[row];
                Said { log_p: said.log(logits[row * vocab + token as usize]), best: said.best as u32 }
            }));
        }
        Ok(found)
    }

    fn said_by_tensors(&self, normed: Tensor<2>, of: &[(usize, u32)]) -> Result<Vec<Said>, ModelError> {
        let device = self.device();
        let count = of.len();
        let indices = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device);
        let rows = indices(of.iter().map(|&(row, _)| row as i32).collect());
        let tokens = indices(of.iter().map(|&(_, token)| token as i32).collect());
        let logits = self.read_out(normed);
        let best = logits.clone().argmax(1).reshape([-1]).select(0, rows.clone());
        let log_p = gather(log_softmax(logits).select(0, rows), tokens.reshape([count, 1]));
        let (log_p, best) = (read::<f32, 2, _>(log_p)?, read::<i32, 1, Int>(best)?);
        let said = |(log_p, best): (f32, i32)| Said { log_p: f64::from(log_p), best: best as u32 };
        Ok(log_p.into_iter().zip(best).map(said).collect())
    }

    /// `−log p(token)` at each of the normed rows `[n, d]`; the gradient is that of `Σ weight · value`. None where kernels do not compute.
    pub fn cross_entropies(&self, normed: &Tensor<2>, tokens: &[u32], weights: &[f32]) -> Option<HeadLosses> {
        let vocab = self.config.vocab;
        self.head_losses(normed, |row, logits| {
            let (token, weight) = (tokens[row] as usize, weights[row]);
            let logit = logits[token.min(vocab - 1)];
            let said = kernels::cross_entropy(logits, token, weight);
            (-said.log(logit) as f32, said.largest - logit)
        })
    }

    /// `KL(p ‖ q)` at each of the normed rows `[n, d]`, given `log q` `[n, V]`; the gradient is that of their sum. None where kernels do not
    /// compute.
    pub fn divergences(&self, normed: &Tensor<2>, log_q: &Tensor<2>) -> Option<HeadLosses> {
        let vocab = self.config.vocab;
        let log_q = Numbers::of(log_q.clone())?;
        self.head_losses(normed, |row, logits| {
            (kernels::divergence(logits, &log_q.slice()[row * vocab..][..vocab]) as f32, 0.0)
        })
    }

    /// Losses row by row: `loss` gives a row's value and shortfall, and puts the gradient in the place of its logits.
    fn head_losses(
        &self,
        normed: &Tensor<2>,
        loss: impl Fn(usize, &mut [f32]) -> (f32, f32) + Sync,
    ) -> Option<HeadLosses> {
        let (head, x) = (self.host_head()?, Numbers::of(normed.clone())?);
        let d = self.config.hidden;
        let each = self.chunk(x.slice().len() / d);
        let (mut values, mut shortfalls, mut gradient) = (Vec::new(), Vec::new(), Vec::new());
        for (number, x) in x.slice().chunks(each * d).enumerate() {
            let mut logits = self.host_logits(&head, x);
            let rows = logits.par_chunks_exact_mut(self.config.vocab).enumerate();
            let read_out = self.read_out_of_logits();
            let of_row = |(row, logits): (usize, &mut [f32])| {
                if read_out.is_nothing() {
                    return loss(number * each + row, logits);
                }
                let read = logits.to_vec();
                let losses = loss(number * each + row, logits);
                read_out.back(logits, &read);
                losses
            };
            let losses: Vec<(f32, f32)> = rows.map(of_row).collect();
            values.extend(losses.iter().map(|(value, _)| *value));
            shortfalls.extend(losses.iter().map(|(_, shortfall)| *shortfall));
            gradient.extend(head.back(&logits));
        }
        Some(HeadLosses {
            values: tensor_of(values, 1),
            gradient: tensor_of(gradient, d),
            shortfalls: tensor_of(shortfalls, 1),
        })
    }

    /// Rows of a chunk, of so many: as many in each, since a short one at the end costs as much as a long one.
    fn chunk(&self, rows: usize) -> usize {
        let most = (CHUNK / self.config.vocab).max(1);
        rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
    }

    fn host_logits(&self, head: &HostHead, x: &[f32]) -> Vec<f32> {
        self.meter.head(x.len() / self.config.hidden);
        let mut logits = head.forward(x);
        self.read_out_of_logits().apply(&mut logits);
        logits
    }

    /// What is done with logits behind the head.
    pub(crate) fn read_out_of_logits(&self) -> ReadOut {
        ReadOut { multiplier: self.config.logit_multiplier as f32, cap: self.config.logit_cap.map(|cap| cap as f32) }
    }

    fn host_head(&self) -> Option<HostHead> {
        if !self.kernels {
            return None;
        }
        let bias = match self.ends.head.as_ref().and_then(|head| head.bias.as_ref()) {
            None => None,
            Some(bias) => Some(Numbers::of(bias.val())?),
        };
        let compute = self.compute().in_kernels();
        let copies = self.copies().cloned();
        Some(HostHead { weight: Numbers::of_matrix(self.head_weight())?, compute, bias, copies })
    }
}
