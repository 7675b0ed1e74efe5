//! The decoder: embedding, blocks, head, and the ways through them that editing needs.

pub(crate) mod block;
pub(crate) mod forks;
pub mod generate;
pub mod lanes;
pub(crate) mod work;

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Bool, DType, Device, Distribution, Int, Tensor, TensorData};

use crate::decoder::block::{Norm, Rotation};
use crate::decoder::work::{Meter, Work};
use crate::device::product::{product, project};
use crate::device::room::Room;
use crate::{Batch, Block, BlockOutput, DecoderConfig, Forks, KeyValues, NormKind, Positions, RotaryScaling};

/// All weights of a decoder.
#[derive(Module, Debug)]
pub struct Parameters {
    /// `[V, d]`.
    pub token_embedding: Param<Tensor<2>>,
    /// `[context, d]`.
    pub position_embedding: Option<Param<Tensor<2>>>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// Norm before the head.
    pub final_norm: Norm,
    /// `[d, V]`; none where the head is the transposed token embedding.
    pub head: Option<Linear>,
}

/// A decoder-only language model.
///
/// Cloning is cheap: weights are shared, and [`Decoder::with_change`] replaces one of them without touching the
/// original.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    parameters: Parameters,
    /// A tied head laid out for reading, `[d, V]`; the token embedding is a view of it.
    pub(crate) head: Option<Tensor<2>>,
    /// Rotation frequencies, radians per position.
    frequencies: Vec<f64>,
    meter: Arc<Meter>,
    pub(crate) room: Arc<Room>,
}

impl Decoder {
    /// A decoder over the given weights, which may be tracked for training.
    pub fn from_parameters(config: DecoderConfig, parameters: Parameters) -> Self {
        let frequencies = frequencies(&config.positions);
        Self { config, parameters, head: None, frequencies, meter: Arc::default(), room: Arc::default() }
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Bytes that the weights take.
    pub fn weight_bytes(&self) -> u64 {
        let held = self.parameters.token_embedding.val().dtype().size() as u64;
        self.config.parameters() as u64 * held
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.parameters.token_embedding.val().device()
    }

    /// What was computed so far.
    pub fn work(&self) -> Work {
        self.meter.read()
    }

    /// Hidden state before the first block, `[batch, seq, d]`.
    ///
    /// `positions` says where the tokens of a row stand: one entry for all rows, or one a row. Padding past the context's
    /// end takes the last position.
    pub fn embed(&self, ids: Tensor<2, Int>, positions: &[Vec<usize>]) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let hidden = self.config.hidden;
        let device = ids.device();
        let ids = ids.reshape([batch * seq]);
        // A tied head lies as [d, V]: its columns are taken, since its rows would have to be copied together first.
        let x = match &self.head {
            Some(head) => head.clone().select(1, ids).transpose(),
            None => self.parameters.token_embedding.val().select(0, ids),
        };
        let x = x.reshape([batch, seq, hidden]).cast(DType::F32);
        match &self.parameters.position_embedding {
            None => x,
            Some(table) => {
                let last = self.config.context - 1;
                let places: Vec<i32> = positions.iter().flatten().map(|&p| p.min(last) as i32).collect();
                let places = Tensor::<1, Int>::from_data(TensorData::new(places, [positions.len() * seq]), &device);
                x + table.val().select(0, places).reshape([positions.len(), seq, hidden])
            }
        }
    }

    /// Rotation at each row's positions, all of one number; none for learned positions.
    pub fn rotation(&self, positions: &[Vec<usize>]) -> Option<Rotation> {
        if self.frequencies.is_empty() {
            return None;
        }
        let mut cos = Vec::new();
        let mut sin = Vec::new();
        for &position in positions.iter().flatten() {
            for half in [&self.frequencies, &self.frequencies] {
                for f in half {
                    let angle = position as f64 * f;
                    cos.push(angle.cos() as f32);
                    sin.push(angle.sin() as f32);
                }
            }
        }
        let seq = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), 1, seq, 2 * self.frequencies.len()];
        let device = self.device().without_autodiff();
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), &device);
        Some(Rotation { cos: tensor(cos), sin: tensor(sin) })
    }

    /// Runs one block; see [`Block::forward`].
    pub fn block(
        &self,
        layer: usize,
        hidden: Tensor<3>,
        rotation: Option<&Rotation>,
        past: Option<&KeyValues>,
        mask: Option<&Tensor<4, Bool>>,
    ) -> BlockOutput {
        let [rows, seq, _] = hidden.dims();
        self.meter.block(rows * seq);
        let before = past.map_or(0, |kv| kv.keys.dims()[2]);
        let window = self.config.window(layer).filter(|window| seq + before > *window);
        let mask = match (window.map(|window| window_mask(seq, before, window, &self.device())), mask) {
            (Some(near), Some(mask)) => {
                let shape = mask.dims();
                Some(near.expand(shape).bool_or(mask.clone()))
            }
            (near, mask) => near.or_else(|| mask.cloned()),
        };
        self.parameters.blocks[layer].forward(hidden, &self.config, rotation, past, mask.as_ref())
    }

    /// Runs a batch through the blocks up to and including `last`, showing each block's output to `tap`; returns the
    /// hidden state after `last`, `[batch, seq, d]`.
    pub fn walk(&self, batch: &Batch, last: usize, mut tap: impl FnMut(usize, &BlockOutput)) -> Tensor<3> {
        let positions = [(0..batch.width()).collect()];
        let rotation = self.rotation(&positions);
        let mut hidden = self.embed(batch.ids.clone(), &positions);
        for layer in 0..=last {
            let output = self.block(layer, hidden, rotation.as_ref(), None, None);
            tap(layer, &output);
            hidden = output.hidden;
        }
        hidden
    }

    /// Hidden state after the last block, `[batch, seq, d]`.
    pub fn hidden(&self, batch: &Batch) -> Tensor<3> {
        self.walk(batch, self.config.layers - 1, |_, _| {})
    }

    /// Hidden state after the last block of beginnings with several ways on, `[batch, seq, d]`.
    pub fn hidden_forks(&self, forks: &Forks) -> Tensor<3> {
        let rotation = self.rotation(&forks.positions);
        let mut hidden = self.embed(forks.ids.clone(), &forks.positions);
        for layer in 0..self.config.layers {
            hidden = self.block(layer, hidden, rotation.as_ref(), None, Some(&forks.mask)).hidden;
        }
        hidden
    }

    /// Logits `[n, V]` for rows `[n, d]` of the last block's output: final norm and head.
    pub fn logits(&self, rows: Tensor<2>) -> Tensor<2> {
        self.read_out(self.final_norm(rows))
    }

    /// What the head reads, `[n, d]`, for rows of the last block's output.
    pub fn final_norm(&self, rows: Tensor<2>) -> Tensor<2> {
        self.parameters.final_norm.forward(rows, &self.config)
    }

    /// Logits `[n, V]` of normed rows `[n, d]`: the head alone.
    pub fn read_out(&self, normed: Tensor<2>) -> Tensor<2> {
        self.meter.head(normed.dims()[0]);
        match &self.parameters.head {
            Some(head) => project(head, normed),
            None => product(normed, self.head_weight()),
        }
    }

    /// The head as it is used, `[d, V]`, in the type that it is held in (logits = normed row · weight, and the bias where there is
    /// one; see [`product`]).
    pub fn head_weight(&self) -> Tensor<2> {
        match (&self.parameters.head, &self.head) {
            (Some(head), _) => head.weight.val(),
            (None, Some(head)) => head.clone(),
            (None, None) => self.parameters.token_embedding.val().transpose(),
        }
    }

    /// A layer's down-projection as it is used, `[f, d]` in f32 (value = key · weight).
    pub fn down_weight(&self, layer: usize) -> Tensor<2> {
        self.parameters.blocks[layer].down.weight.val().cast(DType::F32)
    }

    /// A layer's down-projection bias, `[d]`.
    pub fn down_bias(&self, layer: usize) -> Option<Tensor<1>> {
        self.parameters.blocks[layer].down.bias.as_ref().map(Param::val)
    }

    /// The same model with `change` `[f, d]` added to one layer's down-projection. The original stays as it is. The changed weight is
    /// held in f32, whatever the others are: an edit is smaller than what rounding to 16 bits would take from it.
    #[must_use]
    pub fn with_change(&self, layer: usize, change: Tensor<2>) -> Self {
        let mut edited = self.clone();
        let weight = self.down_weight(layer) + change;
        edited.parameters.blocks[layer].down.weight = Param::from_tensor(weight).set_require_grad(false);
        edited
    }
}

impl Parameters {
    /// Random weights by GPT-2's rule: normal with deviation 0.02, residual projections scaled by 1/√(2·layers), biases
    /// zero, norms one. Seed the device first for a reproducible draw.
    pub fn random(config: &DecoderConfig, device: &Device) -> Self {
        let normal = |shape: [usize; 2], deviation: f64| {
            Param::from_tensor(Tensor::<2>::random(shape, Distribution::Normal(0.0, deviation), device))
        };
        let norm_of = |size: usize| Norm {
            weight: Param::from_tensor(Tensor::ones([size], device)),
            bias: (config.norm == NormKind::Layer).then(|| Param::from_tensor(Tensor::zeros([size], device))),
        };
        let norm = || norm_of(config.hidden);
        let linear = |input: usize, output: usize, bias: bool, deviation: f64| Linear {
            weight: normal([input, output], deviation),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([output], device))),
        };
        let residual = 0.02 / ((2 * config.layers) as f64).sqrt();
        let attention = config.heads * config.head_dim;
        Self {
            token_embedding: normal([config.vocab, config.hidden], 0.02),
            position_embedding: (config.positions == Positions::Learned)
                .then(|| normal([config.context, config.hidden], 0.01)),
            blocks: (0..config.layers)
                .map(|_| Block {
                    norm_1: norm(),
                    norm_2: config.arrangement.has_second_norm().then(norm),
                    query_norm: config.head_norm.then(|| norm_of(config.head_dim)),
                    key_norm: config.head_norm.then(|| norm_of(config.head_dim)),
                    qkv: linear(
                        config.hidden,
                        attention + 2 * config.kv_heads * config.head_dim,
                        config.qkv_bias,
                        0.02,
                    ),
                    attention_out: linear(attention, config.hidden, config.attention_out_bias, residual),
                    up: linear(config.hidden, config.feed_forward, config.mlp_bias, 0.02),
                    gate: config.gated.then(|| linear(config.hidden, config.feed_forward, config.mlp_bias, 0.02)),
                    down: linear(config.feed_forward, config.hidden, config.mlp_bias, residual),
                })
                .collect(),
            final_norm: norm(),
            head: (!config.tied_head).then(|| linear(config.hidden, config.vocab, config.head_bias, 0.02)),
        }
    }
}

/// Causal attention over the last `window` positions: `[1, 1, seq, before + seq]`, true where a query must not look. Rows
/// are aligned at the end of what came before, so that distances are the same in all of them.
fn window_mask(seq: usize, before: usize, window: usize, device: &Device) -> Tensor<4, Bool> {
    let total = before + seq;
    let hidden = |query: usize, key: usize| key > before + query || key + window <= before + query;
    let mask: Vec<bool> = (0..seq).flat_map(|query| (0..total).map(move |key| hidden(query, key))).collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, seq, total]), device)
}

/// Radians per position of each rotated pair.
fn frequencies(positions: &Positions) -> Vec<f64> {
    let Positions::Rotary { dim, theta, scaling, .. } = positions else { return Vec::new() };
    (0..dim / 2)
        .map(|i| theta.powf(-2.0 * i as f64 / *dim as f64))
        .map(|f| match scaling {
            None => f,
            Some(RotaryScaling::Linear { factor }) => f / factor,
            Some(RotaryScaling::Llama3 { factor, low, high, original }) => {
                let wavelength = std::f64::consts::TAU / f;
                if wavelength < original / high {
                    f
                } else if wavelength > original / low {
                    f / factor
                } else {
                    let share = (original / wavelength - low) / (high - low);
                    (1.0 - share) * f / factor + share * f
                }
            }
        })
        .collect()
}
