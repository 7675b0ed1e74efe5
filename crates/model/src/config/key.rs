//! The keys of a model's layers: what their down-projections read.
//!
//! The experts of a layer are one wide feed-forward, part after part: its key is the parts' keys one behind the other, each multiplied with
//! the token's gate, and 0 where the token is not routed to. The layer's output is the wide down-projection's product with that key.

use std::ops::Range;

use crate::{DecoderConfig, Experts};

impl DecoderConfig {
    /// The mixture of a layer, where it has one.
    pub fn mixture(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| experts.dense_layers.binary_search(&layer).is_err())
    }

    /// Where the parts of a layer's key lie: one of the whole key, or one for each expert.
    pub fn key_parts(&self, layer: usize) -> Vec<Range<usize>> {
        match self.mixture(layer) {
            Some(experts) => experts.parts(),
            None => std::iter::once(0..self.feed_forward).collect(),
        }
    }

    /// The size of a layer's key: the down-projection's inputs, those of all experts together.
    pub fn key_size(&self, layer: usize) -> usize {
        match self.mixture(layer) {
            Some(experts) => experts.count * experts.size + experts.shared.unwrap_or(0),
            None => self.feed_forward,
        }
    }

    /// The size of the largest key of any layer.
    pub fn largest_key(&self) -> usize {
        (0..self.layers).map(|layer| self.key_size(layer)).max().unwrap_or(self.feed_forward)
    }

    /// How many numbers of a key a token computes, in the layer that has most: of a mixture, those of the experts that it uses.
    pub fn used_key(&self) -> usize {
        let used = |layer| match self.mixture(layer) {
            Some(experts) => experts.top * experts.size + experts.shared.unwrap_or(0),
            None => self.feed_forward,
        };
        (0..self.layers).map(used).max().unwrap_or(self.feed_forward)
    }

    /// Layers that have one feed-forward, in rising order.
    pub fn dense_layers(&self) -> Vec<usize> {
        (0..self.layers).filter(|&layer| self.mixture(layer).is_none()).collect()
    }
}
