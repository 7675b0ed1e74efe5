//! The architectures of GGUF that are families of ours, as data.

/// An architecture: how its numbers are called in a config.json, and what is known without them.
pub struct Architecture {
    /// As the file names it.
    pub name: &'static str,
    /// `model_type`.
    pub model_type: &'static str,
    /// The class of transformers.
    pub class: &'static str,
    /// Lists of numbers of the file (without the architecture's name), and their names in config.json.
    pub numbers: &'static [Numbers],
    /// Texts that the file leaves out.
    pub texts: &'static [(&'static str, &'static str)],
    /// Numbers that the file leaves out where llama.cpp has them in its code.
    pub known: &'static [(&'static str, u64)],
    /// Options that a tensor's presence says: the option, and the tensor.
    pub present: &'static [(&'static str, &'static str)],
    /// Fields that mean a default where they are not there, and none where they are null, which the file says by silence or 0.
    pub or_null: &'static [&'static str],
}

/// A number of the file, and its name in config.json.
type Numbers = &'static [(&'static str, &'static str)];

const SIZES: Numbers = &[
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("feed_forward_length", "intermediate_size"),
    ("context_length", "max_position_embeddings"),
    ("rope.freq_base", "rope_theta"),
    // A mixture of experts is refused by this name.
    ("expert_count", "num_local_experts"),
];
const RMS: Numbers = &[("attention.layer_norm_rms_epsilon", "rms_norm_eps")];
const LAYER_NORM: Numbers = &[("attention.layer_norm_epsilon", "layer_norm_eps")];
const WINDOW: Numbers = &[("attention.sliding_window", "sliding_window")];
const CAPS: Numbers =
    &[("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping")];
const GPT: Numbers = &[("attention.layer_norm_epsilon", "layer_norm_epsilon")];

const SILU: &[(&str, &str)] = &[("hidden_act", "silu")];
const GELU: &[(&str, &str)] = &[("hidden_activation", "gelu_pytorch_tanh")];
const BIAS: &[(&str, &str)] = &[("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_down.bias")];

/// Llama's, which others change.
const LLAMA: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    class: "LlamaForCausalLM",
    numbers: &[SIZES, RMS],
    texts: SILU,
    known: &[],
    present: BIAS,
    or_null: &[],
};

/// All that are read.
pub const ARCHITECTURES: [Architecture; 23] = [
    // Llama and Mistral, SmolLM among them.
    LLAMA,
    Architecture { name: "qwen2", model_type: "qwen2", class: "Qwen2ForCausalLM", present: &[], ..LLAMA },
    Architecture { name: "qwen3", model_type: "qwen3", class: "Qwen3ForCausalLM", present: &[], ..LLAMA },
    Architecture {
        name: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        numbers: &[
            &[
                ("embedding_length", "n_embd"),
                ("block_count", "n_layer"),
                ("attention.head_count", "n_head"),
                ("feed_forward_length", "n_inner"),
                ("context_length", "n_positions"),
            ],
            GPT,
        ],
        texts: &[("activation_function", "gelu_new")],
        present: &[],
        ..LLAMA
    },
    Architecture {
        name: "gptneox",
        model_type: "gpt_neox",
        class: "GPTNeoXForCausalLM",
        numbers: &[
            &[
                ("embedding_length", "hidden_size"),
                ("block_count", "num_hidden_layers"),
                ("attention.head_count", "num_attention_heads"),
                ("feed_forward_length", "intermediate_size"),
                ("context_length", "max_position_embeddings"),
                ("rope.freq_base", "rotary_emb_base"),
            ],
            LAYER_NORM,
        ],
        texts: &[("hidden_act", "gelu")],
        present: &[],
        ..LLAMA
    },
    Architecture {
        name: "gemma",
        model_type: "gemma",
        class: "GemmaForCausalLM",
        texts: &[("hidden_act", "gelu_pytorch_tanh")],
        ..LLAMA
    },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        numbers: &[SIZES, RMS, WINDOW, CAPS],
        texts: GELU,
        or_null: &["attn_logit_softcapping", "final_logit_softcapping", "sliding_window"],
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        numbers: &[SIZES, RMS, WINDOW, CAPS, &[("rope.freq_base_swa", "rope_local_base_freq")]],
        texts: GELU,
        known: &[("sliding_window_pattern", 6)],
        or_null: &["sliding_window"],
        ..LLAMA
    },
    Architecture {
        name: "phi2",
        model_type: "phi",
        class: "PhiForCausalLM",
        numbers: &[SIZES, LAYER_NORM],
        texts: &[("hidden_act", "gelu_new")],
        present: &[],
        ..LLAMA
    },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        numbers: &[SIZES, RMS, WINDOW],
        present: &[],
        or_null: &["sliding_window"],
        ..LLAMA
    },
    Architecture {
        name: "olmo",
        model_type: "olmo",
        class: "OlmoForCausalLM",
        numbers: &[SIZES, &[("attention.clamp_kqv", "clip_qkv")]],
        ..LLAMA
    },
    Architecture { name: "olmo2", model_type: "olmo2", class: "Olmo2ForCausalLM", ..LLAMA },
    Architecture {
        name: "smollm3",
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        known: &[("no_rope_layer_interval", 4)],
        ..LLAMA
    },
    Architecture {
        name: "granite",
        model_type: "granite",
        class: "GraniteForCausalLM",
        numbers: &[
            SIZES,
            RMS,
            &[
                ("attention.scale", "attention_multiplier"),
                ("embedding_scale", "embedding_multiplier"),
                ("residual_scale", "residual_multiplier"),
                ("logit_scale", "logits_scaling"),
            ],
        ],
        ..LLAMA
    },
    Architecture {
        name: "command-r",
        model_type: "cohere",
        class: "CohereForCausalLM",
        numbers: &[SIZES, LAYER_NORM, &[("logit_scale", "logit_scale")]],
        present: &[("attention_bias", "blk.0.attn_q.bias"), ("use_qk_norm", "blk.0.attn_q_norm.weight")],
        ..LLAMA
    },
    Architecture { name: "glm4", model_type: "glm4", class: "Glm4ForCausalLM", ..LLAMA },
    Architecture {
        name: "exaone4",
        model_type: "exaone4",
        class: "Exaone4ForCausalLM",
        numbers: &[SIZES, RMS, WINDOW],
        known: &[("sliding_window_pattern", 4)],
        or_null: &["sliding_window"],
        ..LLAMA
    },
    Architecture { name: "mistral3", model_type: "ministral3", class: "Ministral3ForCausalLM", ..LLAMA },
    Architecture {
        name: "stablelm",
        model_type: "stablelm",
        class: "StableLmForCausalLM",
        numbers: &[SIZES, LAYER_NORM],
        present: &[("use_qkv_bias", "blk.0.attn_q.bias"), ("qk_layernorm", "blk.0.attn_q_norm.weight")],
        ..LLAMA
    },
    Architecture {
        name: "starcoder2",
        model_type: "starcoder2",
        class: "Starcoder2ForCausalLM",
        numbers: &[SIZES, &[("attention.layer_norm_epsilon", "norm_epsilon")]],
        texts: &[("hidden_act", "gelu_pytorch_tanh")],
        present: &[("use_bias", "blk.0.ffn_up.bias")],
        ..LLAMA
    },
    Architecture {
        name: "bloom",
        model_type: "bloom",
        class: "BloomForCausalLM",
        numbers: &[
            &[
                ("embedding_length", "hidden_size"),
                ("block_count", "n_layer"),
                ("attention.head_count", "n_head"),
                ("context_length", "seq_length"),
            ],
            GPT,
        ],
        texts: &[],
        present: &[],
        ..LLAMA
    },
    Architecture {
        name: "falcon",
        model_type: "falcon",
        class: "FalconForCausalLM",
        numbers: &[
            &[
                ("embedding_length", "hidden_size"),
                ("block_count", "num_hidden_layers"),
                ("attention.head_count", "num_attention_heads"),
                ("attention.head_count_kv", "num_kv_heads"),
                ("feed_forward_length", "ffn_hidden_size"),
                ("context_length", "max_position_embeddings"),
                ("rope.freq_base", "rope_theta"),
            ],
            GPT,
        ],
        texts: &[("activation", "gelu")],
        present: &[("new_decoder_architecture", "blk.0.attn_norm_2.weight"), ("bias", "blk.0.attn_qkv.bias")],
        ..LLAMA
    },
    Architecture {
        name: "mpt",
        model_type: "mpt",
        class: "MptForCausalLM",
        numbers: &[
            &[
                ("embedding_length", "d_model"),
                ("block_count", "n_layers"),
                ("attention.head_count", "n_heads"),
                ("context_length", "max_seq_len"),
            ],
            GPT,
        ],
        texts: &[],
        present: &[],
        ..LLAMA
    },
];
