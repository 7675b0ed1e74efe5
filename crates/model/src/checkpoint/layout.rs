//! Names and orientations of a family's stored tensors.

use crate::{DecoderConfig, Family, MlpModule, NormKind, WeightId};

/// How a projection's weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// `[in, out]`, as GPT-2's Conv1D (and Burn) has it.
    InOut,
    /// `[out, in]`, as torch's Linear has it.
    OutIn,
}

/// Where a family's checkpoint keeps each tensor. `{}` stands for the layer.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Orientation of every projection inside the blocks.
    pub orientation: Orientation,
    /// Token embedding `[V, d]`.
    pub token_embedding: &'static str,
    /// Learned positions `[context, d]`.
    pub position_embedding: &'static str,
    /// Norm before attention, without `.weight`.
    pub norm_1: &'static str,
    /// Norm before the feed-forward; [`crate::Arrangement::Parallel`] has none.
    pub norm_2: &'static str,
    /// Query, key and value projections: one fused name, or three.
    pub qkv: &'static [&'static str],
    /// A fused projection holds query, key and value of the first head, then of the second, and so on; otherwise all
    /// queries come first.
    pub by_head: bool,
    /// Norms of queries and of keys, without `.weight`, where the family has them.
    pub head_norms: [&'static str; 2],
    /// Attention's output projection.
    pub attention_out: &'static str,
    /// Feed-forward up-projection.
    pub up: &'static str,
    /// Feed-forward gate.
    pub gate: &'static str,
    /// Feed-forward down-projection: the weight that is edited.
    pub down: &'static str,
    /// Norm before the head.
    pub final_norm: &'static str,
    /// Head `[V, d]`.
    pub head: &'static str,
}

const GPT2: Layout = Layout {
    orientation: Orientation::InOut,
    token_embedding: "transformer.wte.weight",
    position_embedding: "transformer.wpe.weight",
    norm_1: "transformer.h.{}.ln_1",
    norm_2: "transformer.h.{}.ln_2",
    qkv: &["transformer.h.{}.attn.c_attn"],
    by_head: false,
    head_norms: [""; 2],
    attention_out: "transformer.h.{}.attn.c_proj",
    up: "transformer.h.{}.mlp.c_fc",
    gate: "",
    down: "transformer.h.{}.mlp.c_proj",
    final_norm: "transformer.ln_f",
    head: "lm_head",
};

const GPTJ: Layout = Layout {
    orientation: Orientation::OutIn,
    token_embedding: "transformer.wte.weight",
    position_embedding: "",
    norm_1: "transformer.h.{}.ln_1",
    norm_2: "",
    qkv: &["transformer.h.{}.attn.q_proj", "transformer.h.{}.attn.k_proj", "transformer.h.{}.attn.v_proj"],
    by_head: false,
    head_norms: [""; 2],
    attention_out: "transformer.h.{}.attn.out_proj",
    up: "transformer.h.{}.mlp.fc_in",
    gate: "",
    down: "transformer.h.{}.mlp.fc_out",
    final_norm: "transformer.ln_f",
    head: "lm_head",
};

const GPT_NEOX: Layout = Layout {
    orientation: Orientation::OutIn,
    token_embedding: "gpt_neox.embed_in.weight",
    position_embedding: "",
    norm_1: "gpt_neox.layers.{}.input_layernorm",
    norm_2: "gpt_neox.layers.{}.post_attention_layernorm",
    qkv: &["gpt_neox.layers.{}.attention.query_key_value"],
    by_head: true,
    head_norms: [""; 2],
    attention_out: "gpt_neox.layers.{}.attention.dense",
    up: "gpt_neox.layers.{}.mlp.dense_h_to_4h",
    gate: "",
    down: "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    final_norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
};

/// Of Mistral and Qwen too.
const LLAMA: Layout = Layout {
    orientation: Orientation::OutIn,
    token_embedding: "model.embed_tokens.weight",
    position_embedding: "",
    norm_1: "model.layers.{}.input_layernorm",
    norm_2: "model.layers.{}.post_attention_layernorm",
    qkv: &["model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.k_proj", "model.layers.{}.self_attn.v_proj"],
    by_head: false,
    head_norms: ["model.layers.{}.self_attn.q_norm", "model.layers.{}.self_attn.k_norm"],
    attention_out: "model.layers.{}.self_attn.o_proj",
    up: "model.layers.{}.mlp.up_proj",
    gate: "model.layers.{}.mlp.gate_proj",
    down: "model.layers.{}.mlp.down_proj",
    final_norm: "model.norm",
    head: "lm_head",
};

impl Layout {
    /// Every layout there is; families share some.
    pub const ALL: [Self; 4] = [GPT2, GPTJ, GPT_NEOX, LLAMA];

    /// The layout of a configuration's family.
    pub fn of(config: &DecoderConfig) -> Self {
        match config.family {
            Family::Gpt2 => GPT2,
            Family::GptJ => GPTJ,
            Family::GptNeoX => GPT_NEOX,
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => LLAMA,
        }
    }

    /// Name of the module whose weight editing changes in a layer.
    pub fn edited_module(&self, layer: usize) -> String {
        fill(self.down, layer)
    }

    /// Full name of the weight that editing changes in a layer.
    pub fn edited_weight(&self, layer: usize) -> String {
        weight(self.down, layer)
    }

    /// Full name of a weight; `None` for one that the family has no name for.
    pub fn weight_name(&self, id: WeightId) -> Option<String> {
        let stem = match id.module {
            MlpModule::Down | MlpModule::Bias => self.down,
            MlpModule::Up => self.up,
            MlpModule::Gate => self.gate,
        };
        let name = if id.module == MlpModule::Bias { bias_name } else { weight };
        (!stem.is_empty() && id.expert.is_none()).then(|| name(stem, id.layer))
    }

    /// Every tensor with its stored shape, in checkpoint order.
    pub fn tensors(&self, c: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![(self.token_embedding.to_string(), vec![c.vocab, c.hidden])];
        if !self.position_embedding.is_empty() {
            all.push((self.position_embedding.to_string(), vec![c.context, c.hidden]));
        }
        let norm = |all: &mut Vec<_>, stem: String| {
            all.push((format!("{stem}.weight"), vec![c.hidden]));
            if c.norm == NormKind::Layer {
                all.push((format!("{stem}.bias"), vec![c.hidden]));
            }
        };
        let projection = |all: &mut Vec<_>, stem: &str, layer: usize, input: usize, output: usize, bias: bool| {
            all.push((weight(stem, layer), self.stored_shape(input, output)));
            if bias {
                all.push((bias_name(stem, layer), vec![output]));
            }
        };
        for layer in 0..c.layers {
            norm(&mut all, fill(self.norm_1, layer));
            for (stem, width) in self.qkv.iter().zip(self.qkv_widths(c)) {
                projection(&mut all, stem, layer, c.hidden, width, c.qkv_bias);
            }
            if c.head_norm {
                all.extend(self.head_norms.map(|stem| (weight(stem, layer), vec![c.head_dim])));
            }
            projection(&mut all, self.attention_out, layer, c.heads * c.head_dim, c.hidden, c.attention_out_bias);
            if c.arrangement.has_second_norm() {
                norm(&mut all, fill(self.norm_2, layer));
            }
            projection(&mut all, self.up, layer, c.hidden, c.feed_forward, c.mlp_bias);
            if c.gated {
                projection(&mut all, self.gate, layer, c.hidden, c.feed_forward, c.mlp_bias);
            }
            projection(&mut all, self.down, layer, c.feed_forward, c.hidden, c.mlp_bias);
        }
        norm(&mut all, self.final_norm.to_string());
        if !c.tied_head {
            all.push((format!("{}.weight", self.head), vec![c.vocab, c.hidden]));
        }
        if c.head_bias {
            all.push((format!("{}.bias", self.head), vec![c.vocab]));
        }
        all
    }

    /// Whether a stored tensor that the configuration does not ask for would have changed the forward pass: anything in a
    /// block but the buffers that older versions of transformers saved.
    pub fn matters(&self, name: &str) -> bool {
        const BUFFERS: [&str; 6] = [
            ".attn.bias",
            ".attn.masked_bias",
            ".attention.bias",
            ".attention.masked_bias",
            ".rotary_emb.inv_freq",
            ".embed_positions",
        ];
        let Some((blocks, _)) = self.norm_1.split_once("{}") else { return false };
        let short = blocks.split_once('.').map_or(blocks, |(_, rest)| rest);
        (name.starts_with(blocks) || name.starts_with(short)) && !BUFFERS.iter().any(|end| name.ends_with(end))
    }

    /// Output widths of the query, key and value projections, fused or apart.
    pub fn qkv_widths(&self, c: &DecoderConfig) -> Vec<usize> {
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        if self.qkv.len() == 1 { vec![q + 2 * kv] } else { vec![q, kv, kv] }
    }

    /// The shape in which a projection of these sizes is stored.
    pub fn stored_shape(&self, input: usize, output: usize) -> Vec<usize> {
        match self.orientation {
            Orientation::InOut => vec![input, output],
            Orientation::OutIn => vec![output, input],
        }
    }
}

impl DecoderConfig {
    /// The shape of a weight in `[out, in]` orientation; `None` for one that the model does not have.
    pub fn weight_shape(&self, weight: WeightId) -> Option<[usize; 2]> {
        if weight.layer >= self.layers || weight.expert.is_some() {
            return None;
        }
        match weight.module {
            MlpModule::Down => Some([self.hidden, self.feed_forward]),
            MlpModule::Gate if !self.gated => None,
            MlpModule::Up | MlpModule::Gate => Some([self.feed_forward, self.hidden]),
            MlpModule::Bias => self.mlp_bias.then_some([self.hidden, 1]),
        }
    }

    /// Number of weights, from the shapes.
    pub fn parameters(&self) -> usize {
        let size = |shape: &[usize]| shape.iter().fold(1usize, |n, &side| n.saturating_mul(side));
        Layout::of(self).tensors(self).iter().fold(0, |n, (_, shape)| n.saturating_add(size(shape)))
    }
}

/// A stem with its layer filled in.
pub fn fill(stem: &str, layer: usize) -> String {
    stem.replace("{}", &layer.to_string())
}

/// Name of a stem's weight.
pub fn weight(stem: &str, layer: usize) -> String {
    format!("{}.weight", fill(stem, layer))
}

/// Name of a stem's bias.
pub fn bias_name(stem: &str, layer: usize) -> String {
    format!("{}.bias", fill(stem, layer))
}
