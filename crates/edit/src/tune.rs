//! Edits by gradient: Adam on one located weight (FT-L, FT-M, LocFT-BF).
//!
//! Only the layers above the weight depend on it. What goes into it and the hidden state after its block are computed once for a batch of
//! prompts; each step adds `keys · Δ` to that state, runs the layers above, and gets the gradient of Δ as `keysᵀ · gradient of what was
//! added`. Nothing else of the model is followed by autodiff.

use burn::tensor::{Int, Tensor, TensorData};
use palinode_data::EditRequest;
use palinode_math::{Delta, from_row_major};
use palinode_model::{Activations, Beyond, Decoder, MlpModule, Places, Rows, Text, WeightId, read};

use crate::{EditError, head};

/// What a step's loss is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuneLoss {
    /// All of the target's tokens at the prompt's last token, as if each of them came first (FT-L; EasyEdit's `prompt_last`).
    PromptLast,
    /// The target's tokens, each after those before it (FT-M; EasyEdit's `target_new`).
    Target,
}

/// How a weight is tuned.
#[derive(Clone, Copy, Debug)]
pub struct TuneSettings {
    /// The layer whose down-projection is tuned.
    pub layer: usize,
    /// What the loss is read from.
    pub loss: TuneLoss,
    /// Passes over the requests, at most (`num_steps`).
    pub epochs: usize,
    /// Requests in a step.
    pub mini_batch: usize,
    /// Puts requests in another order in each pass.
    pub shuffle: Option<u64>,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Every entry of the weight stays within so much of what it was (`norm_constraint`).
    pub bound: Option<f64>,
    /// A step whose loss is below this changes nothing, and a pass whose mean loss is below it is the last.
    pub stop_loss: f64,
}

/// A tuned projection.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// `Δ` of its weight, `[d, f]`, and of its bias, `[d, 1]`, where it has one: the published code tunes both.
    pub changes: Vec<(WeightId, Delta)>,
    /// Mean loss of every pass.
    pub losses: Vec<f64>,
}

/// A token whose likelihood is read: its row, the position that predicts it, and its share of its request's loss.
#[derive(Clone, Copy)]
pub(crate) struct Read {
    pub row: usize,
    pub position: usize,
    pub token: u32,
    pub weight: f32,
}

/// Rows of requests with their bare prompts, and what is read of them. Weights of a request's tokens sum to 1.
pub(crate) fn rows_of(
    text: &Text,
    decoder: &Decoder,
    requests: &[&EditRequest],
    loss: TuneLoss,
) -> Result<(Vec<Vec<u32>>, Vec<Read>), EditError> {
    let (mut rows, mut reads) = (Vec::new(), Vec::new());
    for (row, request) in requests.iter().enumerate() {
        let prompt = request.filled_prompt();
        let target = text.encode_continuation(&request.continuation(&prompt, &request.target_new))?;
        let wrong = |message: String| EditError::Request { id: request.id.clone(), message };
        let Some((_, but_last)) = target.split_last() else {
            return Err(wrong(format!("the new target {:?} has no tokens", request.target_new)));
        };
        let mut ids = text.encode(&prompt)?;
        let Some(last) = ids.len().checked_sub(1) else { return Err(wrong("its prompt has no tokens".into())) };
        let weight = 1.0 / target.len() as f32;
        for (j, &token) in target.iter().enumerate() {
            let position = if loss == TuneLoss::PromptLast { last } else { last + j };
            reads.push(Read { row, position, token, weight });
        }
        if loss == TuneLoss::Target {
            ids.extend_from_slice(but_last);
        }
        let context = decoder.config().context;
        if ids.len() > context {
            return Err(wrong(format!(
                "its prompt and target have {} tokens, the model's context {context}",
                ids.len()
            )));
        }
        rows.push(ids);
    }
    Ok((rows, reads))
}

/// What is read, on the device.
pub(crate) struct Predictions {
    places: Places,
    tokens: Tensor<2, Int>,
    weights: Tensor<2>,
}

impl Predictions {
    /// The weights of `reads` times `scale`.
    pub fn new(decoder: &Decoder, rows: &Rows, reads: &[Read], scale: f32) -> Self {
        let device = decoder.device();
        let count = reads.len();
        let tokens: Vec<i32> = reads.iter().map(|r| r.token as i32).collect();
        let weights: Vec<f32> = reads.iter().map(|r| r.weight * scale).collect();
        Self {
            places: rows.places(reads.iter().map(|r| (r.row, r.position))),
            tokens: Tensor::from_data(TensorData::new(tokens, [count, 1]), &device),
            weights: Tensor::from_data(TensorData::new(weights, [count, 1]), &device),
        }
    }

    /// The loss, and what autodiff differentiates to get its gradient; given the hidden state after the last block.
    pub fn of(&self, decoder: &Decoder, hidden: &Activations) -> Result<(f64, Tensor<1>), EditError> {
        let normed = decoder.final_norm(hidden.at(&self.places));
        let plain = normed.clone().without_autodiff();
        let (said, _) = head::likelihoods(decoder, &plain, &self.tokens, &self.weights, false)?;
        let values: Vec<f32> = read(said.values * self.weights.clone())?;
        let loss = values.into_iter().map(f64::from).sum();
        Ok((loss, (normed * said.gradient).sum()))
    }
}

/// What of a mini-batch does not depend on the weight.
struct Fixed {
    rows: Rows,
    all: Places,
    /// Of every token, `[tokens, f]`.
    keys: Tensor<2>,
    /// The weight's output, `[tokens, d]`, where something stands between it and the hidden state.
    mlp: Option<Tensor<2>>,
    /// After the weight's block.
    hidden: Activations,
    predictions: Predictions,
}

impl Fixed {
    fn new(
        decoder: &Decoder,
        text: &Text,
        requests: &[&EditRequest],
        settings: &TuneSettings,
    ) -> Result<Self, EditError> {
        let (ids, reads) = rows_of(text, decoder, requests, settings.loss)?;
        let rows = decoder.rows(&ids);
        let all = rows.all();
        let beyond = decoder.config().beyond() != Beyond::Nothing;
        let (mut keys, mut mlp) = (None, None);
        let hidden = decoder.walk(&rows, settings.layer, |layer, output| {
            if layer == settings.layer {
                keys = Some(output.key.at(&all)?);
                mlp = beyond.then(|| output.mlp.at(&all));
            }
            Ok(())
        })?;
        let keys = keys.ok_or_else(|| EditError::Mismatch("no layer to tune".into()))?;
        let predictions = Predictions::new(decoder, &rows, &reads, 1.0 / requests.len() as f32);
        Ok(Self { rows, all, keys, mlp, hidden, predictions })
    }

    /// The loss with `added` `[tokens, d]` to the weight's output, and its gradient with respect to it.
    fn step(&self, decoder: &Decoder, layer: usize, added: Tensor<2>) -> Result<(f64, Tensor<2>), EditError> {
        let leaf = added.clone().autodiff().require_grad();
        let adds = match &self.mlp {
            Some(mlp) => decoder.added(layer, mlp.clone() + leaf.clone())? - decoder.added(layer, mlp.clone())?,
            None => leaf.clone(),
        };
        let mut hidden = self.hidden.plus(&self.all, adds);
        for above in layer + 1..decoder.config().layers {
            hidden = decoder.block(above, &self.rows, hidden)?.hidden;
        }
        let (loss, total) = self.predictions.of(decoder, &hidden)?;
        let gradient = leaf.grad_remove(&mut total.backward()).unwrap_or_else(|| added.zeros_like());
        Ok((loss, gradient))
    }
}

/// Adam's state of one tensor.
struct Adam<const D: usize> {
    value: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
}

impl<const D: usize> Adam<D> {
    fn new(value: Tensor<D>) -> Self {
        let zeros = value.zeros_like();
        Self { value, first: zeros.clone(), second: zeros }
    }

    /// One step, the `number`-th from 1, and the projection into the box.
    fn step(&mut self, gradient: Tensor<D>, number: i32, settings: &TuneSettings) {
        const B1: f64 = 0.9;
        const B2: f64 = 0.999;
        const EPSILON: f64 = 1e-8;
        self.first = self.first.clone().mul_scalar(B1) + gradient.clone().mul_scalar(1.0 - B1);
        self.second = self.second.clone().mul_scalar(B2) + (gradient.clone() * gradient).mul_scalar(1.0 - B2);
        let correction = (1.0 - B2.powi(number)).sqrt();
        let denominator = self.second.clone().sqrt().div_scalar(correction).add_scalar(EPSILON);
        let step = settings.learning_rate / (1.0 - B1.powi(number));
        let value = self.value.clone() - (self.first.clone() / denominator).mul_scalar(step);
        self.value = match settings.bound {
            Some(bound) => value.clamp(-bound, bound),
            None => value,
        };
    }
}

/// Tunes a layer's down-projection until the model says the targets of `requests` after their bare prompts. `decoder` stays as it is.
/// `watch` hears of every pass and its mean loss.
///
/// # Errors
/// [`EditError::Request`] for prompts that cannot be used, [`EditError::Diverged`]; what the device failed at.
pub fn tune(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    settings: &TuneSettings,
    mut watch: impl FnMut(usize, f64),
) -> Result<Tuned, EditError> {
    let layer = settings.layer;
    decoder.config().check_layer(layer)?;
    EditError::unless_dense(decoder.config(), layer, "fine-tuning")?;
    let decoder = decoder.hold(layer..decoder.config().layers)?;
    let (d, f) = (decoder.config().hidden, decoder.config().feed_forward);
    let device = decoder.device();
    let biased = decoder.config().weight_shape(WeightId::new(layer, MlpModule::Bias)).is_some();
    let mut weight = Adam::new(Tensor::<2>::zeros([f, d], &device));
    let mut bias = Adam::new(Tensor::<2>::zeros([1, d], &device));
    let size = settings.mini_batch.clamp(1, requests.len().max(1));
    let mut order: Vec<usize> = (0..requests.len()).collect();
    let mut random = settings.shuffle;
    let mut kept: Vec<Fixed> = Vec::new();
    let (mut updates, mut losses) = (0, Vec::new());
    for epoch in 0..settings.epochs {
        if let Some(seed) = &mut random {
            shuffle(&mut order, seed);
            kept.clear();
        }
        let (mut sum, mut count) = (0.0, 0);
        for (number, some) in order.chunks(size).enumerate() {
            if kept.len() <= number {
                let some: Vec<&EditRequest> = some.iter().map(|&i| &requests[i]).collect();
                kept.push(Fixed::new(&decoder, text, &some, settings)?);
            }
            let fixed = &kept[number];
            let added = fixed.keys.clone().matmul(weight.value.clone()) + bias.value.clone();
            let (loss, gradient) = fixed.step(&decoder, layer, added)?;
            if !loss.is_finite() {
                return Err(EditError::Diverged { id: requests[some[0]].id.clone(), steps: epoch });
            }
            sum += loss * some.len() as f64;
            count += some.len();
            if loss >= settings.stop_loss {
                updates += 1;
                weight.step(fixed.keys.clone().transpose().matmul(gradient.clone()), updates, settings);
                if biased {
                    bias.step(gradient.sum_dim(0), updates, settings);
                }
            }
        }
        let mean = sum / count.max(1) as f64;
        losses.push(mean);
        watch(epoch, mean);
        if mean < settings.stop_loss {
            break;
        }
    }
    let change = |module: MlpModule, value: Tensor<2>| -> Result<(WeightId, Delta), EditError> {
        let [input, out] = value.dims();
        let values: Vec<f32> = read(value)?;
        let turned = from_row_major("change", &values, input, out);
        let turned = turned.map_err(|source| EditError::Math { layer, source })?;
        Ok((WeightId::new(layer, module), Delta::Dense(turned.transpose().to_owned())))
    };
    let mut changes = vec![change(MlpModule::Down, weight.value)?];
    if biased {
        changes.push(change(MlpModule::Bias, bias.value)?);
    }
    Ok(Tuned { changes, losses })
}

/// Fisher and Yates, by a small generator of our own: the same order on every machine (splitmix64).
fn shuffle(order: &mut [usize], seed: &mut u64) {
    for i in (1..order.len()).rev() {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        order.swap(i, (z % (i as u64 + 1)) as usize);
    }
}
