//! Training.

use std::time::Instant;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_optim::grad_clipping::GradientClippingConfig;
use burn_optim::{AdamWConfig, GradientsParams};
use palinode_model::{Decoder, DecoderConfig, Parameters, gather};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mask::Masks;
use crate::rows::{Row, Rows};

/// Sizes, steps and rates.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
pub struct Settings {
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = 2560)]
    pub vocab: usize,
    /// Hidden size.
    #[arg(long, default_value_t = 192)]
    pub hidden: usize,
    /// Blocks.
    #[arg(long, default_value_t = 6)]
    pub layers: usize,
    /// Attention heads.
    #[arg(long, default_value_t = 8)]
    pub heads: usize,
    /// Context of the finished model, in tokens.
    #[arg(long, default_value_t = 128)]
    pub context: usize,
    /// Steps.
    #[arg(long, default_value_t = 1300)]
    pub steps: usize,
    /// Rows a step.
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// Tokens a row.
    #[arg(long, default_value_t = 64)]
    pub length: usize,
    /// Highest learning rate, reached after the warm-up; from there it falls in a line.
    #[arg(long, default_value_t = 2e-3)]
    pub learning_rate: f64,
    /// Steps of the warm-up.
    #[arg(long, default_value_t = 60)]
    pub warm_up: usize,
    /// AdamW's weight decay.
    #[arg(long, default_value_t = 0.05)]
    pub weight_decay: f32,
    /// Share of rows whose subjects are masked.
    #[arg(long, default_value_t = 0.9)]
    pub masked: f64,
    /// Layers, from the bottom, in which later tokens do not see a masked subject.
    #[arg(long, default_value_t = 4)]
    pub reading: usize,
    /// Seed of weights and rows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Settings {
    /// Refuses settings that no model can have.
    pub fn check(&self) -> Result<(), Error> {
        if self.heads == 0 || !self.hidden.is_multiple_of(self.heads) {
            return Err(format!("hidden ({}) must be a multiple of heads ({})", self.hidden, self.heads).into());
        }
        if !(2..=self.context).contains(&self.length) {
            return Err(format!("length is {}, expected 2 to context ({})", self.length, self.context).into());
        }
        if self.reading >= self.layers {
            return Err(format!("reading ({}) must be below layers ({})", self.reading, self.layers).into());
        }
        if !(0.0..=1.0).contains(&self.masked) {
            return Err(format!("masked is {}, expected 0 to 1", self.masked).into());
        }
        if self.steps == 0 || self.batch == 0 {
            return Err("steps and batch must be above 0".into());
        }
        Ok(())
    }

    /// The model's shape; the tokenizer may have fewer tokens than were asked for.
    pub fn config(&self, vocab: usize) -> DecoderConfig {
        DecoderConfig::gpt2(vocab, self.hidden, self.layers, self.heads, self.context)
    }

    fn rate(&self, step: usize) -> f64 {
        let rising = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let falling = (1.0 - step as f64 / self.steps as f64).max(0.05);
        self.learning_rate * rising * falling
    }
}

/// Losses of a step, in nats a token.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Losses {
    /// The loss that is trained on: objects weigh more than other tokens.
    pub weighted: f32,
    /// Of objects alone.
    pub objects: f32,
}

/// Trains a model. `watch` sees, now and then, the step, its losses, the seconds left, and the model so far.
pub fn train(
    settings: &Settings,
    config: &DecoderConfig,
    rows: &mut Rows<'_>,
    device: &Device,
    mut watch: impl FnMut(usize, Losses, f64, &Decoder) -> Result<(), Error>,
) -> Result<(Decoder, Losses), Error> {
    device.seed(settings.seed);
    let mut parameters = Parameters::random(config, &device.clone().autodiff());
    let mut optimizer = AdamWConfig::new()
        .with_beta_2(0.98)
        .with_epsilon(1e-8)
        .with_weight_decay(settings.weight_decay)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    let begin = Instant::now();
    let mut losses = Losses { weighted: f32::NAN, objects: f32::NAN };
    let every = (settings.steps / 24).max(1);
    for step in 0..settings.steps {
        let decoder = Decoder::from_parameters(config.clone(), parameters.clone());
        let batch = batch(settings, rows, device)?;
        let nll = nll(&decoder, &batch, settings.reading)?;
        let loss = (nll.clone() * batch.weights.clone()).sum() / batch.weights.clone().sum();
        let report = step % every == every - 1 || step + 1 == settings.steps;
        if report {
            let objects = batch.weights.clone().greater_equal_elem(1.0).float();
            let nll = nll.without_autodiff();
            let objects = (nll * objects.clone()).sum() / objects.sum();
            losses = Losses {
                weighted: loss.clone().without_autodiff().into_scalar::<f32>(),
                objects: objects.into_scalar::<f32>(),
            };
            if !losses.weighted.is_finite() {
                return Err(format!("training diverged at step {step}: lower the learning rate").into());
            }
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &parameters);
        drop(decoder);
        parameters = optimizer.step(settings.rate(step), parameters, gradients);
        if report {
            let left = begin.elapsed().as_secs_f64() / (step + 1) as f64 * (settings.steps - step - 1) as f64;
            watch(step + 1, losses, left, &plain(config, &parameters))?;
        }
    }
    Ok((plain(config, &parameters), losses))
}

/// The model without gradients.
fn plain(config: &DecoderConfig, parameters: &Parameters) -> Decoder {
    use burn::module::Module;
    Decoder::from_parameters(config.clone(), parameters.clone().valid())
}

/// A step's rows as tensors.
struct Inputs {
    /// `batch` rows of `seq` tokens.
    ids: Vec<Vec<u32>>,
    masks: Masks,
    /// The token that follows each one but the last, `[batch · (seq − 1), 1]`.
    next: Tensor<2, Int>,
    /// How much predicting it weighs, `[batch · (seq − 1)]`.
    weights: Tensor<1>,
}

fn batch(settings: &Settings, rows: &mut Rows<'_>, device: &Device) -> Result<Inputs, Error> {
    let chosen: Vec<Row> = (0..settings.batch).map(|_| rows.row()).collect::<Result<_, _>>()?;
    let subjects: Vec<_> =
        chosen.iter().map(|row| rows.chance(settings.masked).then(|| row.subjects.clone())).collect();
    let ids: Vec<&[u32]> = chosen.iter().map(|row| row.ids.as_slice()).collect();
    let next: Vec<i32> = ids.iter().flat_map(|ids| ids[1..].iter().map(|&id| id as i32)).collect();
    let weights: Vec<f32> = chosen.iter().flat_map(|row| row.weights[1..].iter().copied()).collect();
    let n = next.len();
    Ok(Inputs {
        ids: chosen.iter().map(|row| row.ids.clone()).collect(),
        masks: Masks::new(&subjects, settings.length, device),
        next: Tensor::from_data(TensorData::new(next, [n, 1]), device),
        weights: Tensor::from_data(TensorData::new(weights, [n]), device),
    })
}

/// Negative log-likelihood of every next token, `[batch · (seq − 1)]`.
fn nll(decoder: &Decoder, inputs: &Inputs, reading: usize) -> Result<Tensor<1>, Error> {
    let config = decoder.config();
    let (count, seq) = (inputs.ids.len(), inputs.ids.first().map_or(0, Vec::len));
    let rows = decoder.rows(&inputs.ids);
    let (lower, upper) = (rows.clone().masked(&inputs.masks.lower), rows.masked(&inputs.masks.upper));
    let mut hidden = decoder.embed(&lower);
    for layer in 0..config.layers {
        hidden = decoder.block(layer, if layer < reading { &lower } else { &upper }, hidden)?.hidden;
    }
    let hidden = hidden.at(&lower.all()).reshape([count, seq, config.hidden]);
    let hidden = hidden.narrow(1, 0, seq - 1).reshape([count * (seq - 1), config.hidden]);
    Ok(gather(log_softmax(decoder.logits(hidden), 1), inputs.next.clone()).neg().reshape([-1]))
}
