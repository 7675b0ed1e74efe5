//! A weight with its bias.

use crate::{Matrix, Packed, Threads, product, product_packed};

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// `inputs × outputs`.
    pub weight: Matrix<'a>,
    /// The same weight as a copy that products read faster, where there is one.
    pub packed: Option<&'a Packed>,
    /// Such a copy of [`Matrix::turned`], for the way back.
    pub packed_back: Option<&'a Packed>,
    /// One for each output, where there are any.
    pub bias: Option<&'a [f32]>,
}

impl Projection<'_> {
    pub(crate) fn forward(&self, x: &[f32], threads: Threads) -> Vec<f32> {
        match self.packed {
            Some(packed) => product_packed(x, packed, self.bias, threads),
            None => product(x, self.weight, self.bias, threads),
        }
    }

    pub(crate) fn back(&self, slope: &[f32], threads: Threads) -> Vec<f32> {
        match self.packed_back {
            Some(packed) => product_packed(slope, packed, None, threads),
            None => product(slope, self.weight.turned(), None, threads),
        }
    }
}
