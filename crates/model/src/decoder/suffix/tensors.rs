//! A suffix by the tensor library: its rows are a rectangle.
//!
//! Suffixes begin at different positions. They are aligned at their first token, so that one product serves all rows; what comes before them
//! is aligned at its end and padded on the left, and a mask hides the padding. Each row keeps the positions that its tokens have in the whole
//! text, which rotation and learned positions depend on. Windows measure the same distances as in the whole row, since a row's past ends where
//! its suffix begins.

use burn::tensor::{Int, Tensor, TensorData};

use crate::Decoder;
use crate::batch::rows::{Frame, RowForm, Rows, Shape, indices};
use crate::decoder::block::{Block, KeyValues};

/// Rows as a rectangle.
pub struct TensorSuffix {
    pub layer: usize,
    pub frame: Frame,
    /// Hidden state after the layer from each row's start on, `[rows, seq, d]`.
    hidden: Tensor<3>,
    /// 1 at the token of each row that vectors are added to, `[rows, seq, 1]`.
    mark: Tensor<3>,
    /// Keys and values of earlier positions in the layers above, left-padded.
    past: Vec<KeyValues>,
    /// Position of each row's first token.
    pub starts: Vec<usize>,
}

impl TensorSuffix {
    /// Tokens of the longest suffix, and the cells of whole rows that will be needed: those before each start, and those from it on.
    pub fn begin(rows: &Rows, starts: &[usize]) -> (usize, [Tensor<1, Int>; 2]) {
        let device = rows.ids.device();
        let shape = &rows.frame.shape;
        let before = starts.iter().copied().max().unwrap_or(0);
        let seq = rows.lengths().iter().zip(starts).map(|(length, start)| length - start).max().unwrap_or(0);
        // The cell that each aligned position comes from. Padding reads any cell that exists; it is masked or never looked at.
        let past_cells = starts.iter().enumerate().flat_map(|(row, &start)| {
            (0..before).map(move |j| shape.cell(row, (j + start).saturating_sub(before)) as i32)
        });
        let past_cells = indices(past_cells.collect(), &device);
        let suffix_cells = starts.iter().enumerate().flat_map(|(row, &start)| {
            (0..seq).map(move |j| shape.cell(row, (start + j).min(shape.room(row) - 1)) as i32)
        });
        let suffix_cells = indices(suffix_cells.collect(), &device);

        (seq, [past_cells, suffix_cells])
    }

    pub fn of(
        decoder: &Decoder,
        (layer, seq): (usize, usize),
        hidden: Tensor<2>,
        marks: &[usize],
        starts: Vec<usize>,
        past: Vec<KeyValues>,
    ) -> Self {
        let config = decoder.config();
        let device = hidden.device();
        let count = starts.len();
        let before = starts.iter().copied().max().unwrap_or(0);
        let mut mask = Vec::with_capacity(count * seq * (before + seq));
        for &start in &starts {
            for query in 0..seq {
                mask.extend((0..before).map(|j| j < before - start));
                mask.extend((0..seq).map(|j| j > query));
            }
        }
        let mut mark = vec![0f32; count * seq];
        for (row, (at, start)) in marks.iter().zip(&starts).enumerate() {
            mark[row * seq + at - start] = 1.0;
        }
        let positions: Vec<Vec<usize>> = starts.iter().map(|&start| (start..start + seq).collect()).collect();
        let mask = Tensor::from_data(TensorData::new(mask, [count, 1, seq, before + seq]), &device);
        Self {
            layer,
            frame: Frame {
                shape: Shape::new(vec![seq; count], RowForm::Padded),
                rotation: decoder.rotation(&positions),
                positions,
                masks: vec![Some(mask)],
                host: None,
            },
            hidden: hidden.reshape([count, seq, config.hidden]),
            mark: Tensor::from_data(TensorData::new(mark, [count, seq, 1]), &device),
            past,
            starts,
        }
    }

    /// The hidden state after the layer, with what is added. What is tracked by autodiff in `added` is tracked in the result.
    pub fn shifted(&self, added: Tensor<2>) -> Tensor<2> {
        let [count, seq, d] = self.hidden.dims();
        let shift = added.reshape([count, 1, d]) * self.mark.clone();
        (self.hidden.clone() + shift).reshape([count * seq, d])
    }

    /// Likewise, through a layer's block.
    pub fn through(&self, decoder: &Decoder, layer: usize, block: &Block, hidden: Tensor<2>) -> Tensor<2> {
        let past = self.past.get(layer - self.layer - 1);
        decoder.run(block, layer, &self.frame, hidden, past).hidden.0
    }

    pub fn keep(&self, rows: &[usize]) -> Self {
        let seq = self.hidden.dims()[1];
        let picked = indices(rows.iter().map(|&row| row as i32).collect(), &self.hidden.device());
        let part = |t: &Tensor<4>| t.clone().select(0, picked.clone());
        let mut frame = Frame {
            shape: Shape::new(vec![seq; rows.len()], RowForm::Padded),
            rotation: self.frame.rotation.clone(),
            positions: rows.iter().map(|&row| self.frame.positions[row].clone()).collect(),
            masks: self
                .frame
                .masks
                .iter()
                .map(|mask| mask.clone().map(|mask| mask.select(0, picked.clone())))
                .collect(),
            host: None,
        };
        for rotation in frame.rotation.iter_mut().flatten() {
            (rotation.cos, rotation.sin) = (part(&rotation.cos), part(&rotation.sin));
        }
        Self {
            layer: self.layer,
            frame,
            hidden: self.hidden.clone().select(0, picked.clone()),
            mark: self.mark.clone().select(0, picked.clone()),
            past: self.past.iter().map(|kv| KeyValues { keys: part(&kv.keys), values: part(&kv.values) }).collect(),
            starts: rows.iter().map(|&row| self.starts[row]).collect(),
        }
    }
}

/// Selects cells of `[batch, heads, seq, dim]` by their index into `batch · seq`.
pub fn realigned(x: &Tensor<4>, cells: &Tensor<1, Int>, [rows, width]: [usize; 2]) -> Tensor<4> {
    let [batch, heads, seq, dim] = x.dims();
    x.clone()
        .swap_dims(1, 2)
        .reshape([batch * seq, heads * dim])
        .select(0, cells.clone())
        .reshape([rows, width, heads, dim])
        .swap_dims(1, 2)
}
