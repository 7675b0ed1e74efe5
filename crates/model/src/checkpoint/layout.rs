//! Names and orientations of a family's stored tensors.

use crate::{Arrangement, DecoderConfig, ExpertId, Experts, Family, HeadNorm, MlpModule, Positions, WeightId};

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
    /// Norm of embeddings, without `.weight`, where the family has one.
    pub embedding_norm: &'static str,
    /// Norm before attention, without `.weight`.
    pub norm_1: &'static str,
    /// Norm before the feed-forward; [`crate::Arrangement::Parallel`] has none.
    pub norm_2: &'static str,
    /// Norm of what attention adds, without `.weight`, where the family has one.
    pub attention_norm: &'static str,
    /// Norm of what the feed-forward adds, without `.weight`, where the family has one.
    pub mlp_norm: &'static str,
    /// Query, key and value projections: one fused name, or three.
    pub qkv: &'static [&'static str],
    /// A fused projection holds the queries, the key and the value of the first key head, then of the second, and so on; otherwise
    /// all queries come first.
    pub by_head: bool,
    /// Norms of queries and of keys, without `.weight`, where the family has them. `{head}` stands for the head, where each has a tensor
    /// of its own.
    pub head_norms: [&'static str; 2],
    /// Attention's output projection.
    pub attention_out: &'static str,
    /// Feed-forward up-projection; none where it is stored with the gate.
    pub up: &'static str,
    /// Feed-forward gate.
    pub gate: &'static str,
    /// Feed-forward gate and, behind it, up-projection, where they are stored as one.
    pub gate_up: &'static str,
    /// Feed-forward down-projection: the weight that is edited.
    pub down: &'static str,
    /// What layers with a mixture of experts have instead, where the family has such layers.
    pub mixture: Option<MixtureLayout>,
    /// Norm before the head.
    pub final_norm: &'static str,
    /// Head `[V, d]`.
    pub head: &'static str,
}

/// Where a family's checkpoint keeps a mixture of experts. `{}` stands for the layer, `{expert}` for the expert.
#[derive(Clone, Copy, Debug)]
pub struct MixtureLayout {
    /// From the feed-forward's input to a score for each expert, `[experts, d]`.
    pub router: &'static str,
    /// An expert's projections.
    pub expert: ExpertLayout,
    /// Those of the expert that all tokens use, where there is one.
    pub shared: ExpertLayout,
    /// From the feed-forward's input to the score of that expert, `[1, d]`.
    pub shared_router: &'static str,
}

/// Projections of an expert.
#[derive(Clone, Copy, Debug)]
pub struct ExpertLayout {
    /// Up-projection.
    pub up: &'static str,
    /// Gate.
    pub gate: &'static str,
    /// Down-projection.
    pub down: &'static str,
}

/// What most families have not.
const NONE: Layout = Layout {
    orientation: Orientation::OutIn,
    token_embedding: "",
    position_embedding: "",
    embedding_norm: "",
    norm_1: "",
    norm_2: "",
    attention_norm: "",
    mlp_norm: "",
    qkv: &[],
    by_head: false,
    head_norms: [""; 2],
    attention_out: "",
    up: "",
    gate: "",
    gate_up: "",
    down: "",
    mixture: None,
    final_norm: "",
    head: "",
};

const GPT2: Layout = Layout {
    orientation: Orientation::InOut,
    token_embedding: "transformer.wte.weight",
    position_embedding: "transformer.wpe.weight",
    norm_1: "transformer.h.{}.ln_1",
    norm_2: "transformer.h.{}.ln_2",
    qkv: &["transformer.h.{}.attn.c_attn"],
    attention_out: "transformer.h.{}.attn.c_proj",
    up: "transformer.h.{}.mlp.c_fc",
    down: "transformer.h.{}.mlp.c_proj",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    ..NONE
};

const GPTJ: Layout = Layout {
    token_embedding: "transformer.wte.weight",
    norm_1: "transformer.h.{}.ln_1",
    qkv: &["transformer.h.{}.attn.q_proj", "transformer.h.{}.attn.k_proj", "transformer.h.{}.attn.v_proj"],
    attention_out: "transformer.h.{}.attn.out_proj",
    up: "transformer.h.{}.mlp.fc_in",
    down: "transformer.h.{}.mlp.fc_out",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    ..NONE
};

const GPT_NEOX: Layout = Layout {
    token_embedding: "gpt_neox.embed_in.weight",
    norm_1: "gpt_neox.layers.{}.input_layernorm",
    norm_2: "gpt_neox.layers.{}.post_attention_layernorm",
    qkv: &["gpt_neox.layers.{}.attention.query_key_value"],
    by_head: true,
    attention_out: "gpt_neox.layers.{}.attention.dense",
    up: "gpt_neox.layers.{}.mlp.dense_h_to_4h",
    down: "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    final_norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    ..NONE
};

/// Of most of its descendants too.
const LLAMA: Layout = Layout {
    token_embedding: "model.embed_tokens.weight",
    norm_1: "model.layers.{}.input_layernorm",
    norm_2: "model.layers.{}.post_attention_layernorm",
    qkv: &["model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.k_proj", "model.layers.{}.self_attn.v_proj"],
    head_norms: ["model.layers.{}.self_attn.q_norm", "model.layers.{}.self_attn.k_norm"],
    attention_out: "model.layers.{}.self_attn.o_proj",
    up: "model.layers.{}.mlp.up_proj",
    gate: "model.layers.{}.mlp.gate_proj",
    down: "model.layers.{}.mlp.down_proj",
    final_norm: "model.norm",
    head: "lm_head",
    ..NONE
};

/// Norms before and behind attention and feed-forward.
const GEMMA2: Layout = Layout {
    norm_2: "model.layers.{}.pre_feedforward_layernorm",
    attention_norm: "model.layers.{}.post_attention_layernorm",
    mlp_norm: "model.layers.{}.post_feedforward_layernorm",
    ..LLAMA
};

/// Norms behind alone. EXAONE 4 has them too.
const OLMO2: Layout = Layout { norm_1: "", norm_2: "", ..GEMMA2 };

const PHI: Layout = Layout {
    norm_2: "",
    head_norms: ["model.layers.{}.self_attn.q_layernorm", "model.layers.{}.self_attn.k_layernorm"],
    attention_out: "model.layers.{}.self_attn.dense",
    up: "model.layers.{}.mlp.fc1",
    gate: "",
    down: "model.layers.{}.mlp.fc2",
    final_norm: "model.final_layernorm",
    ..LLAMA
};

const PHI3: Layout =
    Layout { qkv: &["model.layers.{}.self_attn.qkv_proj"], up: "", gate: "", gate_up: GATE_UP, ..LLAMA };
const GATE_UP: &str = "model.layers.{}.mlp.gate_up_proj";

const GLM4: Layout = Layout {
    attention_norm: "model.layers.{}.post_self_attn_layernorm",
    mlp_norm: "model.layers.{}.post_mlp_layernorm",
    up: "",
    gate: "",
    gate_up: GATE_UP,
    ..LLAMA
};

const STABLELM: Layout = Layout {
    head_norms: [
        "model.layers.{}.self_attn.q_layernorm.norms.{head}",
        "model.layers.{}.self_attn.k_layernorm.norms.{head}",
    ],
    ..LLAMA
};

const STARCODER2: Layout =
    Layout { up: "model.layers.{}.mlp.c_fc", gate: "", down: "model.layers.{}.mlp.c_proj", ..LLAMA };

const GPT_NEO: Layout = Layout {
    orientation: Orientation::OutIn,
    qkv: &[
        "transformer.h.{}.attn.attention.q_proj",
        "transformer.h.{}.attn.attention.k_proj",
        "transformer.h.{}.attn.attention.v_proj",
    ],
    attention_out: "transformer.h.{}.attn.attention.out_proj",
    ..GPT2
};

const OPT: Layout = Layout {
    token_embedding: "model.decoder.embed_tokens.weight",
    position_embedding: "model.decoder.embed_positions.weight",
    norm_1: "model.decoder.layers.{}.self_attn_layer_norm",
    norm_2: "model.decoder.layers.{}.final_layer_norm",
    qkv: &[
        "model.decoder.layers.{}.self_attn.q_proj",
        "model.decoder.layers.{}.self_attn.k_proj",
        "model.decoder.layers.{}.self_attn.v_proj",
    ],
    attention_out: "model.decoder.layers.{}.self_attn.out_proj",
    up: "model.decoder.layers.{}.fc1",
    down: "model.decoder.layers.{}.fc2",
    final_norm: "model.decoder.final_layer_norm",
    head: "lm_head",
    ..NONE
};

const BLOOM: Layout = Layout {
    token_embedding: "transformer.word_embeddings.weight",
    embedding_norm: "transformer.word_embeddings_layernorm",
    norm_1: "transformer.h.{}.input_layernorm",
    norm_2: "transformer.h.{}.post_attention_layernorm",
    qkv: &["transformer.h.{}.self_attention.query_key_value"],
    by_head: true,
    attention_out: "transformer.h.{}.self_attention.dense",
    up: "transformer.h.{}.mlp.dense_h_to_4h",
    down: "transformer.h.{}.mlp.dense_4h_to_h",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    ..NONE
};

const FALCON: Layout = Layout { embedding_norm: "", ..BLOOM };
const FALCON_TWO_NORMS: Layout =
    Layout { norm_1: "transformer.h.{}.ln_attn", norm_2: "transformer.h.{}.ln_mlp", ..FALCON };

const MPT: Layout = Layout {
    token_embedding: "transformer.wte.weight",
    norm_1: "transformer.blocks.{}.norm_1",
    norm_2: "transformer.blocks.{}.norm_2",
    qkv: &["transformer.blocks.{}.attn.Wqkv"],
    attention_out: "transformer.blocks.{}.attn.out_proj",
    up: "transformer.blocks.{}.ffn.up_proj",
    down: "transformer.blocks.{}.ffn.down_proj",
    final_norm: "transformer.norm_f",
    head: "lm_head",
    ..NONE
};

const MIXTRAL: Layout = Layout {
    mixture: Some(MixtureLayout {
        router: "model.layers.{}.block_sparse_moe.gate",
        expert: ExpertLayout {
            up: "model.layers.{}.block_sparse_moe.experts.{expert}.w3",
            gate: "model.layers.{}.block_sparse_moe.experts.{expert}.w1",
            down: "model.layers.{}.block_sparse_moe.experts.{expert}.w2",
        },
        shared: ExpertLayout { up: "", gate: "", down: "" },
        shared_router: "",
    }),
    ..LLAMA
};

/// OLMoE and Qwen 3 have no shared expert.
const QWEN_MOE: Layout = Layout {
    mixture: Some(MixtureLayout {
        router: "model.layers.{}.mlp.gate",
        expert: ExpertLayout {
            up: "model.layers.{}.mlp.experts.{expert}.up_proj",
            gate: "model.layers.{}.mlp.experts.{expert}.gate_proj",
            down: "model.layers.{}.mlp.experts.{expert}.down_proj",
        },
        shared: ExpertLayout {
            up: "model.layers.{}.mlp.shared_expert.up_proj",
            gate: "model.layers.{}.mlp.shared_expert.gate_proj",
            down: "model.layers.{}.mlp.shared_expert.down_proj",
        },
        shared_router: "model.layers.{}.mlp.shared_expert_gate",
    }),
    ..LLAMA
};

impl MixtureLayout {
    /// An expert's up-projection, gate and down-projection, with the expert filled in.
    pub fn stems(&self, expert: ExpertId) -> [String; 3] {
        let ExpertLayout { up, gate, down } = match expert {
            ExpertId::Routed(_) => self.expert,
            ExpertId::Shared => self.shared,
        };
        [up, gate, down].map(|stem| match expert {
            ExpertId::Routed(number) => stem.replace("{expert}", &number.to_string()),
            ExpertId::Shared => stem.to_owned(),
        })
    }
}

impl Layout {
    /// Every layout there is; families share some.
    pub const ALL: [Self; 18] = [
        GPT2, GPTJ, GPT_NEOX, LLAMA, GEMMA2, OLMO2, PHI, PHI3, GLM4, STABLELM, STARCODER2, GPT_NEO, OPT, BLOOM, FALCON,
        MPT, MIXTRAL, QWEN_MOE,
    ];

    /// The layout of a configuration's family.
    pub fn of(config: &DecoderConfig) -> Self {
        match config.family {
            Family::Gpt2 => GPT2,
            Family::GptJ => GPTJ,
            Family::GptNeoX => GPT_NEOX,
            Family::Llama
            | Family::Mistral
            | Family::Qwen2
            | Family::Qwen3
            | Family::Gemma
            | Family::Olmo
            | Family::SmolLm3
            | Family::Granite
            | Family::Cohere
            | Family::Ministral
            | Family::Ministral3 => LLAMA,
            Family::Gemma2 | Family::Gemma3 => GEMMA2,
            Family::Olmo2 | Family::Exaone4 => OLMO2,
            Family::Phi => PHI,
            Family::Phi3 => PHI3,
            Family::Glm4 => GLM4,
            Family::StableLm => STABLELM,
            Family::Starcoder2 => STARCODER2,
            Family::GptNeo => GPT_NEO,
            Family::Opt => OPT,
            Family::Bloom => BLOOM,
            Family::Falcon if config.arrangement == Arrangement::ParallelTwoNorms => FALCON_TWO_NORMS,
            Family::Falcon => FALCON,
            Family::Mpt => MPT,
            Family::Mixtral => MIXTRAL,
            Family::Qwen2Moe | Family::Qwen3Moe | Family::Olmoe => QWEN_MOE,
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
        if let Some(expert) = id.expert {
            let [up, gate, down] = self.mixture?.stems(expert);
            let stem = match id.module {
                MlpModule::Down => down,
                MlpModule::Up => up,
                MlpModule::Gate => gate,
                MlpModule::Bias => return None,
            };
            return (!stem.is_empty()).then(|| weight(&stem, id.layer));
        }
        let stem = match id.module {
            MlpModule::Down | MlpModule::Bias => self.down,
            MlpModule::Up => self.up,
            MlpModule::Gate => self.gate,
        };
        let name = if id.module == MlpModule::Bias { bias_name } else { weight };
        (!stem.is_empty()).then(|| name(stem, id.layer))
    }

    /// Every tensor with its stored shape, in checkpoint order.
    pub fn tensors(&self, c: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![(self.token_embedding.to_string(), vec![c.vocab, c.hidden])];
        if let Some(rows) = c.position_rows() {
            all.push((self.position_embedding.to_string(), vec![rows, c.hidden]));
        }
        let norm = |all: &mut Vec<_>, stem: String| {
            if c.norm_weight {
                all.push((format!("{stem}.weight"), vec![c.hidden]));
            }
            if c.norm_bias {
                all.push((format!("{stem}.bias"), vec![c.hidden]));
            }
        };
        let projection = |all: &mut Vec<_>, stem: &str, layer: usize, input: usize, output: usize, bias: bool| {
            all.push((weight(stem, layer), self.stored_shape(input, output)));
            if bias {
                all.push((bias_name(stem, layer), vec![output]));
            }
        };
        if c.embedding_norm {
            norm(&mut all, self.embedding_norm.to_string());
        }
        for layer in 0..c.layers {
            if c.norms_before {
                norm(&mut all, fill(self.norm_1, layer));
            }
            for (stem, width) in self.qkv.iter().zip(self.qkv_widths(c)) {
                projection(&mut all, stem, layer, c.hidden, width, c.qkv_bias);
            }
            for (which, heads) in [c.heads, c.kv_heads].into_iter().enumerate() {
                for (stem, shape) in self.head_norm(c, which, layer, heads) {
                    all.push((format!("{stem}.weight"), shape.clone()));
                    if c.head_norm_bias {
                        all.push((format!("{stem}.bias"), shape));
                    }
                }
            }
            projection(&mut all, self.attention_out, layer, c.heads * c.head_dim, c.hidden, c.attention_out_bias);
            if c.norms_behind {
                norm(&mut all, fill(self.attention_norm, layer));
            }
            if c.has_second_norm() {
                norm(&mut all, fill(self.norm_2, layer));
            }
            if let (Some(experts), Some(mixture)) = (c.mixture(layer), self.mixture) {
                self.add_mixture(&mut all, layer, c, experts, &mixture);
                continue;
            }
            if self.gate_up.is_empty() {
                projection(&mut all, self.up, layer, c.hidden, c.feed_forward, c.mlp_bias);
                if c.gated {
                    projection(&mut all, self.gate, layer, c.hidden, c.feed_forward, c.mlp_bias);
                }
            } else {
                projection(&mut all, self.gate_up, layer, c.hidden, 2 * c.feed_forward, c.mlp_bias);
            }
            projection(&mut all, self.down, layer, c.feed_forward, c.hidden, c.mlp_bias);
            if c.norms_behind {
                norm(&mut all, fill(self.mlp_norm, layer));
            }
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

    /// The tensors of a layer's mixture of experts.
    fn add_mixture(
        &self,
        all: &mut Vec<(String, Vec<usize>)>,
        layer: usize,
        c: &DecoderConfig,
        experts: &Experts,
        mixture: &MixtureLayout,
    ) {
        let mut add = |stem: &str, input: usize, output: usize| {
            all.push((weight(stem, layer), self.stored_shape(input, output)));
        };
        add(mixture.router, c.hidden, experts.count);
        for (id, range) in experts.ids().zip(experts.parts()) {
            let [up, gate, down] = mixture.stems(id);
            add(&up, c.hidden, range.len());
            if c.gated {
                add(&gate, c.hidden, range.len());
            }
            add(&down, range.len(), c.hidden);
        }
        if experts.shared.is_some() {
            add(mixture.shared_router, c.hidden, 1);
        }
    }

    /// The tensors of a layer's norm of queries (`which` is 0) or of keys, without `.weight`, with their shapes; none where the model has no
    /// such norms.
    pub fn head_norm(&self, c: &DecoderConfig, which: usize, layer: usize, heads: usize) -> Vec<(String, Vec<usize>)> {
        let stem = fill(self.head_norms[which], layer);
        match c.head_norm {
            None => Vec::new(),
            Some(HeadNorm::Shared) => vec![(stem, vec![c.head_dim])],
            Some(HeadNorm::Whole) => vec![(stem, vec![heads * c.head_dim])],
            Some(HeadNorm::Each) if stem.contains("{head}") => {
                (0..heads).map(|head| (stem.replace("{head}", &head.to_string()), vec![c.head_dim])).collect()
            }
            Some(HeadNorm::Each) => vec![(stem, vec![heads, c.head_dim])],
        }
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
        let Some((blocks, _)) = self.down.split_once("{}") else { return false };
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
        if weight.layer >= self.layers {
            return None;
        }
        Layout::of(self).weight_name(weight)?;
        let size = match (self.mixture(weight.layer), weight.expert) {
            (None, None) => self.feed_forward,
            (Some(experts), Some(id)) => experts.parts()[experts.part(id)?].len(),
            _ => return None,
        };
        match weight.module {
            MlpModule::Down => Some([self.hidden, size]),
            MlpModule::Gate if !self.gated => None,
            MlpModule::Up | MlpModule::Gate => Some([size, self.hidden]),
            MlpModule::Bias => self.mlp_bias.then_some([self.hidden, 1]),
        }
    }

    /// Rows of the table of learned positions, where there is one.
    pub(crate) fn position_rows(&self) -> Option<usize> {
        match self.positions {
            Positions::Learned { offset } => Some(self.context + offset),
            _ => None,
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
