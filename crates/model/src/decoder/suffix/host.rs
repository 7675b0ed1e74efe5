//! A suffix by kernels: its rows lie one behind the other, and each keeps the keys and values of its own earlier tokens.

use std::sync::Arc;

use burn::tensor::Tensor;
use palinode_kernels::{Batch, Kept, Past};

use crate::batch::host_rows::HostRows;
use crate::batch::rows::{Places, RowForm, Shape};
use crate::decoder::block::Block;
use crate::decoder::host::{HostNorm, elsewhere};
use crate::device::numbers::Numbers;
use crate::{Decoder, ModelError};

/// Rows one behind the other.
pub struct HostSuffix {
    pub layer: usize,
    /// Hidden state after the layer from each row's start on, `[tokens, d]`.
    hidden: Vec<f32>,
    /// The token of each row that vectors are added to, counted from its first.
    pub marks: Vec<usize>,
    /// Position of each row's first token.
    pub starts: Vec<usize>,
    /// Tokens of each row.
    lengths: Vec<usize>,
    /// Keys and values of earlier positions: of each layer above, of each row.
    past: Vec<Vec<Arc<Past>>>,
    pub shape: Shape,
    rows: HostRows,
}

impl HostSuffix {
    pub fn of(
        decoder: &Decoder,
        layer: usize,
        hidden: Vec<f32>,
        (marks, starts, lengths): (Vec<usize>, Vec<usize>, Vec<usize>),
        past: Vec<Vec<Arc<Past>>>,
    ) -> Self {
        let positions = starts.iter().zip(&lengths).flat_map(|(&start, &length)| start..start + length);
        let next = |first: &mut usize, length: &usize| {
            let from = *first;
            *first += length;
            Some((from..*first, Vec::new()))
        };
        let rows =
            HostRows { rows: lengths.iter().scan(0, next).collect(), rotation: decoder.host_rotation(positions) };
        let shape = Shape::new(lengths.clone(), RowForm::Packed);
        Self { layer, hidden, marks, starts, lengths, past, shape, rows }
    }

    /// The hidden state after the layer, with what is added.
    pub fn shifted(&self, added: Tensor<2>) -> Result<Vec<f32>, ModelError> {
        let [_, d] = added.dims();
        let added = Numbers::of(added).ok_or_else(elsewhere)?;
        let mut hidden = self.hidden.clone();
        for (row, &mark) in self.marks.iter().enumerate() {
            let cell = self.shape.cell(row, mark);
            let added = &added.slice()[row * d..][..d];
            hidden[cell * d..][..d].iter_mut().zip(added).for_each(|(x, added)| *x += added);
        }
        Ok(hidden)
    }

    /// Keys and values of earlier positions in a layer above.
    fn batch<'a>(&'a self, decoder: &Decoder, layer: usize) -> Batch<'a> {
        let past = self.past.get(layer - self.layer - 1).into_iter().flatten();
        self.rows.batch(decoder.config(), layer, past.map(AsRef::as_ref))
    }

    pub fn through(
        &self,
        decoder: &Decoder,
        layer: usize,
        block: &Block,
        hidden: Vec<f32>,
    ) -> Result<(Vec<f32>, Kept), ModelError> {
        let block = decoder.host_block(layer, block).ok_or_else(elsewhere)?;
        Ok(block.run_kept(decoder.config(), layer, hidden, &self.batch(decoder, layer)))
    }

    pub fn back_through(
        &self,
        decoder: &Decoder,
        layer: usize,
        block: &Block,
        inside: Kept,
        slope: Vec<f32>,
    ) -> Result<Vec<f32>, ModelError> {
        let block = decoder.host_block(layer, block).ok_or_else(elsewhere)?;
        Ok(block.back(decoder.config(), layer, inside, slope, &self.batch(decoder, layer)))
    }

    /// The gradient with respect to the hidden state after the last block.
    pub fn read_back(
        &self,
        decoder: &Decoder,
        hidden: &[f32],
        places: &Places,
        slope: Tensor<2>,
    ) -> Result<Vec<f32>, ModelError> {
        let config = decoder.config();
        let d = config.hidden;
        let cells = places.cells(self.shape.cells())?;
        let norm = HostNorm::of(&decoder.ends().final_norm).ok_or_else(elsewhere)?;
        let slope = Numbers::of(slope).ok_or_else(elsewhere)?;
        let mut at_hidden = vec![0.0; hidden.len()];
        for (&cell, slope) in cells.iter().zip(slope.slice().chunks_exact(d)) {
            let cell = cell * d..(cell + 1) * d;
            norm.view(config).back(&hidden[cell.clone()], slope, &mut at_hidden[cell]);
        }
        Ok(at_hidden)
    }

    pub fn keep(&self, decoder: &Decoder, rows: &[usize]) -> Self {
        let d = self.hidden.len() / self.shape.cells().max(1);
        let cells = |row: usize| self.shape.cell(row, 0) * d..(self.shape.cell(row, 0) + self.lengths[row]) * d;
        let hidden = rows.iter().flat_map(|&row| self.hidden[cells(row)].iter().copied()).collect();
        let some = |of: &[usize]| rows.iter().map(|&row| of[row]).collect::<Vec<_>>();
        let past = self.past.iter().map(|past| rows.iter().map(|&row| Arc::clone(&past[row])).collect()).collect();
        Self::of(decoder, self.layer, hidden, (some(&self.marks), some(&self.starts), some(&self.lengths)), past)
    }
}
