//! Reading a Hugging Face `config.json`: one function a family, and nothing else of a family's own but its tensor names.

use std::path::Path;

use serde_json::Value;

use crate::config::fields::{Fields, LARGEST};
use crate::{Arrangement, DecoderConfig, Family, ModelError, NormKind, Positions};

/// What a `model_type` means.
type Read = fn(&Fields) -> Result<DecoderConfig, ModelError>;

/// The `model_type`s that are read.
const FAMILIES: [(&str, Read); 7] = [
    ("gpt2", gpt2),
    ("gptj", gptj),
    ("gpt_neox", gpt_neox),
    ("llama", llama),
    ("mistral", mistral),
    ("qwen2", qwen2),
    ("qwen3", qwen3),
];

/// Whether a value asks for something.
type Asked = fn(&Value) -> bool;

const PRESENT: Asked = |v| v.as_object().is_none_or(|o| !o.is_empty());
const TRUE: Asked = |v| v != &Value::Bool(false);
const FALSE: Asked = |v| v != &Value::Bool(true);
const NOT_ONE: Asked = |v| v.as_f64() != Some(1.0);
const SEVERAL: Asked = |v| v.as_u64().is_none_or(|n| n > 1);

/// Options of any family that would change the forward pass and for which the decoder has no axis.
const REFUSED: [(&str, Asked, &str); 20] = [
    ("quantization_config", PRESENT, "weights in f32, f16 or bf16 (the checkpoint that this one was quantized from)"),
    ("num_local_experts", SEVERAL, "one feed-forward a layer, not a mixture of experts"),
    ("num_experts", SEVERAL, "one feed-forward a layer, not a mixture of experts"),
    ("n_routed_experts", SEVERAL, "one feed-forward a layer, not a mixture of experts"),
    ("attn_logit_softcapping", PRESENT, "attention without a softcap"),
    ("final_logit_softcapping", PRESENT, "logits without a softcap"),
    ("is_encoder_decoder", TRUE, "a decoder alone"),
    ("add_cross_attention", TRUE, "a decoder alone"),
    ("text_config", PRESENT, "a text model by itself"),
    ("vision_config", PRESENT, "a text model by itself"),
    ("pruned_heads", PRESENT, "whole attention layers"),
    ("alibi", TRUE, "learned or rotary positions"),
    ("use_qk_norm", TRUE, "a family that has norms on queries and keys, such as qwen3"),
    ("qk_layernorm", TRUE, "a family that has norms on queries and keys, such as qwen3"),
    ("logit_scale", NOT_ONE, "1"),
    ("logits_scaling", NOT_ONE, "1"),
    ("embedding_multiplier", NOT_ONE, "1"),
    ("residual_multiplier", NOT_ONE, "1"),
    ("scale_attn_by_inverse_layer_idx", TRUE, "false"),
    ("scale_attn_weights", FALSE, "true"),
];

impl DecoderConfig {
    /// Reads `config.json`'s text. `path` is for messages only.
    ///
    /// # Errors
    /// [`ModelError::Config`] for invalid JSON, an unknown family, a missing field, and every option that would change
    /// the forward pass and isn't implemented: nothing is ignored silently.
    pub fn from_hf(text: &str, path: &Path) -> Result<Self, ModelError> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| ModelError::config(path, format!("not valid JSON: {e}")))?;
        let fields = Fields { value: &value, path };
        let supported = || FAMILIES.map(|(name, _)| name).join(", ");
        if fields.get("model_type").is_none() {
            return Err(fields.error(format!("no text field \"model_type\" (supported: {})", supported())));
        }
        let name = fields.text("model_type")?;
        let Some((_, read)) = FAMILIES.iter().find(|(known, _)| *known == name) else {
            let name: String = name.chars().take(60).collect();
            return Err(fields.error(format!("model_type {name:?} is not supported (supported: {})", supported())));
        };
        for (option, asked, expected) in REFUSED {
            fields.refuse(option, asked, expected)?;
        }
        let config = read(&fields)?;
        check(&config, &fields)?;
        Ok(config)
    }
}

fn gpt2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("n_embd")?, f.size("n_head")?);
    Ok(DecoderConfig {
        feed_forward: f.size_or("n_inner", 4 * hidden)?,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        activation: f.activation("activation_function", "gelu_new")?,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, f.layers("n_layer")?, heads, f.size("n_positions")?)
    })
}

fn gptj(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("n_embd")?, f.size("n_head")?);
    let mut config = DecoderConfig {
        family: Family::GptJ,
        positions: Positions::Rotary {
            dim: f.size_or("rotary_dim", 64)?,
            theta: 10_000.0,
            interleaved: true,
            scaling: None,
        },
        arrangement: Arrangement::Parallel,
        qkv_bias: false,
        attention_out_bias: false,
        tied_head: f.flag_or("tie_word_embeddings", false)?,
        ..gpt2(f)?
    };
    config.head_dim = f.divide(hidden, heads)?;
    config.head_bias = true;
    Ok(config)
}

/// GPT-NeoX and Pythia.
fn gpt_neox(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
    let head_dim = f.divide(hidden, heads)?;
    let bias = f.flag_or("attention_bias", true)?;
    let parallel = f.flag_or("use_parallel_residual", true)?;
    Ok(DecoderConfig {
        family: Family::GptNeoX,
        feed_forward: f.size("intermediate_size")?,
        norm_epsilon: f.number_or("layer_norm_eps", 1e-5)?,
        positions: f.rotary(head_dim, "rotary_emb_base", ("rotary_pct", 0.25))?,
        activation: f.activation("hidden_act", "gelu")?,
        arrangement: if parallel { Arrangement::ParallelTwoNorms } else { Arrangement::Sequential },
        qkv_bias: bias,
        attention_out_bias: bias,
        tied_head: f.flag_or("tie_word_embeddings", false)?,
        ..DecoderConfig::gpt2(
            f.size("vocab_size")?,
            hidden,
            f.layers("num_hidden_layers")?,
            heads,
            f.size("max_position_embeddings")?,
        )
    })
}

/// Llama 1 to 3, and what is told of its descendants in the same words.
fn llama(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
    let head_dim = match f.get("head_dim") {
        Some(_) => f.size("head_dim")?,
        None => f.divide(hidden, heads)?,
    };
    f.refuse("partial_rotary_factor", NOT_ONE, "1: whole heads are rotated in this family")?;
    let attention_bias = f.flag_or("attention_bias", false)?;
    Ok(DecoderConfig {
        family: Family::Llama,
        vocab: f.size("vocab_size")?,
        hidden,
        layers: f.layers("num_hidden_layers")?,
        heads,
        kv_heads: f.size_or("num_key_value_heads", heads)?,
        head_dim,
        feed_forward: f.size("intermediate_size")?,
        context: f.size("max_position_embeddings")?,
        norm: NormKind::Rms,
        norm_epsilon: f.number_or("rms_norm_eps", 1e-6)?,
        positions: f.rotary(head_dim, "rope_theta", ("partial_rotary_factor", 1.0))?,
        windows: Vec::new(),
        activation: f.activation("hidden_act", "silu")?,
        gated: true,
        arrangement: Arrangement::Sequential,
        head_norm: false,
        qkv_bias: attention_bias,
        attention_out_bias: attention_bias,
        mlp_bias: f.flag_or("mlp_bias", false)?,
        tied_head: f.flag_or("tie_word_embeddings", false)?,
        head_bias: false,
    })
}

fn mistral(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = llama(f)?;
    // Null means no window; a file without the field is of a time when all of them had one.
    let window = match f.value.get("sliding_window") {
        Some(Value::Null) => None,
        _ => Some(f.size_or("sliding_window", 4096)?),
    };
    f.refuse("layer_types", |v| kinds(v).is_none_or(|k| k.contains(&"full_attention")), "one kind for all layers")?;
    let windows = window.map_or_else(Vec::new, |window| vec![Some(window); config.layers]);
    Ok(DecoderConfig { family: Family::Mistral, windows, ..config })
}

/// Qwen 2 and 2.5: Llama with a bias on queries, keys and values.
fn qwen2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = llama(f)?;
    let windows = qwen_windows(f, config.layers)?;
    Ok(DecoderConfig { family: Family::Qwen2, qkv_bias: true, attention_out_bias: false, windows, ..config })
}

/// Llama with norms on queries and keys.
fn qwen3(f: &Fields) -> Result<DecoderConfig, ModelError> {
    if f.get("head_dim").is_none() {
        return Err(f.error("no field \"head_dim\""));
    }
    let config = llama(f)?;
    let windows = qwen_windows(f, config.layers)?;
    Ok(DecoderConfig { family: Family::Qwen3, head_norm: true, windows, ..config })
}

fn qwen_windows(f: &Fields, layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    if !f.flag_or("use_sliding_window", false)? {
        f.refuse("layer_types", |v| kinds(v).is_none_or(|k| k.contains(&"sliding_attention")), "full_attention")?;
        return Ok(Vec::new());
    }
    let window = f.size_or("sliding_window", 4096)?;
    let sliding: Vec<bool> = match f.get("layer_types") {
        None => {
            let first = f.get("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
            (0..layers as u64).map(|layer| layer >= first).collect()
        }
        Some(value) => {
            if let Some(kinds) = kinds(value).filter(|k| k.len() == layers) {
                kinds.iter().map(|kind| *kind == "sliding_attention").collect()
            } else {
                let expected = "full_attention or sliding_attention for each layer";
                return Err(f.error(format!("layer_types is not understood: expected {expected}")));
            }
        }
    };
    Ok(sliding.into_iter().map(|slides| slides.then_some(window)).collect())
}

/// The kinds of attention that `layer_types` lists, where all of them are known.
fn kinds(value: &Value) -> Option<Vec<&str>> {
    let known = |kind: &&str| ["full_attention", "sliding_attention"].contains(kind);
    value.as_array()?.iter().map(|kind| kind.as_str().filter(known)).collect()
}

/// Relations between sizes that the forward pass takes for granted.
fn check(c: &DecoderConfig, f: &Fields) -> Result<(), ModelError> {
    let width = c.heads * c.head_dim;
    if c.head_dim == 0 || width > LARGEST {
        let found = format!("{} heads of {} dimensions", c.heads, c.head_dim);
        return Err(f.error(format!("{found}, expected at most {LARGEST} together")));
    }
    if !c.heads.is_multiple_of(c.kv_heads) {
        return Err(f.error(format!("{} heads cannot share {} key/value heads evenly", c.heads, c.kv_heads)));
    }
    if c.family == Family::Gpt2 && width != c.hidden {
        return Err(f.error(format!("hidden size {} is not a multiple of {} heads", c.hidden, c.heads)));
    }
    if let Positions::Rotary { dim, .. } = c.positions
        && (dim > c.head_dim || dim % 2 != 0 || dim == 0)
    {
        return Err(f.error(format!("rotary dimension {dim} does not fit a head of {}", c.head_dim)));
    }
    if !(c.norm_epsilon.is_finite() && c.norm_epsilon >= 0.0) {
        return Err(f.error(format!("the norm's epsilon is {}, expected 0 or above", c.norm_epsilon)));
    }
    Ok(())
}
