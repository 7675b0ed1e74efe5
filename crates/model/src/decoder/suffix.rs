//! The part of a computation that a vector added in the middle of it can change.
//!
//! A target search adds a vector δ to one token's hidden state after one layer, dozens of times, and asks each time what the model then
//! says. Two things keep most of the computation as it was. Nothing up to that layer depends on δ. And attention is causal: no token
//! before that one sees it, in any layer, so that their keys and values in the layers above never change. What is left to compute in each
//! step is the *suffix*: the tokens from that one on, in the layers above, which attend to the kept keys and values of the tokens before.
//! For a fact in the middle of a prompt and a layer in the first third of the model that is about a fifth of the whole, and so is what
//! the way back has to remember and go through.
//!
//! By kernels, suffixes lie one behind the other, and each row keeps the keys and values of its own earlier tokens. By the tensor library,
//! they are a rectangle. Suffixes begin at different positions. They are aligned at their first token, as a rectangle, so that one product serves all rows; what
//! comes before them is aligned at its end and padded on the left, and a mask hides the padding. Each row keeps the positions that its
//! tokens have in the whole text, which rotation and learned positions depend on. Windows measure the same distances as in the whole row,
//! since a row's past ends where its suffix begins.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use palinode_kernels::{Kept, Past};

use crate::batch::host_rows::HostRows;
use crate::batch::rows::{Activations, Frame, Places, RowForm, Rows, Shape, indices};
use crate::decoder::block::{BlockOutput, KeyValues, Kv};
use crate::decoder::host::{HostBlock, HostNorm, heads};
use crate::device::numbers::{Numbers, rows as tensor_of};
use crate::{Decoder, ModelError};

/// Rows from one of their tokens on, in the layers above one: see the module's description.
pub struct Suffix(Form);

#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum Form {
    Tensors(TensorSuffix),
    Host(HostSuffix),
}

/// As a rectangle.
struct TensorSuffix {
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

/// One behind the other.
struct HostSuffix {
    layer: usize,
    /// Hidden state after the layer from each row's start on, `[tokens, d]`.
    hidden: Vec<f32>,
    /// The token of each row that vectors are added to, counted from its first.
    marks: Vec<usize>,
    /// Position of each row's first token.
    starts: Vec<usize>,
    /// Tokens of each row.
    lengths: Vec<usize>,
    /// Keys and values of earlier positions: of each layer above, of each row.
    past: Vec<Vec<Arc<Past>>>,
    shape: Shape,
    rows: HostRows,
}

/// A run of a [`Suffix`], by which gradients find back.
pub struct Run(RunForm);

#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum RunForm {
    Tensors { added: Tensor<2>, hidden: Activations },
    Host { hidden: Vec<f32>, kept: KeptOf },
}

/// Of each layer above, its number and what its block kept.
type KeptOf = Vec<(usize, Kept)>;

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
        see: impl FnMut(usize, &BlockOutput) -> Result<(), ModelError>,
    ) -> Result<(Suffix, Activations), ModelError> {
        self.config().check_layer(layer)?;
        if self.kernels {
            let (suffix, last) = HostSuffix::new(self, rows, starts, marks, layer, see)?;
            Ok((Suffix(Form::Host(suffix)), last))
        } else {
            let (suffix, last) = TensorSuffix::new(self, rows, starts, marks, layer, see)?;
            Ok((Suffix(Form::Tensors(suffix)), last))
        }
    }
}

impl Suffix {
    /// Runs the suffixes with `added` `[rows, d]`, a vector for each row, added at its mark; the hidden state after the last block, and
    /// the way back.
    ///
    /// # Errors
    /// What reading a streamed block failed at: see [`Decoder::hold`].
    pub fn run(&self, decoder: &Decoder, added: Tensor<2>) -> Result<(Activations, Run), ModelError> {
        match &self.0 {
            Form::Tensors(suffix) => {
                let added = added.autodiff().require_grad();
                let hidden = suffix.run(decoder, added.clone())?;
                let plain = Activations(hidden.0.clone().without_autodiff());
                Ok((plain, Run(RunForm::Tensors { added, hidden })))
            }
            Form::Host(suffix) => {
                let (hidden, kept) = suffix.run(decoder, added)?;
                let activations = Activations(tensor_of(hidden.clone(), decoder.config().hidden));
                Ok((activations, Run(RunForm::Host { hidden, kept })))
            }
        }
    }

    /// The gradient with respect to what was added, `[rows, d]`, given the one with respect to what the head reads at `places`, `slope`
    /// `[places, d]`, in a run of this suffix.
    ///
    /// # Errors
    /// What reading a streamed block failed at; what the device failed at.
    pub fn back(
        &self,
        decoder: &Decoder,
        run: Run,
        places: &Places,
        slope: Tensor<2>,
    ) -> Result<Tensor<2>, ModelError> {
        match (&self.0, run.0) {
            (Form::Host(suffix), RunForm::Host { hidden, kept }) => suffix.back(decoder, hidden, kept, places, slope),
            (_, RunForm::Tensors { added, hidden }) => {
                // With the slope as a constant, this has exactly that gradient; its value means nothing.
                let total = (decoder.final_norm(hidden.at(places)) * slope).sum();
                let zeros = added.clone().without_autodiff().zeros_like();
                Ok(added.grad_remove(&mut total.backward()).unwrap_or(zeros))
            }
            (Form::Tensors(_), RunForm::Host { .. }) => Err(ModelError::Readback("a run of another suffix".into())),
        }
    }

    /// Tokens of rows, as pairs of row and position in the whole text, none before the row's start.
    pub fn places(&self, decoder: &Decoder, tokens: impl IntoIterator<Item = (usize, usize)>) -> Places {
        let (starts, shape) = match &self.0 {
            Form::Tensors(suffix) => (&suffix.starts, &suffix.frame.shape),
            Form::Host(suffix) => (&suffix.starts, &suffix.shape),
        };
        let tokens = tokens.into_iter().map(|(row, position)| (row, position - starts[row]));
        shape.places(tokens, &decoder.device().without_autodiff())
    }

    /// Some of the rows, by number.
    #[must_use]
    pub fn keep(&self, decoder: &Decoder, rows: &[usize]) -> Self {
        Self(match &self.0 {
            Form::Tensors(suffix) => Form::Tensors(suffix.keep(rows)),
            Form::Host(suffix) => Form::Host(suffix.keep(decoder, rows)),
        })
    }
}

impl HostSuffix {
    fn new(
        decoder: &Decoder,
        rows: &Rows,
        starts: Vec<usize>,
        marks: &[usize],
        layer: usize,
        mut see: impl FnMut(usize, &BlockOutput) -> Result<(), ModelError>,
    ) -> Result<(Self, Activations), ModelError> {
        let config = decoder.config();
        let shape = &rows.frame.shape;
        let (mut hidden, mut past) = (Vec::new(), Vec::new());
        let last = decoder.walk(rows, config.layers - 1, |at, output| {
            see(at, output)?;
            if at == layer {
                let d = config.hidden;
                let all = Numbers::of(output.hidden.0.clone()).ok_or_else(elsewhere)?;
                for (row, (&start, &length)) in starts.iter().zip(rows.lengths()).enumerate() {
                    let first = shape.cell(row, 0);
                    hidden.extend_from_slice(&all.slice()[(first + start) * d..(first + length) * d]);
                }
            } else if at > layer {
                let Kv::Host(qkv) = &output.kv else { return Err(elsewhere()) };
                let heads = heads(config, at);
                let of_row = |(row, &start): (usize, &usize)| {
                    let first = shape.cell(row, 0) * heads.width();
                    let mut past = Past::new();
                    past.append(&qkv[first..first + start * heads.width()], &heads);
                    Arc::new(past)
                };
                past.push(starts.iter().enumerate().map(of_row).collect());
            }
            Ok(())
        })?;
        let lengths: Vec<usize> = rows.lengths().iter().zip(&starts).map(|(length, start)| length - start).collect();
        let marks = marks.iter().zip(&starts).map(|(mark, start)| mark - start).collect();
        Ok((Self::of(decoder, layer, hidden, (marks, starts, lengths), past), last))
    }

    fn of(
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

    fn run(&self, decoder: &Decoder, added: Tensor<2>) -> Result<(Vec<f32>, KeptOf), ModelError> {
        let config = decoder.config();
        let d = config.hidden;
        let added = Numbers::of(added).ok_or_else(elsewhere)?;
        let mut hidden = self.hidden.clone();
        for (row, &mark) in self.marks.iter().enumerate() {
            let cell = self.shape.cell(row, mark);
            let added = &added.slice()[row * d..][..d];
            hidden[cell * d..][..d].iter_mut().zip(added).for_each(|(x, added)| *x += added);
        }
        let mut kept = Vec::new();
        for (layer, past) in (self.layer + 1..).zip(&self.past) {
            decoder.meter.block(self.shape.cells(), 0);
            let lent = decoder.lend(layer)?;
            let block = HostBlock::of(&lent).ok_or_else(elsewhere)?;
            let batch = self.rows.batch(config, layer, past.iter().map(AsRef::as_ref));
            let (after, of_block) = block.run_kept(config, layer, hidden, &batch);
            hidden = after;
            kept.push((layer, of_block));
        }
        Ok((hidden, kept))
    }

    fn back(
        &self,
        decoder: &Decoder,
        hidden: Vec<f32>,
        kept: KeptOf,
        places: &Places,
        slope: Tensor<2>,
    ) -> Result<Tensor<2>, ModelError> {
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
        for ((layer, kept), past) in kept.into_iter().zip(&self.past).rev() {
            let lent = decoder.lend(layer)?;
            let block = HostBlock::of(&lent).ok_or_else(elsewhere)?;
            let batch = self.rows.batch(config, layer, past.iter().map(AsRef::as_ref));
            at_hidden = block.back(config, layer, kept, at_hidden, &batch);
        }
        let marks = self.marks.iter().enumerate().map(|(row, &mark)| self.shape.cell(row, mark));
        let at_added = marks.flat_map(|cell| at_hidden[cell * d..][..d].iter().copied()).collect();
        Ok(tensor_of(at_added, d))
    }

    fn keep(&self, decoder: &Decoder, rows: &[usize]) -> Self {
        let d = self.hidden.len() / self.shape.cells().max(1);
        let cells = |row: usize| self.shape.cell(row, 0) * d..(self.shape.cell(row, 0) + self.lengths[row]) * d;
        let hidden = rows.iter().flat_map(|&row| self.hidden[cells(row)].iter().copied()).collect();
        let some = |of: &[usize]| rows.iter().map(|&row| of[row]).collect::<Vec<_>>();
        let past = self.past.iter().map(|past| rows.iter().map(|&row| Arc::clone(&past[row])).collect()).collect();
        Self::of(decoder, self.layer, hidden, (some(&self.marks), some(&self.starts), some(&self.lengths)), past)
    }
}

/// Weights or activations that kernels cannot look at, in a decoder whose weights they can.
pub(crate) fn elsewhere() -> ModelError {
    ModelError::Readback("numbers that are not in this machine's memory".into())
}

impl TensorSuffix {
    fn new(
        decoder: &Decoder,
        rows: &Rows,
        starts: Vec<usize>,
        marks: &[usize],
        layer: usize,
        mut see: impl FnMut(usize, &BlockOutput) -> Result<(), ModelError>,
    ) -> Result<(Self, Activations), ModelError> {
        let config = decoder.config();
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
        let last = decoder.walk(rows, config.layers - 1, |at, output| {
            see(at, output)?;
            if at == layer {
                hidden = Some(output.hidden.0.clone().select(0, suffix_cells.clone()));
            }
            if at > layer && before > 0 {
                let Kv::Tensors(kv) = &output.kv else { return Err(elsewhere()) };
                past.push(KeyValues {
                    keys: realigned(&kv.keys, &past_cells, [count, before]),
                    values: realigned(&kv.values, &past_cells, [count, before]),
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
        let suffix = Self {
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
        };
        Ok((suffix, last))
    }
}

impl TensorSuffix {
    /// What is tracked by autodiff in `added` is tracked in the result.
    fn run(&self, decoder: &Decoder, added: Tensor<2>) -> Result<Activations, ModelError> {
        let [count, seq, d] = self.hidden.dims();
        let shift = added.reshape([count, 1, d]) * self.mark.clone();
        let mut hidden = (self.hidden.clone() + shift).reshape([count * seq, d]);
        for layer in self.layer + 1..decoder.config().layers {
            let past = self.past.get(layer - self.layer - 1);
            hidden = decoder.run(&*decoder.lend(layer)?, layer, &self.frame, hidden, past).hidden.0;
        }
        Ok(Activations(hidden))
    }

    fn keep(&self, rows: &[usize]) -> Self {
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
pub(crate) fn realigned(x: &Tensor<4>, cells: &Tensor<1, Int>, [rows, width]: [usize; 2]) -> Tensor<4> {
    let [batch, heads, seq, dim] = x.dims();
    x.clone()
        .swap_dims(1, 2)
        .reshape([batch * seq, heads * dim])
        .select(0, cells.clone())
        .reshape([rows, width, heads, dim])
        .swap_dims(1, 2)
}
