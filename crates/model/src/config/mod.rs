//! The shape of a decoder.

pub(crate) mod compute;
pub(crate) mod experts;
pub(crate) mod families;
pub(crate) mod fields;
mod key;
pub(crate) mod precision;
pub mod published;
pub(crate) mod weight;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::files::{DESCRIPTION, read_text};
use crate::checkpoint::gguf::config::config_json;
use crate::checkpoint::gguf::read::Gguf;
use crate::config::experts::Experts;

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
    /// Gemma 1: Llama with scaled embeddings and norms that store what is added to 1.
    Gemma,
    /// Gemma 2: Gemma with norms behind attention and feed-forward too, soft caps, and a window in every second layer.
    Gemma2,
    /// Gemma 3's text models: Gemma 2 with norms on queries and keys in place of caps, and two rotary bases.
    Gemma3,
    /// Phi 1 to 2: rotary on part of each head, attention and feed-forward in parallel behind one norm, biases everywhere.
    Phi,
    /// Phi 3 and 4: Llama with fused projections.
    Phi3,
    /// OLMo 1: Llama with LayerNorm that has no weights.
    Olmo,
    /// OLMo 2: norms behind attention and feed-forward alone, and over all heads of queries and of keys.
    Olmo2,
    /// SmolLM 3: Llama with layers that have no positions.
    SmolLm3,
    /// Granite 3: Llama with multipliers.
    Granite,
    /// Cohere's Command R: attention and feed-forward in parallel behind one LayerNorm without bias, scaled logits.
    Cohere,
    /// GLM 4: norms before and behind attention and feed-forward, fused gate, rotary on half of each head.
    Glm4,
    /// EXAONE 4: norms behind attention and feed-forward alone; layers with a window have positions, the others none.
    Exaone4,
    /// Ministral: Llama with windows by layer.
    Ministral,
    /// Ministral 3: Llama with stretched rotary positions.
    Ministral3,
    /// StableLM: Llama with LayerNorm, and rotary on part of each head.
    StableLm,
    /// StarCoder 2: rotary, LayerNorm, biases everywhere, grouped-query attention.
    Starcoder2,
    /// GPT-Neo: learned positions, unscaled attention, a window in every second layer.
    GptNeo,
    /// OPT: learned positions from the third row on, ReLU.
    Opt,
    /// BLOOM: linear biases of attention, a norm behind the embedding.
    Bloom,
    /// Falcon: rotary positions or linear biases; attention and feed-forward in parallel.
    Falcon,
    /// MPT: linear biases of attention, LayerNorm without bias.
    Mpt,
    /// Mixtral: Llama with a mixture of experts.
    Mixtral,
    /// Qwen 1.5 and 2's mixtures of experts: Qwen 2 with experts, one of which all tokens use.
    Qwen2Moe,
    /// Qwen 3's mixtures of experts.
    Qwen3Moe,
    /// OLMoE: a mixture of experts, with norms over all heads of queries and of keys.
    Olmoe,
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
            Self::Gemma => "Gemma",
            Self::Gemma2 => "Gemma 2",
            Self::Gemma3 => "Gemma 3",
            Self::Phi => "Phi",
            Self::Phi3 => "Phi-3",
            Self::Olmo => "OLMo",
            Self::Olmo2 => "OLMo 2",
            Self::SmolLm3 => "SmolLM3",
            Self::Granite => "Granite",
            Self::Cohere => "Cohere",
            Self::Glm4 => "GLM-4",
            Self::Exaone4 => "EXAONE 4",
            Self::Ministral => "Ministral",
            Self::Ministral3 => "Ministral 3",
            Self::StableLm => "StableLM",
            Self::Starcoder2 => "StarCoder2",
            Self::GptNeo => "GPT-Neo",
            Self::Opt => "OPT",
            Self::Bloom => "BLOOM",
            Self::Falcon => "Falcon",
            Self::Mpt => "MPT",
            Self::Mixtral => "Mixtral",
            Self::Qwen2Moe => "Qwen2-MoE",
            Self::Qwen3Moe => "Qwen3-MoE",
            Self::Olmoe => "OLMoE",
        }
    }
}

/// Which normalisation a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation.
    Layer,
    /// Divide by the root mean square.
    Rms,
}

/// How queries and keys are normalised before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadNorm {
    /// Head by head, with the same weights for all heads.
    Shared,
    /// Head by head, each with weights of its own.
    Each,
    /// All heads together.
    Whole,
}

/// How positions enter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Positions {
    /// A learned vector is added to the embedding.
    Learned {
        /// The table's row of the first position.
        offset: usize,
    },
    /// Queries and keys are rotated.
    Rotary(Rotary),
    /// Attention scores fall with the distance, at each head's own pace.
    Alibi {
        /// Slopes go down to `2^(−most)`.
        most: f64,
        /// What biases are multiplied with.
        scale: f64,
        /// Biases are rounded to bfloat16.
        rounded: bool,
    },
}

/// A rotation of queries and keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rotary {
    /// Leading dimensions of each head that are rotated.
    pub dim: usize,
    /// Base of the geometric row of wavelengths.
    pub theta: f64,
    /// Rotated pairs are neighbours (GPT-J) rather than half a head apart (Llama).
    pub interleaved: bool,
    /// Stretching of long wavelengths.
    pub scaling: Option<RotaryScaling>,
}

/// Which of a model's rotations a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerRotary {
    /// That of [`DecoderConfig::positions`].
    First,
    /// [`DecoderConfig::second_rotary`].
    Second,
    /// None.
    None,
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
    /// YaRN (arXiv 2309.00071): frequencies that turn rarely in the first context are divided, those that turn often are kept.
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// What rotated numbers are multiplied with.
        attention: f64,
        /// Frequencies with more turns are kept.
        fast: f64,
        /// Frequencies with fewer turns are divided.
        slow: f64,
        /// Context length of the first training.
        original: f64,
        /// Whether the bounds between are whole pairs.
        whole: bool,
    },
    /// Each frequency divided by a factor of its own.
    Each {
        /// One for each rotated pair.
        factors: Vec<f64>,
        /// What rotated numbers are multiplied with.
        attention: f64,
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

/// What stands between a down-projection and the hidden state after its block, and so how what is missing there is brought back to the
/// projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beyond {
    /// Nothing: the output is added.
    Nothing,
    /// A multiplier, which what is missing is divided by.
    Multiplier(f64),
    /// A norm. Targets are sought, and what is missing is measured, at the projection's own output.
    Norm,
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
    /// Feed-forward size `f`: the dimension of a key in model editing, in layers without experts (see [`DecoderConfig::key_size`]).
    pub feed_forward: usize,
    /// The mixture of experts that layers have in place of one feed-forward.
    pub experts: Option<Experts>,
    /// Context length in tokens.
    pub context: usize,
    /// Normalisation.
    pub norm: NormKind,
    /// Added to the variance before its root is taken.
    pub norm_epsilon: f64,
    /// Norms have weights.
    pub norm_weight: bool,
    /// Norms of hidden states have a bias.
    pub norm_bias: bool,
    /// What is stored as a norm's weight is added to 1.
    pub norm_plus_one: bool,
    /// Attention and feed-forward read the hidden state behind a norm.
    pub norms_before: bool,
    /// What attention and feed-forward add goes through a norm.
    pub norms_behind: bool,
    /// Positions.
    pub positions: Positions,
    /// A rotation that some layers have instead.
    pub second_rotary: Option<Rotary>,
    /// Which rotation each layer has; empty where all layers have that of `positions`.
    pub layer_rotary: Vec<LayerRotary>,
    /// How many positions each layer's attention looks back over, itself counted; empty where all layers see everything.
    pub windows: Vec<Option<usize>>,
    /// What products of queries and keys are multiplied with; `1/√head_dim` where there is none.
    pub attention_scale: Option<f64>,
    /// Attention scores `s` become `cap · tanh(s/cap)`.
    pub attention_cap: Option<f64>,
    /// Queries, keys and values are cut off at this size.
    pub qkv_clip: Option<f64>,
    /// Nonlinearity.
    pub activation: Activation,
    /// Gated feed-forward (`act(gate) · up`).
    pub gated: bool,
    /// Block shape.
    pub arrangement: Arrangement,
    /// Queries and keys are normalised before they are rotated.
    pub head_norm: Option<HeadNorm>,
    /// Norms of queries and keys have a bias.
    pub head_norm_bias: bool,
    /// Bias on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub attention_out_bias: bool,
    /// Bias on the feed-forward projections.
    pub mlp_bias: bool,
    /// What embeddings are multiplied with.
    pub embedding_multiplier: f64,
    /// Embeddings go through a norm.
    pub embedding_norm: bool,
    /// What attention and feed-forward add is multiplied with.
    pub residual_multiplier: f64,
    /// The head is the transposed token embedding.
    pub tied_head: bool,
    /// Bias on the head.
    pub head_bias: bool,
    /// What logits are multiplied with.
    pub logit_multiplier: f64,
    /// Logits `l` become `cap · tanh(l/cap)`.
    pub logit_cap: Option<f64>,
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
            experts: None,
            context,
            norm: NormKind::Layer,
            norm_epsilon: 1e-5,
            norm_weight: true,
            norm_bias: true,
            norm_plus_one: false,
            norms_before: true,
            norms_behind: false,
            positions: Positions::Learned { offset: 0 },
            second_rotary: None,
            layer_rotary: Vec::new(),
            windows: Vec::new(),
            attention_scale: None,
            attention_cap: None,
            qkv_clip: None,
            activation: Activation::GeluNew,
            gated: false,
            arrangement: Arrangement::Sequential,
            head_norm: None,
            head_norm_bias: false,
            qkv_bias: true,
            attention_out_bias: true,
            mlp_bias: true,
            embedding_multiplier: 1.0,
            embedding_norm: false,
            residual_multiplier: 1.0,
            tied_head: true,
            head_bias: false,
            logit_multiplier: 1.0,
            logit_cap: None,
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

    /// Which rotation a layer has.
    pub fn rotary_of(&self, layer: usize) -> LayerRotary {
        self.layer_rotary.get(layer).copied().unwrap_or(LayerRotary::First)
    }

    /// Whether the feed-forward has a norm of its own.
    pub fn has_second_norm(&self) -> bool {
        self.norms_before && self.arrangement != Arrangement::Parallel
    }

    /// What stands between a down-projection and the hidden state.
    pub fn beyond(&self) -> Beyond {
        if self.norms_behind {
            Beyond::Norm
        } else if self.residual_multiplier == 1.0 {
            Beyond::Nothing
        } else {
            Beyond::Multiplier(self.residual_multiplier)
        }
    }
}
