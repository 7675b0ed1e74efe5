//! The part of a computation that a vector added in the middle of it can change.
//!
//! A target search adds a vector δ to one token's hidden state after one layer, dozens of times, and asks each time what the model then
//! says. Two things keep most of the computation as it was. Nothing up to that layer depends on δ. And attention is causal: no token
//! before that one sees it, in any layer, so that their keys and values in the layers above never change. What is left to compute in each
//! step is the *suffix*: the tokens from that one on, in the layers above, which attend to the kept keys and values of the tokens before.
//! For a fact in the middle of a prompt and a layer in the first third of the model that is about a fifth of the whole, and so is what
//! autodiff has to remember and go back through.
//!
//! Suffixes begin at different positions. They are aligned at their first token, as a rectangle, so that one product serves all rows; what
//! comes before them is aligned at its end and padded on the left, and a mask hides the padding. Each row keeps the positions that its
//! tokens have in the whole text, which rotation and learned positions depend on. Windows measure the same distances as in the whole row,
//! since a row's past ends where its suffix begins.

use burn::tensor::{Int, Tensor, TensorData};

use crate::batch::rows::{Activations, Frame, Places, RowForm, Rows, Shape, indices};
use crate::decoder::block::{BlockOutput, KeyValues};
use crate::{Decoder, ModelError};

/// Rows from one of their tokens on, in the layers above one: see the module's description.
pub struct Suffix {
    layer: usize,
    frame: Frame,
    /// Hidden state after the layer from each row's start on, `[rows, seq, d]`.
    hidden: Tensor<3>,
    /// 1 at the token of each row that vectors are added to, `[rows, seq, 1]`.
    mark: Tensor<3>,
    /// Keys and values of earlier positions in the layers above, left-padded.
    past: Vec<KeyValues>,
    /// Position of each row's first token.
    starts: Vec<usize>,
}

impl Decoder {
    /// Runs whole rows once, showing each block's output to `see`, and keeps what is needed to run them again from `starts` on, above
    /// `layer`, with a vector added at each row's `marks`. Both are positions, one a row, and a row's start is no later than its mark.
    /// Returns the suffix and the hidden state after the last block.
    ///
    /// # Errors
    /// [`ModelError::Layer`]; what reading a streamed block failed at; what `see` answers.
    pub fn suffix(
        &self,
        rows: &Rows,
        starts: Vec<usize>,
        marks: &[usize],
        layer: usize,
        mut see: impl FnMut(usize, &BlockOutput) -> Result<(), ModelError>,
    ) -> Result<(Suffix, Activations), ModelError> {
        let config = self.config();
        config.check_layer(layer)?;
        let device = rows.ids.device();
        let shape = &rows.frame.shape;
        let count = rows.count();
        let before = starts.iter().copied().max().unwrap_or(0);
        let seq = rows.lengths().iter().zip(&starts).map(|(length, start)| length - start).max().unwrap_or(0);
        // The cell that each aligned position comes from. Padding reads any cell that exists; it is masked or never looked at.
        let past_cells = starts.iter().enumerate().flat_map(|(row, &start)| {
            (0..before).map(move |j| shape.cell(row, (j + start).saturating_sub(before)) as i32)
        });
        let past_cells = indices(past_cells.collect(), &device);
        let suffix_cells = starts.iter().enumerate().flat_map(|(row, &start)| {
            (0..seq).map(move |j| shape.cell(row, (start + j).min(shape.room(row) - 1)) as i32)
        });
        let suffix_cells = indices(suffix_cells.collect(), &device);

        let (mut hidden, mut past) = (None, Vec::new());
        let last = self.walk(rows, config.layers - 1, |at, output| {
            see(at, output)?;
            if at == layer {
                hidden = Some(output.hidden.0.clone().select(0, suffix_cells.clone()));
            }
            if at > layer && before > 0 {
                past.push(KeyValues {
                    keys: realigned(&output.kv.keys, &past_cells, [count, before]),
                    values: realigned(&output.kv.values, &past_cells, [count, before]),
                });
            }
            Ok(())
        })?;
        let hidden = hidden.ok_or(ModelError::Layer { layer, last: config.layers - 1 })?;

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
        let suffix = Suffix {
            layer,
            frame: Frame {
                shape: Shape::new(vec![seq; count], RowForm::Padded),
                rotation: self.rotation(&positions),
                masks: vec![Some(mask)],
            },
            hidden: hidden.reshape([count, seq, config.hidden]),
            mark: Tensor::from_data(TensorData::new(mark, [count, seq, 1]), &device),
            past,
            starts,
        };
        Ok((suffix, last))
    }
}

impl Suffix {
    /// Runs the suffixes with `added` `[rows, d]`, a vector for each row, added at its mark; the hidden state after the last block. What is
    /// tracked by autodiff in `added` is tracked in the result.
    ///
    /// # Errors
    /// What reading a streamed block failed at: see [`Decoder::hold`].
    pub fn run(&self, decoder: &Decoder, added: Tensor<2>) -> Result<Activations, ModelError> {
        let [count, seq, d] = self.hidden.dims();
        let shift = added.reshape([count, 1, d]) * self.mark.clone();
        let mut hidden = (self.hidden.clone() + shift).reshape([count * seq, d]);
        for layer in self.layer + 1..decoder.config().layers {
            let past = self.past.get(layer - self.layer - 1);
            hidden = decoder.run(&*decoder.lend(layer)?, layer, &self.frame, hidden, past).hidden.0;
        }
        Ok(Activations(hidden))
    }

    /// Tokens of rows, as pairs of row and position in the whole text, none before the row's start.
    pub fn places(&self, tokens: impl IntoIterator<Item = (usize, usize)>) -> Places {
        let tokens = tokens.into_iter().map(|(row, position)| (row, position - self.starts[row]));
        self.frame.shape.places(tokens, &self.hidden.device())
    }

    /// Some of the rows, by number.
    #[must_use]
    pub fn keep(&self, rows: &[usize]) -> Self {
        let seq = self.hidden.dims()[1];
        let picked = indices(rows.iter().map(|&row| row as i32).collect(), &self.hidden.device());
        let part = |t: &Tensor<4>| t.clone().select(0, picked.clone());
        let mut frame = Frame {
            shape: Shape::new(vec![seq; rows.len()], RowForm::Padded),
            rotation: self.frame.rotation.clone(),
            masks: self
                .frame
                .masks
                .iter()
                .map(|mask| mask.clone().map(|mask| mask.select(0, picked.clone())))
                .collect(),
        };
        if let Some(rotation) = &mut frame.rotation {
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
fn realigned(x: &Tensor<4>, cells: &Tensor<1, Int>, [rows, width]: [usize; 2]) -> Tensor<4> {
    let [batch, heads, seq, dim] = x.dims();
    x.clone()
        .swap_dims(1, 2)
        .reshape([batch * seq, heads * dim])
        .select(0, cells.clone())
        .reshape([rows, width, heads, dim])
        .swap_dims(1, 2)
}
