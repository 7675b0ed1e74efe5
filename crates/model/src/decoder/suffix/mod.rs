//! The part of a computation that a vector added in the middle of it can change.
//!
//! A target search adds a vector δ to one token's hidden state after one layer, dozens of times, and asks each time what the model then
//! says. Two things keep most of the computation as it was. Nothing up to that layer depends on δ. And attention is causal: no token
//! before that one sees it, in any layer, so that their keys and values in the layers above never change. What is left to compute in each
//! step is the *suffix*: the tokens from that one on, in the layers above, which attend to the kept keys and values of the tokens before.
//! For a fact in the middle of a prompt and a layer in the first third of the model that is about a fifth of the whole, and so is what
//! the way back has to remember and go through.
//!
//! By kernels, suffixes lie one behind the other. By the tensor library, they are a rectangle. Many suffixes go through each block together,
//! there and back. Where blocks are streamed, a run remembers what went into each block and nothing of its inside, which the way back computes
//! again: between the two, the block was let go.

mod host;
mod tensors;

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use palinode_kernels::{Kept, Past};

use self::host::HostSuffix;
use self::tensors::TensorSuffix;
pub(crate) use self::tensors::realigned;
use crate::batch::rows::{Activations, Places, Rows, Shape};
use crate::decoder::block::{Block, BlockOutput, KeyValues, Kv};
use crate::decoder::host::{elsewhere, heads};
use crate::device::numbers::{Numbers, rows as tensor_of};
use crate::{Decoder, DecoderConfig, ModelError};

/// Rows from one of their tokens on, in the layers above one: see the module's description.
pub struct Suffix(Form);

#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum Form {
    Tensors(TensorSuffix),
    Host(HostSuffix),
}

/// A run of a [`Suffix`], by which gradients find back.
pub struct Run(RunForm);

enum RunForm {
    /// By autodiff through all blocks.
    Tensors {
        added: Tensor<2>,
        hidden: Activations,
    },
    /// What went into each block, and came out of the last.
    Inputs {
        added: Tensor<2>,
        inputs: Vec<Tensor<2>>,
        hidden: Tensor<2>,
    },
    Host {
        hidden: Vec<f32>,
        kept: Vec<KeptBlock>,
    },
}

/// What the way back through a block needs of the way there.
#[expect(clippy::large_enum_variant, reason = "there is one of it for each block")]
enum KeptBlock {
    /// All of it.
    Whole(Kept),
    /// What went in: the rest is computed again.
    Input(Vec<f32>),
}

/// What becomes a [`Suffix`] while whole rows are run once.
pub struct SuffixBuilder {
    config: DecoderConfig,
    layer: usize,
    marks: Vec<usize>,
    starts: Vec<usize>,
    shape: Shape,
    lengths: Vec<usize>,
    form: BuilderForm,
}

#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum BuilderForm {
    Tensors { seq: usize, cells: [Tensor<1, Int>; 2], hidden: Option<Tensor<2>>, past: Vec<KeyValues> },
    Host { hidden: Vec<f32>, past: Vec<Vec<Arc<Past>>> },
}

impl SuffixBuilder {
    /// Keeps what is needed to run rows again from `starts` on, above `layer`, with a vector added at each row's `marks`. Both are positions,
    /// one a row, and a row's start is no later than its mark. The model has the layer.
    pub fn new(decoder: &Decoder, rows: &Rows, starts: Vec<usize>, marks: &[usize], layer: usize) -> Self {
        let shape = rows.frame.shape.clone();
        let form = if decoder.kernels {
            BuilderForm::Host { hidden: Vec::new(), past: Vec::new() }
        } else {
            let (seq, cells) = TensorSuffix::begin(rows, &starts);
            BuilderForm::Tensors { seq, cells, hidden: None, past: Vec::new() }
        };
        let config = decoder.config().clone();
        let lengths = rows.lengths().to_vec();
        Self { config, layer, marks: marks.to_vec(), starts, shape, lengths, form }
    }

    /// Sees what a layer's block computed; the layers come in their order, to the last.
    ///
    /// # Errors
    /// What the device failed at.
    pub fn see(&mut self, at: usize, output: &BlockOutput) -> Result<(), ModelError> {
        let Self { config, layer, starts, shape, lengths, form, .. } = self;
        match form {
            BuilderForm::Tensors { seq: _, cells: [past_cells, suffix_cells], hidden, past } => {
                let before = starts.iter().copied().max().unwrap_or(0);
                if at == *layer {
                    *hidden = Some(output.hidden.0.clone().select(0, suffix_cells.clone()));
                }
                if at > *layer && before > 0 {
                    let Kv::Tensors(kv) = &output.kv else { return Err(elsewhere()) };
                    past.push(KeyValues {
                        keys: realigned(&kv.keys, past_cells, [lengths.len(), before]),
                        values: realigned(&kv.values, past_cells, [lengths.len(), before]),
                    });
                }
            }
            BuilderForm::Host { hidden, past } => {
                if at == *layer {
                    let d = config.hidden;
                    let all = Numbers::of(output.hidden.0.clone()).ok_or_else(elsewhere)?;
                    for (row, (&start, &length)) in starts.iter().zip(&*lengths).enumerate() {
                        let first = shape.cell(row, 0);
                        hidden.extend_from_slice(&all.slice()[(first + start) * d..(first + length) * d]);
                    }
                } else if at > *layer {
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
            }
        }
        Ok(())
    }

    /// The suffix, once the last layer was seen.
    ///
    /// # Errors
    /// [`ModelError::Layer`] where its own was not.
    pub fn finish(self, decoder: &Decoder) -> Result<Suffix, ModelError> {
        let Self { config, layer, marks, starts, lengths, form, .. } = self;
        Ok(Suffix(match form {
            BuilderForm::Host { hidden, past } => {
                let lengths: Vec<usize> = lengths.iter().zip(&starts).map(|(length, start)| length - start).collect();
                let marks = marks.iter().zip(&starts).map(|(mark, start)| mark - start).collect();
                Form::Host(HostSuffix::of(decoder, layer, hidden, (marks, starts, lengths), past))
            }
            BuilderForm::Tensors { seq, hidden, past, .. } => {
                let hidden = hidden.ok_or(ModelError::Layer { layer, last: config.layers - 1 })?;
                Form::Tensors(TensorSuffix::of(decoder, (layer, seq), hidden, &marks, starts, past))
            }
        }))
    }
}

impl Decoder {
    /// Runs whole rows once, showing each block's output to `see`, and keeps what is needed to run them again: see
    /// [`SuffixBuilder::new`]. Returns the suffix and the hidden state after the last block.
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
        self.config().check_layer(layer)?;
        let mut builder = SuffixBuilder::new(self, rows, starts, marks, layer);
        let last = self.walk(rows, self.config().layers - 1, |at, output| {
            see(at, output)?;
            builder.see(at, output)
        })?;
        Ok((builder.finish(self)?, last))
    }

    /// Runs suffixes, each with `added` `[rows, d]`, a vector for each row, added at its mark; of each the hidden state after the last block,
    /// and the way back. All go through a block before the next one is asked for, at most `most` at the same time.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn run_suffixes(
        &self,
        suffixes: Vec<(&Suffix, Tensor<2>)>,
        most: usize,
    ) -> Result<Vec<(Activations, Run)>, ModelError> {
        let layers = self.config().layers;
        let first = suffixes.iter().map(|(suffix, _)| suffix.layer() + 1).min().unwrap_or(layers);
        let inside = (first..layers).all(|layer| self.is_at_hand(layer));
        let mut ways = suffixes
            .into_iter()
            .map(|(suffix, added)| Ok((suffix, suffix.begin(added, inside)?)))
            .collect::<Result<Vec<_>, ModelError>>()?;
        for layer in first..layers {
            let block = self.lend(layer)?;
            self.in_parallel(ways.iter_mut().collect(), most, |(suffix, way)| suffix.step(self, layer, &block, way))?;
        }
        Ok(ways.into_iter().map(|(_, way)| Suffix::end(self, way)).collect())
    }

    /// The ways back of runs of suffixes: of each the gradient with respect to what was added, `[rows, d]`, given the one with respect to
    /// what the head reads at its places, `[places, d]`. They go through the blocks as in [`Decoder::run_suffixes`].
    ///
    /// # Errors
    /// What reading a streamed block failed at; what the device failed at.
    pub fn suffixes_back(
        &self,
        runs: Vec<(&Suffix, Run, &Places, Tensor<2>)>,
        most: usize,
    ) -> Result<Vec<Tensor<2>>, ModelError> {
        let layers = self.config().layers;
        let first = runs.iter().map(|(suffix, ..)| suffix.layer() + 1).min().unwrap_or(layers);
        let mut ways = self.in_parallel(runs, most, |(suffix, run, places, slope)| {
            Ok((suffix, Suffix::begin_back(suffix, self, run, places, slope)?))
        })?;
        for layer in (first..layers).rev() {
            if ways.iter().any(|(suffix, back)| suffix.needs(back, layer)) {
                let block = self.lend(layer)?;
                self.in_parallel(ways.iter_mut().collect(), most, |(suffix, back)| {
                    suffix.step_back(self, layer, &block, back)
                })?;
            }
        }
        Ok(ways.into_iter().map(|(suffix, back)| suffix.end_back(self, back)).collect())
    }
}

/// A suffix on its way through the blocks.
#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum Ahead {
    /// Followed by autodiff, or with what went into each block.
    Tensors {
        added: Tensor<2>,
        inputs: Option<Vec<Tensor<2>>>,
        hidden: Tensor<2>,
    },
    Host {
        hidden: Vec<f32>,
        kept: Vec<KeptBlock>,
    },
}

/// A gradient on its way back through the blocks.
#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum Back {
    /// By autodiff through all blocks at once.
    Done(Tensor<2>),
    Tensors {
        added: Tensor<2>,
        inputs: Vec<Tensor<2>>,
        slope: Tensor<2>,
    },
    Host {
        kept: Vec<KeptBlock>,
        slope: Vec<f32>,
    },
}

impl Suffix {
    /// As [`Decoder::run_suffixes`], of this one.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn run(&self, decoder: &Decoder, added: Tensor<2>) -> Result<(Activations, Run), ModelError> {
        decoder.run_suffixes(vec![(self, added)], 1)?.pop().ok_or_else(elsewhere)
    }

    /// As [`Decoder::suffixes_back`], of a run of this one.
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
        decoder.suffixes_back(vec![(self, run, places, slope)], 1)?.pop().ok_or_else(elsewhere)
    }

    fn layer(&self) -> usize {
        match &self.0 {
            Form::Tensors(suffix) => suffix.layer,
            Form::Host(suffix) => suffix.layer,
        }
    }

    /// Sets out. `inside` says whether autodiff may follow through all blocks.
    fn begin(&self, added: Tensor<2>, inside: bool) -> Result<Ahead, ModelError> {
        match &self.0 {
            Form::Tensors(suffix) => {
                let added = if inside { added.autodiff().require_grad() } else { added };
                let hidden = suffix.shifted(added.clone());
                Ok(Ahead::Tensors { added, inputs: (!inside).then(Vec::new), hidden })
            }
            Form::Host(suffix) => Ok(Ahead::Host { hidden: suffix.shifted(added)?, kept: Vec::new() }),
        }
    }

    /// Through one block, if it is above the suffix's layer.
    fn step(&self, decoder: &Decoder, layer: usize, block: &Block, ahead: &mut Ahead) -> Result<(), ModelError> {
        match (&self.0, ahead) {
            _ if layer <= self.layer() => Ok(()),
            (Form::Tensors(suffix), Ahead::Tensors { inputs, hidden, .. }) => {
                *hidden = if let Some(inputs) = inputs {
                    inputs.push(hidden.clone());
                    // Followed by autodiff, which may compute in other ways, so that the way back finds the same numbers.
                    let input = hidden.clone().autodiff().require_grad();
                    suffix.through(decoder, layer, block, input).without_autodiff()
                } else {
                    suffix.through(decoder, layer, block, hidden.clone())
                };
                Ok(())
            }
            (Form::Host(suffix), Ahead::Host { hidden, kept }) => {
                decoder.meter.block(suffix.shape.cells(), 0);
                let input = (!decoder.is_at_hand(layer)).then(|| hidden.clone());
                let (after, inside) = suffix.through(decoder, layer, block, std::mem::take(hidden))?;
                *hidden = after;
                kept.push(input.map_or_else(|| KeptBlock::Whole(inside), KeptBlock::Input));
                Ok(())
            }
            _ => Err(another()),
        }
    }

    fn end(decoder: &Decoder, ahead: Ahead) -> (Activations, Run) {
        match ahead {
            Ahead::Tensors { added, inputs: None, hidden } => {
                let plain = Activations(hidden.clone().without_autodiff());
                (plain, Run(RunForm::Tensors { added, hidden: Activations(hidden) }))
            }
            Ahead::Tensors { added, inputs: Some(inputs), hidden } => {
                (Activations(hidden.clone()), Run(RunForm::Inputs { added, inputs, hidden }))
            }
            Ahead::Host { hidden, kept } => {
                let activations = Activations(tensor_of(hidden.clone(), decoder.config().hidden));
                (activations, Run(RunForm::Host { hidden, kept }))
            }
        }
    }

    fn begin_back(
        suffix: &Self,
        decoder: &Decoder,
        run: Run,
        places: &Places,
        slope: Tensor<2>,
    ) -> Result<Back, ModelError> {
        match (&suffix.0, run.0) {
            (Form::Host(suffix), RunForm::Host { hidden, kept }) => {
                Ok(Back::Host { kept, slope: suffix.read_back(decoder, &hidden, places, slope)? })
            }
            (Form::Tensors(_), RunForm::Tensors { added, hidden }) => {
                // With the slope as a constant, this has exactly that gradient; its value means nothing.
                let total = (decoder.final_norm(hidden.at(places)) * slope).sum();
                Ok(Back::Done(gradient(added, total)))
            }
            (Form::Tensors(_), RunForm::Inputs { added, inputs, hidden }) => {
                let hidden = hidden.autodiff().require_grad();
                let total = (decoder.final_norm(Activations(hidden.clone()).at(places)) * slope).sum();
                Ok(Back::Tensors { added, inputs, slope: gradient(hidden, total) })
            }
            _ => Err(another()),
        }
    }

    /// Whether the way back goes through a layer's block.
    fn needs(&self, back: &Back, layer: usize) -> bool {
        layer > self.layer() && !matches!(back, Back::Done(_))
    }

    /// Back through one block, if it is above the suffix's layer.
    fn step_back(&self, decoder: &Decoder, layer: usize, block: &Block, back: &mut Back) -> Result<(), ModelError> {
        match (&self.0, back) {
            (_, Back::Done(_)) => Ok(()),
            _ if layer <= self.layer() => Ok(()),
            (Form::Tensors(suffix), Back::Tensors { inputs, slope, .. }) => {
                let input = inputs.pop().ok_or_else(another)?.autodiff().require_grad();
                let after = suffix.through(decoder, layer, block, input.clone());
                let total = (after * slope.clone()).sum();
                *slope = gradient(input, total);
                Ok(())
            }
            (Form::Host(suffix), Back::Host { kept, slope }) => {
                let inside = match kept.pop().ok_or_else(another)? {
                    KeptBlock::Whole(inside) => inside,
                    KeptBlock::Input(input) => suffix.through(decoder, layer, block, input)?.1,
                };
                *slope = suffix.back_through(decoder, layer, block, inside, std::mem::take(slope))?;
                Ok(())
            }
            _ => Err(another()),
        }
    }

    fn end_back(&self, decoder: &Decoder, back: Back) -> Tensor<2> {
        match (&self.0, back) {
            (Form::Tensors(suffix), Back::Tensors { added, slope, .. }) => {
                let added = added.autodiff().require_grad();
                let total = (suffix.shifted(added.clone()) * slope).sum();
                gradient(added, total)
            }
            (Form::Host(suffix), Back::Host { slope, .. }) => {
                let d = decoder.config().hidden;
                let marks = suffix.marks.iter().enumerate().map(|(row, &mark)| suffix.shape.cell(row, mark));
                let at_added = marks.flat_map(|cell| slope[cell * d..][..d].iter().copied()).collect();
                tensor_of(at_added, d)
            }
            (_, Back::Done(gradient)) => gradient,
            (Form::Host(_), Back::Tensors { slope, .. }) => slope,
            (Form::Tensors(_), Back::Host { slope, .. }) => tensor_of(slope, decoder.config().hidden),
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

/// A run of another suffix.
fn another() -> ModelError {
    ModelError::Readback("a run of another suffix".into())
}

/// The gradient of `total` with respect to `of`, of its shape.
fn gradient(of: Tensor<2>, total: Tensor<1>) -> Tensor<2> {
    let zeros = of.clone().without_autodiff().zeros_like();
    of.grad_remove(&mut total.backward()).unwrap_or(zeros)
}
