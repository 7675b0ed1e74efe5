//! The decoder: embedding, blocks, head, and the ways through them that editing needs.

pub(crate) mod block;
pub(crate) mod copies;
pub mod generate;
pub(crate) mod host;
pub(crate) mod packed;
pub(crate) mod parameters;
pub(crate) mod restore;
pub(crate) mod rotation;
pub(crate) mod said;
pub(crate) mod shared_prefix;
pub(crate) mod source;
pub(crate) mod suffix;
pub(crate) mod walk;
pub(crate) mod work;
pub mod worker_pool;

use std::ops::Range;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::batch::grouping::groups;
use crate::batch::host_rows::HostRows;
use crate::batch::rows::{Activations, Frame, RowForm, Rows};
use crate::decoder::block::{Block, BlockOutput, FeedForward, Inner, KeyValues, Norm, Pins};
use crate::decoder::copies::Copies;
use crate::decoder::host::HostBlock;
use crate::decoder::parameters::{Ends, Parameters};
use crate::decoder::rotation::{Both, Rotation, Turns};
use crate::decoder::source::{Blocks, Lent, Streaming};
use crate::decoder::work::{Meter, Work};
use crate::device::capacity::{Capacity, OutOfMemory};
use crate::device::cat::cat;
use crate::device::matmul::{matmul, project};
use crate::device::memory::MOST_STREAMED;
use crate::device::numbers::Numbers;
use crate::{Beyond, Compute, DecoderConfig, MlpModule, ModelError, Positions, WeightId};

/// A decoder-only language model.
///
/// Cloning is cheap: weights are shared, and [`Decoder::with_change`] replaces one of them without touching the
/// original.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    ends: Ends,
    blocks: Blocks,
    /// A tied head laid out for reading, `[d, V]`; the token embedding is a view of it.
    head: Option<Tensor<2>>,
    /// What queries and keys are rotated by.
    turns: Both<Turns>,
    form: RowForm,
    /// Whether kernels of our own compute where they can look at weights and activations.
    kernels: bool,
    /// What their products round factors to.
    compute: Compute,
    /// Copies of weights, for products in one of them.
    copies: Option<Arc<Copies>>,
    meter: Arc<Meter>,
    capacity: Arc<Capacity>,
}

impl Decoder {
    /// A decoder over the given weights, which may be tracked for training.
    pub fn from_parameters(config: DecoderConfig, parameters: Parameters) -> Self {
        let Parameters { token_embedding, position_embedding, embedding_norm, blocks, final_norm, head } = parameters;
        let ends = Ends { token_embedding, position_embedding, embedding_norm, final_norm, head };
        Self::new(config, ends, Blocks::resident(blocks), None)
    }

    /// A decoder whose blocks come from `blocks`; `tied` is a tied head, `[d, V]`.
    pub(crate) fn new(config: DecoderConfig, ends: Ends, blocks: Blocks, tied: Option<Tensor<2>>) -> Self {
        // Weights that autodiff follows, or that are held in fewer bits, are the tensor library's.
        let embedding = ends.token_embedding.val();
        let kernels = embedding.device() == Device::flex() && embedding.dtype() == DType::F32;
        Self {
            turns: Turns::of(&config),
            config,
            ends,
            blocks,
            head: tied,
            form: if kernels { RowForm::Packed } else { RowForm::Padded },
            kernels,
            compute: Compute::F32,
            copies: None,
            meter: Arc::default(),
            capacity: Arc::default(),
        }
    }

    /// The same model, computed by the tensor library alone, on padded rows, as it is on a GPU. Values are the same but for last digits.
    #[must_use]
    pub fn without_kernels(mut self) -> Self {
        self.kernels = false;
        self.form = RowForm::Padded;
        self
    }

    /// Whether kernels of our own compute, where they can look at weights and activations.
    pub fn has_kernels(&self) -> bool {
        self.kernels
    }

    /// The same model, whose products round both factors as `compute` says, and sum in f32: those of blocks and head with weights, forward and
    /// back. Attention's own products, norms and all else stay in f32, and so do products with a weight that an edit changed, or of a mixture's router.
    /// What the tensor library computes stays as it is: on a GPU, of weights held in fewer bits, in training, of one block's feed-forward alone
    /// ([`Decoder::after_attention`]). See [`Decoder::has_kernels`].
    #[must_use]
    pub fn with_compute(mut self, compute: Compute) -> Self {
        self.compute = compute;
        self
    }

    /// What products round factors to.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// A layer's block, which was lent, as kernels see it; none where they cannot.
    pub(crate) fn host_block(&self, layer: usize, block: &Block) -> Option<Arc<HostBlock>> {
        let copied = self.copies().and_then(|copies| copies.block(layer));
        copied.or_else(|| self.seen_block(layer, block).map(Arc::new))
    }

    /// Copies for products as this decoder computes them.
    pub(crate) fn copies(&self) -> Option<&Arc<Copies>> {
        self.copies.as_ref().filter(|copies| copies.compute() == self.compute)
    }

    /// As [`Decoder::host_block`], without copies of weights.
    pub(crate) fn seen_block(&self, layer: usize, block: &Block) -> Option<HostBlock> {
        let block = HostBlock::of(block)?;
        if self.compute.is_usual() {
            return Some(block);
        }
        Some(block.computed_in(self.compute.in_kernels(), |module| self.blocks.is_changed(layer, module)))
    }

    /// The same model, whose batches have their rows one behind the other and no padding. Values are those of padded rows but for last
    /// digits. Where kernels compute, rows are packed anyway.
    #[must_use]
    pub fn with_packed_rows(mut self) -> Self {
        self.form = RowForm::Packed;
        self
    }

    /// The same model, whose batches are never halved where the device has no memory for them ([`Decoder::within`]): for results whose bits
    /// must not depend on how much memory there is.
    #[must_use]
    pub fn with_fixed_batches(mut self) -> Self {
        self.capacity = Arc::new(Capacity::fixed());
        self
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Bytes of memory that the weights take; of streamed blocks, what is in memory at the same time.
    pub fn weight_bytes(&self) -> u64 {
        self.bytes_with(if self.streams() { MOST_STREAMED } else { self.config.layers })
    }

    /// Bytes of memory that the weights take where all blocks are in memory, whether they are here or not.
    pub fn resident_bytes(&self) -> u64 {
        self.bytes_with(self.config.layers)
    }

    /// Bytes of the weights with so many of the blocks.
    fn bytes_with(&self, blocks: usize) -> u64 {
        let held = self.ends.token_embedding.val().dtype().size() as u64;
        DecoderConfig { layers: blocks, ..self.config.clone() }.parameters() as u64 * held
    }

    /// Whether blocks are read from disk when they are asked for.
    pub fn streams(&self) -> bool {
        self.blocks.is_streamed()
    }

    /// What streaming took so far; none of a decoder whose blocks are resident.
    pub fn streaming(&self) -> Option<Streaming> {
        self.blocks.streaming()
    }

    /// The same model with the blocks of `layers` in memory for as long as it is: for work that comes back to them again and again, as a
    /// target search does with those above its layer. Resident blocks are there anyway.
    ///
    /// # Errors
    /// [`ModelError::Memory`] where they have no room; what reading them failed at.
    pub fn hold(&self, layers: Range<usize>) -> Result<Self, ModelError> {
        let mut held = self.clone();
        held.blocks.hold(layers)?;
        Ok(held)
    }

    /// As [`Decoder::hold`], of the last of these layers as many as have room in half of the memory that is free; none where the model is
    /// to take as little memory as it can.
    ///
    /// # Errors
    /// What reading them failed at.
    pub fn hold_fitting(&self, layers: Range<usize>) -> Result<Self, ModelError> {
        let mut held = self.clone();
        held.blocks.hold_fitting(layers)?;
        Ok(held)
    }

    /// Lets streamed blocks go that nobody computes with now, as at the end of a walk.
    pub fn rest(&self) {
        self.blocks.rest();
    }

    /// Whether a layer's block is in memory whenever it is asked for.
    pub(crate) fn is_at_hand(&self, layer: usize) -> bool {
        self.blocks.is_at_hand(layer)
    }

    /// The weights that are in no block.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// A layer's block.
    pub(crate) fn lend(&self, layer: usize) -> Result<Lent<'_>, ModelError> {
        self.blocks.lend(layer)
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.ends.token_embedding.val().device()
    }

    /// What was computed so far.
    pub fn work(&self) -> Work {
        self.meter.read()
    }

    /// Does `work`, which takes as its argument how large its batches may be: `asked`, in units of its own. Where the device has no
    /// memory for them, it is done again with half as many, and so is all later work on this model and its edited versions; not so after
    /// [`Decoder::with_fixed_batches`].
    ///
    /// # Errors
    /// What `work` answers; [`ModelError::OutOfMemory`] where there is no memory for a batch of one.
    pub fn within<R, E: OutOfMemory>(&self, asked: usize, work: impl FnMut(usize) -> Result<R, E>) -> Result<R, E> {
        self.capacity.within(asked, work, || self.device().memory_cleanup())
    }

    /// Groups rows of these lengths into batches of at most `tokens`, padding included; a row longer than that stands alone. Rows are
    /// taken by rising length, ties by index: the same rows always give the same groups.
    pub fn batches(&self, lengths: &[usize], tokens: usize) -> Vec<Vec<usize>> {
        groups(lengths, tokens, self.form)
    }

    /// Rows of token ids as one batch.
    pub fn rows<R: AsRef<[u32]>>(&self, rows: &[R]) -> Rows {
        self.turned(Rows::new(rows, self.form, &self.device().without_autodiff()))
    }

    /// Texts that share their beginning as one batch: each row is a prefix and what may follow it. The prefix is computed once, and each
    /// continuation as if it were alone behind it. A row's tokens are the prefix's, then those of one continuation after the other.
    ///
    /// Layers whose attention looks back over fewer positions than a row has tokens need a row for each text: see
    /// [`DecoderConfig::sees`].
    pub fn shared_prefix(&self, texts: &[(&[u32], &[Vec<u32>])]) -> Rows {
        self.turned(shared_prefix::rows(texts, self.form, &self.device().without_autodiff()))
    }

    /// New tokens of texts, and how many of each were run already. Of one text, or packed.
    fn continued(&self, texts: &[(&[u32], usize)]) -> Rows {
        let fresh: Vec<&[u32]> = texts.iter().map(|(fresh, _)| *fresh).collect();
        let mut rows = Rows::new(&fresh, self.form, &self.device().without_autodiff());
        rows.frame.positions = vec![texts.iter().flat_map(|(fresh, before)| *before..before + fresh.len()).collect()];
        self.turned(rows)
    }

    fn turned(&self, mut rows: Rows) -> Rows {
        rows.frame.rotation = self.rotation(&rows.frame.positions);
        rows.frame.host = self.kernels.then(|| {
            let positions = rows.frame.positions.iter().flatten().copied();
            Arc::new(HostRows { rows: rows.parts.clone(), rotation: self.host_rotation(positions) })
        });
        rows
    }

    /// Rotations at each row's positions, all of one number; none where positions enter otherwise.
    fn rotation(&self, positions: &[Vec<usize>]) -> Both<Rotation> {
        let device = self.device().without_autodiff();
        self.turns.each_ref().map(|turns| turns.as_ref().map(|turns| Rotation::new(turns, positions, &device)))
    }

    fn host_rotation(&self, positions: impl Iterator<Item = usize> + Clone) -> Both<palinode_kernels::Rotation> {
        self.turns.each_ref().map(|turns| turns.as_ref().map(|turns| turns.on_host(positions.clone())))
    }

    /// The hidden state before the first block. Padding past the context's end takes the last position.
    pub fn embed(&self, rows: &Rows) -> Activations {
        let [batch, seq] = rows.frame.shape.rectangle();
        let hidden = self.config.hidden;
        let ids = rows.ids.clone();
        let device = ids.device();
        let x = self.looked_up(ids);
        let x = x.reshape([batch, seq, hidden]).cast(DType::F32);
        let multiplier = self.config.embedding_multiplier;
        let x = if multiplier == 1.0 { x } else { x.mul_scalar(multiplier) };
        let x = match (&self.ends.position_embedding, &self.config.positions) {
            (Some(table), Positions::Learned { offset }) => {
                let last = self.config.context - 1;
                let positions = &rows.frame.positions;
                let places: Vec<i32> = positions.iter().flatten().map(|&p| (p.min(last) + offset) as i32).collect();
                let places = Tensor::<1, Int>::from_data(TensorData::new(places, [positions.len() * seq]), &device);
                x + table.val().select(0, places).reshape([positions.len(), seq, hidden])
            }
            _ => x,
        };
        let x = x.reshape([batch * seq, hidden]);
        let x = match rows.added.as_deref() {
            // What is added to a token's embedding is scaled as that is.
            Some((places, values)) => {
                let values = if multiplier == 1.0 { values.clone() } else { values.clone().mul_scalar(multiplier) };
                Activations(x).plus(places, values).0
            }
            None => x,
        };
        Activations(match &self.ends.embedding_norm {
            Some(norm) => self.normed(norm, x),
            None => x,
        })
    }

    /// What the token embedding has for tokens, `[tokens, d]` in f32: neither scaled nor normed, and positions are added later.
    pub fn token_embeddings(&self, ids: &[u32]) -> Tensor<2> {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let count = ids.len();
        let device = self.device().without_autodiff();
        self.looked_up(Tensor::from_data(TensorData::new(ids, [count]), &device)).cast(DType::F32)
    }

    fn looked_up(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        // A tied head lies as [d, V]: its columns are taken, since its rows would have to be copied together first.
        match &self.head {
            Some(head) => head.clone().select(1, ids).transpose(),
            None => self.ends.token_embedding.val().select(0, ids),
        }
    }

    /// Runs one layer's block on the hidden state before it.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn block(&self, layer: usize, rows: &Rows, hidden: Activations) -> Result<BlockOutput, ModelError> {
        Ok(self.run(&*self.lend(layer)?, layer, &rows.frame, hidden.0, None))
    }

    /// What follows a layer's attention, token by token: given the hidden state before the block and what attention adds to it, both
    /// `[n, d]`. What is tracked by autodiff in an argument is tracked in the result.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn after_attention(
        &self,
        layer: usize,
        x: Tensor<2>,
        attended: Tensor<2>,
        added: Inner,
    ) -> Result<FeedForward, ModelError> {
        self.config.check_layer(layer)?;
        Ok(self.lend(layer)?.after_attention(x, attended, None, &self.config, added))
    }

    /// What a layer's feed-forward reads, `[n, d]`; arguments as in [`Decoder::after_attention`].
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn feed_forward_input(&self, layer: usize, x: Tensor<2>, attended: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        self.config.check_layer(layer)?;
        Ok(self.lend(layer)?.feed_forward_input(x, attended, &self.config))
    }

    /// What outputs of a layer's down-projection `[n, d]` add to the hidden state: themselves, where no norm or multiplier stands between.
    /// What is tracked by autodiff in the argument is tracked in the result.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn added(&self, layer: usize, mlp: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        if self.config.beyond() == Beyond::Nothing {
            return Ok(mlp);
        }
        self.config.check_layer(layer)?;
        Ok(self.lend(layer)?.added(mlp, &self.config))
    }

    /// The same model without the blocks after `last`: its head reads the hidden state after that one.
    ///
    /// # Errors
    /// [`ModelError::Layer`].
    pub fn up_to(&self, last: usize) -> Result<Self, ModelError> {
        self.config.check_layer(last)?;
        let mut cut = self.clone();
        cut.config.layers = last + 1;
        Ok(cut)
    }

    /// Runs a layer's block, which was lent.
    fn run(
        &self,
        block: &Block,
        layer: usize,
        frame: &Frame,
        hidden: Tensor<2>,
        past: Option<&KeyValues>,
    ) -> BlockOutput {
        self.run_pinned(block, layer, frame, hidden, past, &Pins::default())
    }

    /// As [`Decoder::run`], with what stands in the place of outputs of the block's parts, of a batch that the tensor library computes.
    fn run_pinned(
        &self,
        block: &Block,
        layer: usize,
        frame: &Frame,
        hidden: Tensor<2>,
        past: Option<&KeyValues>,
        pins: &Pins,
    ) -> BlockOutput {
        self.meter.block(frame.shape.cells(), frame.shape.padding());
        if let (Some(host), None) = (&frame.host, past)
            && let (Some(block), Some(hidden)) = (self.host_block(layer, block), Numbers::of(hidden.clone()))
        {
            return block.run(&self.config, layer, &hidden, &host.batch(&self.config, layer, []));
        }
        let before = past.map_or(0, |kv| kv.keys.dims()[2]);
        self.meter.copied_cache(past.map_or(0, |kv| 2 * size_of::<f32>() * kv.keys.shape().num_elements()));
        match self.config.window(layer) {
            None => block.forward_pinned(hidden, &self.config, layer, frame, past, &frame.masks, pins),
            Some(window) => {
                let masks = windowed(frame, before, window, &self.device());
                block.forward_pinned(hidden, &self.config, layer, frame, past, &masks, pins)
            }
        }
    }

    /// Logits `[n, V]` for rows `[n, d]` of the last block's output: final norm and head.
    pub fn logits(&self, rows: Tensor<2>) -> Tensor<2> {
        self.read_out(self.final_norm(rows))
    }

    /// What the head reads, `[n, d]`, for rows of the last block's output.
    pub fn final_norm(&self, rows: Tensor<2>) -> Tensor<2> {
        self.normed(&self.ends.final_norm, rows)
    }

    fn normed(&self, norm: &Norm, rows: Tensor<2>) -> Tensor<2> {
        let by_kernels = if self.kernels { host::norm(norm, rows.clone(), &self.config) } else { None };
        by_kernels.unwrap_or_else(|| norm.forward(rows, &self.config))
    }

    /// Logits `[n, V]` of normed rows `[n, d]`: the head alone.
    pub fn read_out(&self, normed: Tensor<2>) -> Tensor<2> {
        self.meter.head(normed.dims()[0]);
        let bias = self.ends.head.as_ref().and_then(|head| head.bias.as_ref().map(Param::val));
        let by_kernels = if self.kernels {
            host::product(normed.clone(), self.head_weight(), bias, self.compute.in_kernels())
        } else {
            None
        };
        let logits = by_kernels.unwrap_or_else(|| match &self.ends.head {
            Some(head) => project(head, normed),
            None => matmul(normed, self.head_weight()),
        });
        let multiplier = self.config.logit_multiplier;
        let logits = if multiplier == 1.0 { logits } else { logits.mul_scalar(multiplier) };
        match self.config.logit_cap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// The way back of [`Decoder::read_out`]: the gradient with respect to the normed rows, `[n, d]`, given that with respect to logits,
    /// `slope`, `[n, V]`, and the logits themselves where the model has a cap of them.
    pub fn read_out_back(&self, slope: Tensor<2>, logits: Option<Tensor<2>>) -> Tensor<2> {
        let slope = match (self.config.logit_cap, logits) {
            // The slope of cap · tanh(l/cap) is 1 − tanh².
            (Some(cap), Some(logits)) => {
                let share = logits.div_scalar(cap);
                slope * (share.clone() * share).neg().add_scalar(1.0)
            }
            _ => slope,
        };
        let multiplier = self.config.logit_multiplier;
        let slope = if multiplier == 1.0 { slope } else { slope.mul_scalar(multiplier) };
        let back = self.head_weight().transpose();
        let by_kernels = if self.kernels {
            host::product(slope.clone(), back.clone(), None, self.compute.in_kernels())
        } else {
            None
        };
        by_kernels.unwrap_or_else(|| matmul(slope, back))
    }

    /// The head as it is used, `[d, V]`, in the type that it is held in (logits = normed row · weight, and the bias where there is
    /// one; see [`matmul()`]), before what is done with logits behind it.
    pub fn head_weight(&self) -> Tensor<2> {
        match (&self.ends.head, &self.head) {
            (Some(head), _) => head.weight.val(),
            (None, Some(head)) => head.clone(),
            (None, None) => self.ends.token_embedding.val().transpose(),
        }
    }

    /// A weight as it is used, `[in, out]` in f32 (output = input · weight).
    ///
    /// # Errors
    /// [`ModelError::Layer`], [`ModelError::Weight`] for one that the model does not have; what reading a streamed block failed at.
    pub fn weight(&self, id: WeightId) -> Result<Tensor<2>, ModelError> {
        self.config.check_layer(id.layer)?;
        let missing = ModelError::Weight { weight: id, family: self.config.family.name() };
        if self.config.weight_shape(id).is_none() && !self.is_wide(id) {
            return Err(missing);
        }
        let block = self.lend(id.layer)?;
        let weight = block.editable(id.module).ok_or(missing)?;
        let weight = match self.part(id) {
            // Experts lie side by side: one behind the other by a down-projection's inputs, and by the outputs of others.
            Some(part) => weight.narrow(usize::from(id.module != MlpModule::Down), part.start, part.len()),
            None => weight,
        };
        Ok(weight.cast(DType::F32))
    }

    /// Whether a weight is the down-projections of all experts of a layer side by side, `[key size, d]`: no tensor of a checkpoint, but what is
    /// held, and what a change of several experts at once is added to.
    fn is_wide(&self, id: WeightId) -> bool {
        id == WeightId::down(id.layer) && self.config.mixture(id.layer).is_some()
    }

    /// Where an expert lies among those of its layer.
    fn part(&self, id: WeightId) -> Option<Range<usize>> {
        let experts = self.config.mixture(id.layer)?;
        experts.parts().get(experts.part(id.expert?)?).cloned()
    }

    /// The same model with `change` `[in, out]` added to one weight. The original stays as it is. The changed weight is held in f32,
    /// whatever the others are: an edit is smaller than what rounding to 16 bits would take from it.
    ///
    /// # Errors
    /// As [`Decoder::weight`].
    pub fn with_change(&self, id: WeightId, change: Tensor<2>) -> Result<Self, ModelError> {
        let weight = self.weight(id)? + change;
        let mut edited = self.clone();
        edited.copies = None;
        let Some(part) = self.part(id) else {
            edited.blocks.replace(id, weight);
            return Ok(edited);
        };
        // The experts of a layer are one weight, of which this is a part.
        let missing = ModelError::Weight { weight: id, family: self.config.family.name() };
        let whole = self.lend(id.layer)?.editable(id.module).ok_or(missing)?.cast(DType::F32);
        let along = usize::from(id.module != MlpModule::Down);
        let behind = whole.dims()[along] - part.end;
        let others = [(0, part.start), (part.end, behind)];
        let [before, after] = others.map(|(from, count)| (count > 0).then(|| whole.clone().narrow(along, from, count)));
        let whole = cat(before.into_iter().chain([weight]).chain(after).collect(), along);
        edited.blocks.replace(WeightId { expert: None, ..id }, whole);
        Ok(edited)
    }
}

/// A frame's masks where a layer's attention looks back over `window` positions.
fn windowed(frame: &Frame, before: usize, window: usize, device: &Device) -> Vec<Option<Tensor<4, Bool>>> {
    let spans = frame.shape.spans();
    let masks = spans.iter().zip(&frame.masks).map(|(&(_, seq), mask)| {
        if seq + before <= window {
            return mask.clone();
        }
        let near = window_mask(seq, before, window, device);
        Some(match mask {
            Some(mask) => near.expand(mask.dims()).bool_or(mask.clone()),
            None => near,
        })
    });
    masks.collect()
}

/// Causal attention over the last `window` positions: `[1, 1, seq, before + seq]`, true where a query must not look. Rows
/// are aligned at the end of what came before, so that distances are the same in all of them.
fn window_mask(seq: usize, before: usize, window: usize, device: &Device) -> Tensor<4, Bool> {
    let total = before + seq;
    let hidden = |query: usize, key: usize| key > before + query || key + window <= before + query;
    let mask: Vec<bool> = (0..seq).flat_map(|query| (0..total).map(move |key| hidden(query, key))).collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, seq, total]), device)
}
