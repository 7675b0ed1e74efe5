//! Copies of all weights, laid out for products of few rows.
//!
//! A step of a few dozen texts multiplies each weight with as many rows. Copying it together for that takes as long as the product itself, in
//! each step anew; weights that are copied once, for all steps, save it. The copies take as much memory as the weights, so they are made where that is
//! free, by whoever takes many steps, and let go afterwards. Results are the same to the last bit.

use palinode_kernels as kernels;
use palinode_kernels::{Packed, Threads};

use crate::decoder::host::HostBlock;
use crate::device::numbers::Numbers;
use crate::{Compute, Decoder, DecoderConfig, ModelError, memory};

/// Every block and the head, copied.
pub(crate) struct PackedModel {
    pub blocks: Vec<HostBlock>,
    head: Packed,
    bias: Option<Numbers>,
}

/// Bytes that the copies of a model's weights take.
pub fn packed_bytes(config: &DecoderConfig, compute: Compute) -> u64 {
    let bytes = |inputs, outputs| Packed::bytes(inputs, outputs, compute.in_kernels());
    let DecoderConfig { hidden: d, feed_forward: f, layers, vocab, .. } = *config;
    let attention = config.heads * config.head_dim;
    let into = if config.gated { 2 } else { 1 };
    let around = bytes(d, attention + 2 * config.kv_heads * config.head_dim) + bytes(attention, d);
    let inside = into * bytes(d, f) + bytes(f, d);
    let dense = (0..layers).filter(|&layer| config.mixture(layer).is_none()).count();
    (layers * around + dense * inside + bytes(d, vocab)) as u64
}

impl PackedModel {
    /// None where blocks are streamed, or where the copies would take more than half of the memory that is free.
    pub fn of(decoder: &Decoder) -> Result<Option<Self>, ModelError> {
        let config = decoder.config();
        let room = memory::available().is_some_and(|free| packed_bytes(config, decoder.compute()) <= free / 2);
        if decoder.streams() || !room {
            return Ok(None);
        }
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let Some(block) = decoder.host_block(layer, &*decoder.lend(layer)?) else { return Ok(None) };
            blocks.push(block.packed());
        }
        let Some(head) = Numbers::of_matrix(decoder.head_weight()) else { return Ok(None) };
        let bias = match decoder.ends().head.as_ref().and_then(|head| head.bias.as_ref()) {
            None => None,
            Some(bias) => match Numbers::of(bias.val()) {
                None => return Ok(None),
                bias => bias,
            },
        };
        let compute = decoder.compute().in_kernels();
        let head = head.matrix().map(|head| head.computed_in(compute).packed());
        Ok(head.map(|head| Self { blocks, head, bias }))
    }

    /// Logits `[n, V]` of normed rows `[n, d]`.
    pub fn logits(&self, decoder: &Decoder, normed: &Numbers) -> Vec<f32> {
        decoder.meter.head(normed.slice().len() / decoder.config().hidden);
        let bias = self.bias.as_ref().map(Numbers::slice);
        let mut logits = kernels::product_packed(normed.slice(), &self.head, bias, Threads::All);
        decoder.read_out_of_logits().apply(&mut logits);
        logits
    }
}
