//! Runs of a text in which some values are those of another run: what causal tracing asks for.
//!
//! A text runs once as it is and several times with noise on the embeddings of some of its tokens. Then it is asked thousands of times what
//! a noisy run would say if one token had, in some layer, the value of the clean run. Most of such a run is the noisy one again, and is not
//! computed: no token before the restored one can see it, so that their keys and values in all layers are the noisy run's, which were kept;
//! and nothing below the layer depends on it. What is left are the tokens from the restored one on, in the layers above; in the last layer,
//! the tokens alone that the head reads. Where the outputs of a part are restored in a window of layers, its first layer changes the restored
//! token alone. What makes no difference to what is read is not run ([`Restored::effective`]).
//!
//! Runs that restore the same token have the same length and the same past, whatever the layer: they go through the blocks together, and
//! each joins them at its own layer. By kernels that gives the bits of whole runs; by the tensor library the rows are a rectangle.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use palinode_kernels::{Batch, Past, Pins as HostPins, Rotation as HostRotation, Row};

use crate::batch::rows::{Activations, Frame, RowForm, Rows, Shape, indices};
use crate::decoder::block::{Block, BlockOutput, KeyValues, Kv, Pin, Pins};
use crate::decoder::host::{HostBlock, elsewhere, heads};
use crate::decoder::rotation::{Both, of_layer};
use crate::decoder::suffix::realigned;
use crate::device::cat::cat;
use crate::device::numbers::{Numbers, rows as tensor_of};
use crate::{Decoder, ModelError, Visit, worker_pool};

/// Bytes of hidden states that go through streamed blocks together, at most.
const WAITING: usize = 512 << 20;

/// A part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// What attention adds.
    Attention,
    /// What the down-projection gives, which the feed-forward adds, behind a norm or multiplied where there is one.
    FeedForward,
}

/// What of one token is the clean run's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Restored {
    /// The hidden state after a layer. Of `severed`, the token's outputs stay those of the noisy run in every layer.
    Hidden {
        /// The layer.
        layer: usize,
        /// The part that is severed.
        severed: Option<Part>,
    },
    /// The outputs of a part in some layers.
    Outputs {
        /// The part.
        part: Part,
        /// The layers.
        layers: Range<usize>,
    },
}

impl Restored {
    /// The first layer whose outputs differ from those of the noisy run.
    fn first(&self) -> usize {
        match self {
            Self::Hidden { layer, .. } => *layer,
            Self::Outputs { layers, .. } => layers.start,
        }
    }

    fn in_parts(&self) -> bool {
        matches!(self, Self::Outputs { .. })
    }

    /// The same without what makes no difference, in a model of so many layers; `read` says whether the head reads the token itself. `None`
    /// where nothing that is read can differ from the noisy run. Equal answers are equal runs.
    #[must_use]
    pub fn effective(&self, layers: usize, read: bool) -> Option<Self> {
        // Of a token that is not read, nothing sees what the last layer adds to it.
        let end = if read { layers } else { layers.saturating_sub(1) };
        match self {
            Self::Hidden { layer, severed } => {
                let above = severed.filter(|_| layer + 1 < end);
                (*layer < end).then_some(Self::Hidden { layer: *layer, severed: above })
            }
            Self::Outputs { part, layers } => {
                let layers = layers.start..layers.end.min(end);
                (!layers.is_empty()).then_some(Self::Outputs { part: *part, layers })
            }
        }
    }

    /// Whether a layer's output of a part is given, and whether by the clean run.
    fn pins(&self, layer: usize, part: Part) -> Option<bool> {
        match self {
            Self::Hidden { layer: restored, severed } => (*severed == Some(part) && layer > *restored).then_some(false),
            Self::Outputs { part: of, layers } => (*of == part && layers.contains(&layer)).then_some(true),
        }
    }
}

/// A text with noise for some of its tokens.
#[derive(Clone, Debug)]
pub struct NoisyText {
    /// The text.
    pub tokens: Vec<u32>,
    /// The tokens that noise is added to.
    pub noisy: Range<usize>,
    /// For each noisy run, what is added to the embeddings of those tokens, `[tokens, d]`.
    pub noise: Vec<Vec<f32>>,
    /// The positions after which the head is read, rising.
    pub reads: Vec<usize>,
}

/// A text's runs: as it is, and with each noise. All values of all layers are kept.
pub struct Runs {
    length: usize,
    reads: Vec<usize>,
    /// Before the first layer, and after each.
    hidden: Vec<Tensor<2>>,
    attention: Vec<Tensor<2>>,
    mlp: Vec<Tensor<2>>,
    kv: Vec<Kv>,
}

/// A run to be made: run `noise` of a text, with something of one token restored.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which of the texts.
    pub text: usize,
    /// Which of its noises.
    pub noise: usize,
    /// The token, none after the first that is read.
    pub token: usize,
    /// What of it, as [`Restored::effective`] gives it.
    pub restored: Restored,
}

impl Decoder {
    /// Runs texts clean and with each of their noises, `most` texts at the same time.
    ///
    /// # Errors
    /// What the device failed at; what reading a streamed block failed at.
    pub fn noisy_runs(&self, texts: &[NoisyText], most: usize) -> Result<Vec<Runs>, ModelError> {
        let visits = texts.iter().map(|text| Keeping { text, runs: None }).collect();
        self.visit_all(visits, self.config().layers - 1, most)
    }

    /// Makes the runs that are asked for; what `finish` makes of them, in their order. Runs of one text and token go together, in groups of
    /// at most `tokens` tokens. `finish` is given the text of a group and the hidden states after the last block, for each run one at each of
    /// the text's reads, `[runs · reads, d]`, and answers one for each run.
    ///
    /// # Errors
    /// What the device failed at; what reading a streamed block failed at; what `finish` answers.
    pub fn restored_runs<T: Send>(
        &self,
        runs: &[Runs],
        asked: &[Asked],
        tokens: usize,
        finish: impl Fn(usize, Tensor<2>) -> Result<Vec<T>, ModelError> + Sync,
    ) -> Result<Vec<T>, ModelError> {
        let layers = self.config().layers;
        let mut order: Vec<usize> = (0..asked.len()).collect();
        // Of rows that join at a layer, those that it is computed for come last: they are computed together.
        let key = |of: &Asked| (of.text, of.token, of.restored.first(), of.restored.in_parts());
        order.sort_by_key(|&i| (key(&asked[i]), i));
        let mut groups: Vec<Group<'_>> = Vec::new();
        for i in order {
            let Asked { text, token, .. } = asked[i];
            let length = runs[text].length - token;
            let fits = |group: &Group<'_>| {
                (group.text, group.token) == (text, token) && (group.rows.len() + 1) * length <= tokens
            };
            if !groups.last().is_some_and(fits) {
                groups.push(Group::new(&runs[text], text, token));
            }
            if let Some(group) = groups.last_mut() {
                group.rows.push(&asked[i]);
                group.numbers.push(i);
            }
        }
        let done = |group: Group<'_>| -> Result<Vec<(usize, T)>, ModelError> {
            let found = finish(group.text, group.state.tensor(self.config().hidden))?;
            Ok(group.numbers.into_iter().zip(found).collect())
        };
        let mut found: Vec<(usize, T)> = Vec::with_capacity(asked.len());
        if self.streams() {
            let most = WAITING / (self.config().hidden * size_of::<f32>()).max(1);
            while !groups.is_empty() {
                let mut cells = 0;
                let pass = groups.iter().take_while(|group| {
                    cells += group.cells();
                    cells <= most
                });
                let rest = groups.split_off(pass.count().max(1));
                let mut pass = std::mem::replace(&mut groups, rest);
                let first = pass.iter().map(Group::first).min().unwrap_or(0);
                for layer in first..layers {
                    let block = self.lend(layer)?;
                    self.in_parallel(pass.iter_mut().collect(), worker_pool::MOST, |group| {
                        group.step(self, layer, &block)
                    })?;
                }
                found.extend(self.in_parallel(pass, worker_pool::MOST, done)?.into_iter().flatten());
            }
        } else {
            let all = self.in_parallel(groups, worker_pool::MOST, |mut group| {
                for layer in group.first()..layers {
                    group.step(self, layer, &*self.lend(layer)?)?;
                }
                done(group)
            })?;
            found.extend(all.into_iter().flatten());
        }
        found.sort_by_key(|(i, _)| *i);
        Ok(found.into_iter().map(|(_, found)| found).collect())
    }
}

impl Runs {
    /// What the head reads, `[runs · reads, d]` before the final norm: of the clean run first, then of each noisy one.
    pub fn read(&self) -> Tensor<2> {
        let last = &self.hidden[self.hidden.len() - 1];
        let runs = last.dims()[0] / self.length.max(1);
        let cells = (0..runs).flat_map(|run| self.reads.iter().map(move |read| self.cell(run, *read) as i32));
        last.clone().select(0, indices(cells.collect(), &last.device()))
    }

    fn cell(&self, run: usize, position: usize) -> usize {
        run * self.length + position
    }
}

/// A text on its way through its runs.
struct Keeping<'a> {
    text: &'a NoisyText,
    runs: Option<Runs>,
}

impl Visit for Keeping<'_> {
    type Found = Runs;

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let NoisyText { tokens, noisy, noise, reads } = self.text;
        let rows = decoder.rows(&vec![tokens; 1 + noise.len()]);
        let places = (1..=noise.len()).flat_map(|run| noisy.clone().map(move |position| (run, position)));
        let values = TensorData::new(noise.concat(), [noise.len() * noisy.len(), decoder.config().hidden]);
        let places = rows.places(places);
        let rows = rows.added(places, Tensor::from_data(values, &decoder.device().without_autodiff()));
        let hidden = vec![decoder.embed(&rows).0];
        let (attention, mlp, kv) = (Vec::new(), Vec::new(), Vec::new());
        self.runs = Some(Runs { length: tokens.len(), reads: reads.clone(), hidden, attention, mlp, kv });
        rows
    }

    fn see(&mut self, _: usize, output: &BlockOutput) -> Result<(), ModelError> {
        if let Some(runs) = &mut self.runs {
            runs.hidden.push(output.hidden.0.clone());
            runs.attention.push(output.attention.0.clone());
            runs.mlp.push(output.mlp.0.clone());
            runs.kv.push(output.kv.clone());
        }
        Ok(())
    }

    fn finish(self, _: &Decoder, _: &Activations) -> Result<Runs, ModelError> {
        self.runs.ok_or_else(elsewhere)
    }
}

/// Runs that restore the same token of the same text, by rising first layer.
struct Group<'a> {
    runs: &'a Runs,
    text: usize,
    token: usize,
    rows: Vec<&'a Asked>,
    /// Of each, its number among those asked for.
    numbers: Vec<usize>,
    /// How many are on their way.
    joined: usize,
    state: State,
    rotation: Option<Both<HostRotation>>,
}

/// Hidden states of the runs on their way: of each its tokens from the restored one on; after the last layer, those that are read.
#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
enum State {
    None,
    Host(Vec<f32>),
    Tensor(Tensor<2>),
}

impl State {
    fn tensor(self, size: usize) -> Tensor<2> {
        match self {
            Self::None => tensor_of(Vec::new(), size),
            Self::Host(values) => tensor_of(values, size),
            Self::Tensor(tensor) => tensor,
        }
    }
}

impl<'a> Group<'a> {
    fn new(runs: &'a Runs, text: usize, token: usize) -> Self {
        let (rows, numbers) = (Vec::new(), Vec::new());
        Self { runs, text, token, rows, numbers, joined: 0, state: State::None, rotation: None }
    }

    fn first(&self) -> usize {
        self.rows.first().map_or(0, |row| row.restored.first())
    }

    /// Tokens of a run.
    fn length(&self) -> usize {
        self.runs.length - self.token
    }

    fn cells(&self) -> usize {
        self.rows.len() * self.length()
    }

    /// The rows that join at a layer.
    fn joining(&self, layer: usize) -> Range<usize> {
        let more = self.rows[self.joined..].iter().take_while(|row| row.restored.first() == layer).count();
        self.joined..self.joined + more
    }

    /// Those of them that restore outputs: the last ones.
    fn in_parts(&self, joining: &Range<usize>) -> Range<usize> {
        let whole = self.rows[joining.clone()].iter().take_while(|row| !row.restored.in_parts()).count();
        joining.start + whole..joining.end
    }

    /// The cells of the runs that a part's output comes from where it is given in a layer: pairs of the row's number and the cell.
    fn given(&self, rows: Range<usize>, layer: usize, part: Part) -> Vec<(usize, usize)> {
        let given = rows.clone().zip(&self.rows[rows]).filter_map(|(number, row)| {
            let clean = row.restored.pins(layer, part)?;
            Some((number, self.runs.cell(if clean { 0 } else { 1 + row.noise }, self.token)))
        });
        given.collect()
    }

    fn step(&mut self, decoder: &Decoder, layer: usize, block: &Block) -> Result<(), ModelError> {
        match &self.runs.kv[layer] {
            Kv::Host(qkv) => self.step_host(decoder, layer, block, qkv),
            Kv::Tensors(kv) => {
                self.step_tensors(decoder, layer, block, kv);
                Ok(())
            }
        }
    }

    fn step_host(&mut self, decoder: &Decoder, layer: usize, block: &Block, qkv: &[f32]) -> Result<(), ModelError> {
        let config = decoder.config();
        let (d, length) = (config.hidden, self.length());
        let joining = self.joining(layer);
        let host = HostLayer::of(self, decoder, layer, block, (qkv, joining.end))?;
        // What the rows are looked at for: all of their tokens, or at the end those that are read.
        let looked: Vec<usize> = if layer + 1 == config.layers {
            self.runs.reads.iter().map(|read| read - self.token).collect()
        } else {
            (0..length).collect()
        };
        let mut state = match std::mem::replace(&mut self.state, State::None) {
            State::Host(old) if self.joined > 0 => {
                let rotation =
                    self.rotation.take().unwrap_or_else(|| decoder.host_rotation(self.positions(self.joined)));
                let only: Option<Vec<usize>> = (looked.len() < length)
                    .then(|| (0..self.joined).flat_map(|row| looked.iter().map(move |at| row * length + at)).collect());
                let first = (looked.first() == Some(&0)).then_some(looked.len());
                let state = host.run(self, &old, 0..self.joined, (length, first), &rotation, only.as_deref());
                self.rotation = Some(rotation);
                state
            }
            _ => Vec::new(),
        };
        // Where outputs are restored, the first layer of the window changes the token alone.
        let parts = self.in_parts(&joining);
        let computed = if parts.is_empty() {
            Vec::new()
        } else {
            let own = self.rows[parts.clone()].iter().map(|row| self.runs.cell(1 + row.noise, self.token) * d);
            let x: Vec<f32> = own.flat_map(|cell| &host.before.slice()[cell..][..d]).copied().collect();
            let rotation = decoder.host_rotation(parts.clone().map(|_| self.token));
            host.run(self, &x, parts.clone(), (1, Some(1)), &rotation, None)
        };
        for row in joining.clone() {
            let own = 1 + self.rows[row].noise;
            let first = match row.checked_sub(parts.start) {
                Some(at) => &computed[at * d..][..d],
                None => &host.after.slice()[self.runs.cell(0, self.token) * d..][..d],
            };
            for &at in &looked {
                match at {
                    0 => state.extend_from_slice(first),
                    _ => state.extend_from_slice(&host.after.slice()[self.runs.cell(own, self.token + at) * d..][..d]),
                }
            }
        }
        if !joining.is_empty() {
            self.rotation = None;
        }
        self.joined = joining.end;
        self.state = State::Host(state);
        Ok(())
    }

    /// The positions of so many rows' tokens.
    fn positions(&self, rows: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let (token, length) = (self.token, self.runs.length);
        (0..rows).flat_map(move |_| token..length)
    }

    fn step_tensors(&mut self, decoder: &Decoder, layer: usize, block: &Block, kv: &KeyValues) {
        let (length, token) = (self.length(), self.token);
        let joining = self.joining(layer);
        let after = &self.runs.hidden[layer + 1];
        let device = after.device();
        let mut parts = Vec::new();
        if let State::Tensor(old) = std::mem::replace(&mut self.state, State::None) {
            let pins = self.tensor_pins(layer, 0..self.joined, length);
            parts.push(self.run_tensors(decoder, (layer, block), old, (kv, 0..self.joined, length), &pins));
        }
        if !joining.is_empty() {
            // The cells behind those of the kept runs are the tokens that are computed here.
            let kept = after.dims()[0];
            let mut from = vec![after.clone()];
            let alone = self.in_parts(&joining);
            if !alone.is_empty() {
                let cells = self.rows[alone.clone()].iter().map(|row| self.runs.cell(1 + row.noise, token) as i32);
                let x = self.runs.hidden[layer].clone().select(0, indices(cells.collect(), &device));
                let pins = self.tensor_pins(layer, alone.clone(), 1);
                from.push(self.run_tensors(decoder, (layer, block), x, (kv, alone.clone(), 1), &pins));
            }
            let cells = joining.clone().flat_map(|row| {
                let own = self.runs.cell(1 + self.rows[row].noise, token);
                let first = row.checked_sub(alone.start).map_or(self.runs.cell(0, token), |at| kept + at);
                std::iter::once(first).chain(own + 1..own + length)
            });
            let cells = indices(cells.map(|cell| cell as i32).collect(), &device);
            parts.push(cat(from, 0).select(0, cells));
        }
        self.joined = joining.end;
        let mut state = cat(parts, 0);
        if layer + 1 == decoder.config().layers {
            let reads = &self.runs.reads;
            let at = |row: usize| reads.iter().map(move |read| (row * length + read - token) as i32);
            let cells = (0..self.joined).flat_map(at);
            state = state.select(0, indices(cells.collect(), &device));
        }
        self.state = State::Tensor(state);
    }

    /// What is given to rows of so many tokens, each at its first.
    fn tensor_pins(&self, layer: usize, rows: Range<usize>, length: usize) -> Pins {
        let pin = |part: Part, of: &Tensor<2>| {
            let given = self.given(rows.clone(), layer, part);
            let (cells, d) = (rows.len() * length, of.dims()[1]);
            let device = of.device();
            let mut keep = vec![1f32; cells];
            // The row of the given values for each cell; the last one is 0.
            let mut source = vec![given.len() as i32; cells];
            for (at, (row, _)) in given.iter().enumerate() {
                keep[(row - rows.start) * length] = 0.0;
                source[(row - rows.start) * length] = at as i32;
            }
            let values = indices(given.iter().map(|(_, cell)| *cell as i32).collect(), &device);
            (!given.is_empty()).then(|| Pin {
                keep: Tensor::from_data(TensorData::new(keep, [cells, 1]), &device),
                values: cat(vec![of.clone().select(0, values), Tensor::zeros([1, d], &device)], 0)
                    .select(0, indices(source, &device)),
            })
        };
        Pins {
            attention: pin(Part::Attention, &self.runs.attention[layer]),
            mlp: pin(Part::FeedForward, &self.runs.mlp[layer]),
        }
    }

    fn run_tensors(
        &self,
        decoder: &Decoder,
        (layer, block): (usize, &Block),
        x: Tensor<2>,
        (kv, rows, length): (&KeyValues, Range<usize>, usize),
        pins: &Pins,
    ) -> Tensor<2> {
        let token = self.token;
        let past = (token > 0).then(|| {
            let own = self.rows[rows.clone()].iter().map(|row| 1 + row.noise);
            let cells = own.flat_map(|run| (0..token).map(move |at| self.runs.cell(run, at) as i32)).collect();
            let cells: Tensor<1, Int> = indices(cells, &x.device());
            KeyValues {
                keys: realigned(&kv.keys, &cells, [rows.len(), token]),
                values: realigned(&kv.values, &cells, [rows.len(), token]),
            }
        });
        let positions = [(token..token + length).collect()];
        let frame = Frame {
            shape: Shape::new(vec![length; rows.len()], RowForm::Padded),
            rotation: decoder.rotation(&positions),
            positions: positions.to_vec(),
            masks: vec![None],
            host: None,
        };
        decoder.run_pinned(block, layer, &frame, x, past.as_ref(), pins).hidden.0
    }
}

/// What rows need of a layer, by kernels.
struct HostLayer<'a> {
    decoder: &'a Decoder,
    layer: usize,
    block: Arc<HostBlock>,
    /// Of the kept runs: hidden states before and after the layer, and what its parts add.
    before: Numbers,
    after: Numbers,
    attention: Numbers,
    mlp: Numbers,
    /// Of each noise, the keys and values of the tokens before the restored one.
    pasts: Vec<Option<Past>>,
}

impl<'a> HostLayer<'a> {
    /// For the first `rows` of a group.
    fn of(
        group: &Group<'_>,
        decoder: &'a Decoder,
        layer: usize,
        block: &Block,
        (qkv, rows): (&[f32], usize),
    ) -> Result<Self, ModelError> {
        let numbers = |of: &Tensor<2>| Numbers::of(of.clone()).ok_or_else(elsewhere);
        let heads = heads(decoder.config(), layer);
        let noises = group.rows.iter().map(|row| row.noise + 1).max().unwrap_or(0);
        let mut pasts = vec![None; noises];
        for row in &group.rows[..rows] {
            pasts[row.noise].get_or_insert_with(|| {
                let first = group.runs.cell(1 + row.noise, 0) * heads.width();
                let mut past = Past::new();
                past.append(&qkv[first..first + group.token * heads.width()], &heads);
                past
            });
        }
        Ok(Self {
            decoder,
            layer,
            block: decoder.host_block(layer, block).ok_or_else(elsewhere)?,
            before: numbers(&group.runs.hidden[layer])?,
            after: numbers(&group.runs.hidden[layer + 1])?,
            attention: numbers(&group.runs.attention[layer])?,
            mlp: numbers(&group.runs.mlp[layer])?,
            pasts,
        })
    }

    /// Runs some rows of a group, of `length` tokens each, `x` `[rows · length, d]`; at the cells `only` where some are named. Restored tokens
    /// are the first of their rows: `first` says how far apart they lie in what is computed, where they are computed.
    fn run(
        &self,
        group: &Group<'_>,
        x: &[f32],
        rows: Range<usize>,
        (length, first): (usize, Option<usize>),
        rotation: &Both<HostRotation>,
        only: Option<&[usize]>,
    ) -> Vec<f32> {
        let config = self.decoder.config();
        let d = config.hidden;
        let pins = |part: Part, of| {
            let given = if first.is_some() { group.given(rows.clone(), self.layer, part) } else { Vec::new() };
            let of: &'_ [f32] = of;
            let at = |row: usize| (row - rows.start) * first.unwrap_or(0);
            given.into_iter().map(|(row, cell)| (at(row), &of[cell * d..(cell + 1) * d])).collect()
        };
        let pins = HostPins {
            attention: pins(Part::Attention, self.attention.slice()),
            mlp: pins(Part::FeedForward, self.mlp.slice()),
        };
        let rows = group.rows[rows].iter().enumerate().map(|(number, row)| Row {
            past: self.pasts[row.noise].as_ref(),
            stem: number * length..(number + 1) * length,
            ways: Vec::new(),
        });
        let batch = Batch { rows: rows.collect(), rotation: of_layer(rotation, config, self.layer) };
        self.decoder.meter.block(x.len() / d, 0);
        self.block.run_pinned(config, self.layer, x, &batch, &pins, only)
    }
}
