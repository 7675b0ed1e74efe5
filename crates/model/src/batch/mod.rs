//! Prompts of different lengths as one rectangle.

pub(crate) mod packing;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token ids padded on the right.
///
/// Causal attention never looks right, so padding needs no mask: what is computed at a padded position is read by
/// nobody.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, seq]`.
    pub ids: Tensor<2, Int>,
    /// Tokens in each row.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// Pads the rows with token 0 to the longest one.
    pub fn new<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> Self {
        let width = rows.iter().map(|r| r.as_ref().len()).max().unwrap_or(0);
        let mut flat = Vec::with_capacity(rows.len() * width);
        for row in rows {
            flat.extend(row.as_ref().iter().map(|&id| id as i32));
            flat.resize(flat.len() + width - row.as_ref().len(), 0);
        }
        Self {
            ids: Tensor::from_data(TensorData::new(flat, [rows.len(), width]), device),
            lengths: rows.iter().map(|r| r.as_ref().len()).collect(),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Padded length.
    pub fn width(&self) -> usize {
        self.ids.dims()[1]
    }
}
