//! The shape of a decoder.

pub(crate) mod families;
pub(crate) mod fields;
pub(crate) mod precision;
pub mod published;
pub(crate) mod weight;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::files::{DESCRIPTION, read_text};
use crate::checkpoint::gguf::config::config_json;
use crate::checkpoint::gguf::read::Gguf;

/// The families that are recognised; each differs from the others in configuration and tensor names alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// GPT-2: learned positions, LayerNorm, tied head, Conv1D weights.
    Gpt2,
    /// GPT-J: rotary on part of each head, attention and feed-forward in parallel, head with bias.
    GptJ,
    /// GPT-NeoX and Pythia: rotary on part of each head, attention and feed-forward in parallel behind a norm each.
    GptNeoX,
    /// Llama 1 to 3: RMSNorm, rotary, gated feed-forward, grouped-query attention.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: Llama with a bias on queries, keys and values.
    Qwen2,
    /// Qwen 3: Llama with norms on queries and keys.
    Qwen3,
}

impl Family {
    /// The family's name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "GPT-2",
            Self::GptJ => "GPT-J",
            Self::GptNeoX => "GPT-NeoX",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
        }
    }
}

/// Which normalisation stands before attention and feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation; weight and bias.
    Layer,
    /// Divide by the root mean square; weight only.
    Rms,
}

/// How positions enter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Positions {
    /// A learned vector is added to the embedding.
    Learned,
    /// Queries and keys are rotated.
    Rotary {
        /// Leading dimensions of each head that are rotated.
        dim: usize,
        /// Base of the geometric row of wavelengths.
        theta: f64,
        /// Rotated pairs are neighbours (GPT-J) rather than half a head apart (Llama).
        interleaved: bool,
        /// Stretching of long wavelengths.
        scaling: Option<RotaryScaling>,
    },
}

/// Rotary frequencies changed for longer contexts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RotaryScaling {
    /// All frequencies divided by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3's rule: long wavelengths divided, short ones kept, a smooth passage between.
    Llama3 {
        /// Divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low: f64,
        /// Wavelengths below `original / high` are kept.
        high: f64,
        /// Context length of the first training.
        original: f64,
    },
}

/// The feed-forward's nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// GELU in its tanh approximation (`gelu_new`).
    GeluNew,
    /// GELU by the error function.
    Gelu,
    /// ReLU.
    Relu,
    /// SiLU.
    Silu,
}

/// How attention and feed-forward follow each other in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrangement {
    /// The feed-forward reads what attention wrote.
    Sequential,
    /// Both read the same normalised input, and both are added.
    Parallel,
    /// Both read the block's input, each behind a norm of its own, and both are added.
    ParallelTwoNorms,
}

impl Arrangement {
    /// Whether the feed-forward has a norm of its own.
    pub fn has_second_norm(self) -> bool {
        self != Self::Parallel
    }
}

/// Everything that the forward pass needs to know about a model's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// The family whose tensor names are used.
    pub family: Family,
    /// Vocabulary size `V`.
    pub vocab: usize,
    /// Hidden size `d`.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; fewer than `heads` in grouped-query attention.
    pub kv_heads: usize,
    /// Size of one head.
    pub head_dim: usize,
    /// Feed-forward size `f`: the dimension of a key in model editing.
    pub feed_forward: usize,
    /// Context length in tokens.
    pub context: usize,
    /// Normalisation.
    pub norm: NormKind,
    /// Added to the variance before its root is taken.
    pub norm_epsilon: f64,
    /// Positions.
    pub positions: Positions,
    /// How many positions each layer's attention looks back over, itself counted; empty where all layers see everything.
    pub windows: Vec<Option<usize>>,
    /// Nonlinearity.
    pub activation: Activation,
    /// Gated feed-forward (`act(gate) · up`).
    pub gated: bool,
    /// Block shape.
    pub arrangement: Arrangement,
    /// Queries and keys are normalised head by head before they are rotated.
    pub head_norm: bool,
    /// Bias on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub attention_out_bias: bool,
    /// Bias on the feed-forward projections.
    pub mlp_bias: bool,
    /// The head is the transposed token embedding.
    pub tied_head: bool,
    /// Bias on the head.
    pub head_bias: bool,
}

impl DecoderConfig {
    /// Reads a folder's `config.json`, or what a GGUF file says instead.
    ///
    /// # Errors
    /// [`crate::ModelError::Io`]; as [`DecoderConfig::from_hf`]; for a GGUF file also [`crate::ModelError::Gguf`].
    pub fn read(path: &Path) -> Result<Self, crate::ModelError> {
        if Gguf::is(path) {
            return Self::of_gguf(&Gguf::open(path)?);
        }
        Self::from_hf(&read_text(path, DESCRIPTION)?, path)
    }

    pub(crate) fn of_gguf(file: &Gguf) -> Result<Self, crate::ModelError> {
        Self::from_hf(&config_json(file)?, &file.path)
    }

    /// A GPT-2 of the given sizes, as `GPT2Config` would describe it.
    pub fn gpt2(vocab: usize, hidden: usize, layers: usize, heads: usize, context: usize) -> Self {
        Self {
            family: Family::Gpt2,
            vocab,
            hidden,
            layers,
            heads,
            kv_heads: heads,
            head_dim: hidden / heads.max(1),
            feed_forward: 4 * hidden,
            context,
            norm: NormKind::Layer,
            norm_epsilon: 1e-5,
            positions: Positions::Learned,
            windows: Vec::new(),
            activation: Activation::GeluNew,
            gated: false,
            arrangement: Arrangement::Sequential,
            head_norm: false,
            qkv_bias: true,
            attention_out_bias: true,
            mlp_bias: true,
            tied_head: true,
            head_bias: false,
        }
    }

    /// Refuses a layer that the model lacks.
    ///
    /// # Errors
    /// [`crate::ModelError::Layer`].
    pub fn check_layer(&self, layer: usize) -> Result<(), crate::ModelError> {
        if layer < self.layers {
            Ok(())
        } else {
            Err(crate::ModelError::Layer { layer, last: self.layers.saturating_sub(1) })
        }
    }

    /// How many positions a layer's attention looks back over, itself counted; `None` for all of them.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.windows.get(layer).copied().flatten()
    }

    /// Whether every layer's attention looks back over `positions` positions.
    pub fn sees(&self, positions: usize) -> bool {
        (0..self.layers).all(|layer| self.window(layer).is_none_or(|window| positions <= window))
    }
}
