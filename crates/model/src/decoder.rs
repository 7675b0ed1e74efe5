//! The decoder: embedding, blocks, head, and the ways through them that editing needs.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor, TensorData};

use crate::block::{Norm, Rotation};
use crate::layout::{bias_name, fill, weight};
use crate::{
    Arrangement, Batch, Block, BlockOutput, Checkpoint, DecoderConfig, KeyValues, Layout, ModelError, NormKind,
    Orientation, Positions, RotaryScaling,
};

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
    /// A tied head laid out for reading, `[d, V]`.
    head: Option<Tensor<2>>,
    /// Rotation frequencies, radians per position.
    frequencies: Vec<f64>,
}

impl Decoder {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`], [`ModelError::Dtype`], naming the tensor.
    pub fn load(checkpoint: &Checkpoint, config: &DecoderConfig, device: &Device) -> Result<Self, ModelError> {
        let reader = Reader { checkpoint, config, layout: Layout::of(config), device };
        let embedding = checkpoint.read(reader.layout.token_embedding, &[config.vocab, config.hidden])?;
        let head_name = format!("{}.weight", reader.layout.head);
        let head_is_stored = !config.tied_head;
        let tied = (!head_is_stored)
            .then(|| reader.tensor_2(transpose(&embedding, config.vocab, config.hidden), config.hidden, config.vocab));
        let head = if head_is_stored {
            let values = checkpoint.read(&head_name, &[config.vocab, config.hidden])?;
            let bias = config
                .head_bias
                .then(|| checkpoint.read(&format!("{}.bias", reader.layout.head), &[config.vocab]))
                .transpose()?;
            Some(Linear {
                weight: Param::from_tensor(reader.tensor_2(
                    transpose(&values, config.vocab, config.hidden),
                    config.hidden,
                    config.vocab,
                )),
                bias: bias.map(|b| Param::from_tensor(reader.tensor_1(b))),
            })
        } else {
            None
        };
        let parameters = Parameters {
            token_embedding: Param::from_tensor(reader.tensor_2(embedding, config.vocab, config.hidden)),
            position_embedding: (config.positions == Positions::Learned)
                .then(|| {
                    let values = checkpoint.read(reader.layout.position_embedding, &[config.context, config.hidden])?;
                    Ok::<_, ModelError>(Param::from_tensor(reader.tensor_2(values, config.context, config.hidden)))
                })
                .transpose()?,
            blocks: (0..config.layers).map(|layer| reader.block(layer)).collect::<Result<_, _>>()?,
            final_norm: reader.norm(reader.layout.final_norm.into())?,
            head,
        };
        let mut decoder = Self::from_parameters(config.clone(), parameters.no_grad());
        decoder.head = tied;
        Ok(decoder)
    }

    /// A decoder over the given weights, which may be tracked for training.
    pub fn from_parameters(config: DecoderConfig, parameters: Parameters) -> Self {
        let frequencies = frequencies(&config.positions);
        Self { config, parameters, head: None, frequencies }
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.parameters.token_embedding.val().device()
    }

    /// Hidden state before the first block, `[batch, seq, d]`.
    ///
    /// `starts` gives the position of each row's first token: one entry for all rows, or one a row. Padding past the
    /// context's end takes the last position.
    pub fn embed(&self, ids: Tensor<2, Int>, starts: &[usize]) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let hidden = self.config.hidden;
        let device = ids.device();
        let x =
            self.parameters.token_embedding.val().select(0, ids.reshape([batch * seq])).reshape([batch, seq, hidden]);
        match &self.parameters.position_embedding {
            None => x,
            Some(table) => {
                let last = self.config.context - 1;
                let places: Vec<i32> = starts.iter().flat_map(|&s| (s..s + seq).map(|p| p.min(last) as i32)).collect();
                let places = Tensor::<1, Int>::from_data(TensorData::new(places, [starts.len() * seq]), &device);
                x + table.val().select(0, places).reshape([starts.len(), seq, hidden])
            }
        }
    }

    /// Rotation of `seq` positions from each of `starts`; none for learned positions.
    pub fn rotation(&self, starts: &[usize], seq: usize) -> Option<Rotation> {
        if self.frequencies.is_empty() {
            return None;
        }
        let mut cos = Vec::new();
        let mut sin = Vec::new();
        for &start in starts {
            for position in start..start + seq {
                for half in [&self.frequencies, &self.frequencies] {
                    for f in half {
                        let angle = position as f64 * f;
                        cos.push(angle.cos() as f32);
                        sin.push(angle.sin() as f32);
                    }
                }
            }
        }
        let shape = [starts.len(), 1, seq, 2 * self.frequencies.len()];
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
        self.parameters.blocks[layer].forward(hidden, &self.config, rotation, past, mask)
    }

    /// Runs a batch through the blocks up to and including `last`, showing each block's output to `tap`; returns the
    /// hidden state after `last`, `[batch, seq, d]`.
    pub fn walk(&self, batch: &Batch, last: usize, mut tap: impl FnMut(usize, &BlockOutput)) -> Tensor<3> {
        let rotation = self.rotation(&[0], batch.width());
        let mut hidden = self.embed(batch.ids.clone(), &[0]);
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

    /// Logits `[n, V]` for rows `[n, d]` of the last block's output: final norm and head.
    pub fn logits(&self, rows: Tensor<2>) -> Tensor<2> {
        let rows = self.parameters.final_norm.forward(rows, &self.config);
        match (&self.parameters.head, &self.head) {
            (Some(head), _) => head.forward(rows),
            (None, Some(head)) => rows.matmul(head.clone()),
            (None, None) => rows.matmul(self.parameters.token_embedding.val().transpose()),
        }
    }

    /// A layer's down-projection as it is used, `[f, d]` (value = key · weight).
    pub fn down_weight(&self, layer: usize) -> Tensor<2> {
        self.parameters.blocks[layer].down.weight.val()
    }

    /// A layer's down-projection bias, `[d]`.
    pub fn down_bias(&self, layer: usize) -> Option<Tensor<1>> {
        self.parameters.blocks[layer].down.bias.as_ref().map(Param::val)
    }

    /// The same model with `change` `[f, d]` added to one layer's down-projection. The original stays as it is.
    #[must_use]
    pub fn with_change(&self, layer: usize, change: Tensor<2>) -> Self {
        let mut edited = self.clone();
        let down = &mut edited.parameters.blocks[layer].down;
        let weight = down.weight.val();
        down.weight = Param::from_tensor(weight + change).set_require_grad(false);
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
        let norm = || Norm {
            weight: Param::from_tensor(Tensor::ones([config.hidden], device)),
            bias: (config.norm == NormKind::Layer).then(|| Param::from_tensor(Tensor::zeros([config.hidden], device))),
        };
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
                    norm_2: (config.arrangement == Arrangement::Sequential).then(norm),
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

/// Reads a checkpoint's tensors into the decoder's layout.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a DecoderConfig,
    layout: Layout,
    device: &'a Device,
}

impl Reader<'_> {
    fn tensor_1(&self, values: Vec<f32>) -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), self.device)
    }

    fn tensor_2(&self, values: Vec<f32>, rows: usize, columns: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values, [rows, columns]), self.device)
    }

    fn vector(&self, name: &str, size: usize) -> Result<Param<Tensor<1>>, ModelError> {
        Ok(Param::from_tensor(self.tensor_1(self.checkpoint.read(name, &[size])?)))
    }

    fn norm(&self, stem: String) -> Result<Norm, ModelError> {
        let size = self.config.hidden;
        Ok(Norm {
            weight: self.vector(&format!("{stem}.weight"), size)?,
            bias: (self.config.norm == NormKind::Layer)
                .then(|| self.vector(&format!("{stem}.bias"), size))
                .transpose()?,
        })
    }

    /// A projection's weight as `[in, out]`.
    fn weight(&self, stem: &str, layer: usize, input: usize, output: usize) -> Result<Vec<f32>, ModelError> {
        let values = self.checkpoint.read(&weight(stem, layer), &self.layout.stored_shape(input, output))?;
        Ok(match self.layout.orientation {
            Orientation::InOut => values,
            Orientation::OutIn => transpose(&values, output, input),
        })
    }

    fn linear(&self, stem: &str, layer: usize, input: usize, output: usize, bias: bool) -> Result<Linear, ModelError> {
        Ok(Linear {
            weight: Param::from_tensor(self.tensor_2(self.weight(stem, layer, input, output)?, input, output)),
            bias: bias.then(|| self.vector(&bias_name(stem, layer), output)).transpose()?,
        })
    }

    fn block(&self, layer: usize) -> Result<Block, ModelError> {
        let c = self.config;
        let l = self.layout;
        let attention = c.heads * c.head_dim;
        Ok(Block {
            norm_1: self.norm(fill(l.norm_1, layer))?,
            norm_2: (c.arrangement == Arrangement::Sequential).then(|| self.norm(fill(l.norm_2, layer))).transpose()?,
            qkv: self.qkv(layer)?,
            attention_out: self.linear(l.attention_out, layer, attention, c.hidden, c.attention_out_bias)?,
            up: self.linear(l.up, layer, c.hidden, c.feed_forward, c.mlp_bias)?,
            gate: c.gated.then(|| self.linear(l.gate, layer, c.hidden, c.feed_forward, c.mlp_bias)).transpose()?,
            down: self.linear(l.down, layer, c.feed_forward, c.hidden, c.mlp_bias)?,
        })
    }

    /// Query, key and value projections side by side, `[d, q + k + v]`.
    fn qkv(&self, layer: usize) -> Result<Linear, ModelError> {
        let c = self.config;
        let widths = self.layout.qkv_widths(c);
        let total: usize = widths.iter().sum();
        let mut joined = vec![0.0; c.hidden * total];
        let mut biases = Vec::new();
        let mut column = 0;
        for (part, (stem, &width)) in self.layout.qkv.iter().zip(&widths).enumerate() {
            let mut values = self.weight(stem, layer, c.hidden, width)?;
            if part < 2 {
                self.pair_halves(&mut values, width);
            }
            for (row, source) in values.chunks_exact(width).enumerate() {
                joined[row * total + column..][..width].copy_from_slice(source);
            }
            if c.qkv_bias {
                biases.extend(self.checkpoint.read(&bias_name(stem, layer), &[width])?);
            }
            column += width;
        }
        Ok(Linear {
            weight: Param::from_tensor(self.tensor_2(joined, c.hidden, total)),
            bias: c.qkv_bias.then(|| Param::from_tensor(self.tensor_1(biases))),
        })
    }

    /// Reorders the rotated dimensions of each head from neighbouring pairs to halves (see [`Rotation`]).
    fn pair_halves(&self, weight: &mut [f32], width: usize) {
        let Positions::Rotary { dim, interleaved: true, .. } = self.config.positions else { return };
        let mut moved = vec![0.0; dim];
        for row in weight.chunks_exact_mut(width) {
            for head in row.chunks_exact_mut(self.config.head_dim) {
                for i in 0..dim / 2 {
                    moved[i] = head[2 * i];
                    moved[i + dim / 2] = head[2 * i + 1];
                }
                head[..dim].copy_from_slice(&moved);
            }
        }
    }
}

/// The transpose of a row-major `[rows, columns]` matrix.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            for r in r0..(r0 + TILE).min(rows) {
                for c in c0..(c0 + TILE).min(columns) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}

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
