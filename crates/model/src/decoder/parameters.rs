//! A decoder's weights as one module, as training has them and a checkpoint gives them.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Distribution, Tensor};

use crate::decoder::block::{Block, Norm, Router};
use crate::{DecoderConfig, HeadNorm};

/// All weights of a decoder.
#[derive(Module, Debug)]
pub struct Parameters {
    /// `[V, d]`.
    pub token_embedding: Param<Tensor<2>>,
    /// `[context, d]`, and more rows before where the first position has another one.
    pub position_embedding: Option<Param<Tensor<2>>>,
    /// Norm of embeddings.
    pub embedding_norm: Option<Norm>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// Norm before the head.
    pub final_norm: Norm,
    /// `[d, V]`; none where the head is the transposed token embedding.
    pub head: Option<Linear>,
}

/// The weights that are in no block.
#[derive(Module, Debug)]
pub(crate) struct Ends {
    /// `[V, d]`.
    pub token_embedding: Param<Tensor<2>>,
    /// `[context, d]`, and more rows before where the first position has another one.
    pub position_embedding: Option<Param<Tensor<2>>>,
    /// Norm of embeddings.
    pub embedding_norm: Option<Norm>,
    /// Norm before the head.
    pub final_norm: Norm,
    /// `[d, V]`; none where the head is the transposed token embedding.
    pub head: Option<Linear>,
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
            bias: config.norm_bias.then(|| Param::from_tensor(Tensor::zeros([size], device))),
        };
        let norm = || norm_of(config.hidden);
        let head_norm = |heads: usize| {
            let size = if config.head_norm? == HeadNorm::Shared { config.head_dim } else { heads * config.head_dim };
            let bias = config.head_norm_bias.then(|| Param::from_tensor(Tensor::zeros([size], device)));
            Some(Norm { bias, ..norm_of(size) })
        };
        let linear = |input: usize, output: usize, bias: bool, deviation: f64| Linear {
            weight: normal([input, output], deviation),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([output], device))),
        };
        let residual = 0.02 / ((2 * config.layers) as f64).sqrt();
        let attention = config.heads * config.head_dim;
        Self {
            token_embedding: normal([config.vocab, config.hidden], 0.02),
            position_embedding: config.position_rows().map(|rows| normal([rows, config.hidden], 0.01)),
            embedding_norm: config.embedding_norm.then(norm),
            blocks: (0..config.layers)
                .map(|layer| Block {
                    norm_1: config.norms_before.then(norm),
                    norm_2: config.has_second_norm().then(norm),
                    attention_norm: config.norms_behind.then(norm),
                    mlp_norm: config.norms_behind.then(norm),
                    query_norm: head_norm(config.heads),
                    key_norm: head_norm(config.kv_heads),
                    qkv: linear(
                        config.hidden,
                        attention + 2 * config.kv_heads * config.head_dim,
                        config.qkv_bias,
                        0.02,
                    ),
                    attention_out: linear(attention, config.hidden, config.attention_out_bias, residual),
                    up: linear(config.hidden, config.key_size(layer), config.mlp_bias, 0.02),
                    gate: config.gated.then(|| linear(config.hidden, config.key_size(layer), config.mlp_bias, 0.02)),
                    down: linear(config.key_size(layer), config.hidden, config.mlp_bias, residual),
                    router: config.mixture(layer).map(|experts| Router {
                        scores: linear(config.hidden, experts.count, false, 0.02),
                        shared: experts.shared.map(|_| linear(config.hidden, 1, false, 0.02)),
                    }),
                })
                .collect(),
            final_norm: norm(),
            head: (!config.tied_head).then(|| linear(config.hidden, config.vocab, config.head_bias, 0.02)),
        }
    }
}
