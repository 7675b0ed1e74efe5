//! Copies of weights, laid out for products that are taken again and again.
//!
//! A step of a few dozen texts multiplies each weight with as many rows, and a step of a target search with a few hundred, there and back. Copying
//! it together for that takes as long as the product of few rows itself, in each step anew; weights that are copied once, for all steps, save it.
//! The copies take as much memory as the weights, so they are made where that is free, by whoever takes many steps, and let go afterwards.
//! Results are the same to the last bit.

use std::ops::Range;
use std::sync::Arc;

use palinode_kernels as kernels;
use palinode_kernels::{Matrix, Packed, Threads};
use rayon::prelude::*;

use crate::decoder::copies::Copies;
use crate::decoder::host::{HostBlock, both_ways};
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

/// Of the memory that is free, what copies of a search may take: one part of so many.
const SEARCH_PART: u64 = 4;

impl Decoder {
    /// The same model with copies of the weights of these layers and of the head, as products that round factors to `compute` read them, there
    /// and back: for work that multiplies with them again and again, as a target search does with those above its layer. They take a
    /// quarter of the memory that is free at most, are used where this or a clone of it computes so ([`Decoder::with_compute`]), and are let go
    /// with it. Results are the same to the last bit. An edit of the model has none.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn with_copies(&self, layers: Range<usize>, compute: Compute) -> Result<Self, ModelError> {
        let mut made = self.clone();
        if self.has_kernels() {
            made.copies = Some(Arc::new(copies(&self.clone().with_compute(compute), layers)?));
        }
        Ok(made)
    }

    /// The layers of whose weights this decoder uses copies, in rising order.
    pub fn copied_layers(&self) -> Vec<usize> {
        self.copies().map_or_else(Vec::new, |copies| copies.layers().collect())
    }
}

/// Copies of these layers, from the last one down, as many as have room, and of the head if it has room beside them. A streamed block has none,
/// unless it is held: what lets it go must not keep it.
fn copies(decoder: &Decoder, layers: Range<usize>) -> Result<Copies, ModelError> {
    let mut room = memory::available().map_or(0, |free| free / SEARCH_PART);
    let mut fits = |bytes: u64| {
        let left = room.checked_sub(bytes);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut chosen = Vec::new();
    for layer in layers.rev().filter(|&layer| decoder.is_at_hand(layer)) {
        let Some(mut block) = decoder.seen_block(layer, &*decoder.lend(layer)?) else { break };
        if !fits(block.bytes_both_ways()) {
            break;
        }
        chosen.push((layer, block));
    }
    let blocks = chosen.into_par_iter().map(|(layer, block)| (layer, Arc::new(block.packed_both_ways())));
    let blocks: Vec<_> = blocks.collect();
    let compute = decoder.compute();
    let of_head = |head: Matrix| {
        let head = head.computed_in(compute.in_kernels());
        fits(both_ways(head)).then(|| [head.packed(), head.turned().packed()])
    };
    let head = Numbers::of_matrix(decoder.head_weight()).and_then(|head| head.matrix().and_then(of_head));
    Ok(Copies::new(compute, blocks.into_iter().collect(), head))
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
            let Some(block) = decoder.seen_block(layer, &*decoder.lend(layer)?) else { return Ok(None) };
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
