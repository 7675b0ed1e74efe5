//! Reading a Hugging Face `config.json`: one function a family, and nothing else of a family's own but its tensor names.

mod base;
mod gated;
mod gpt;
mod mixtures;

use std::path::Path;

use serde_json::Value;

use crate::config::fields::{Fields, LARGEST};
use crate::{DecoderConfig, Family, LayerRotary, ModelError, Positions};

/// A `model_type`: how its fields are read.
struct Known {
    name: &'static str,
    read: fn(&Fields) -> Result<DecoderConfig, ModelError>,
    /// Options of [`REFUSED`] that it has an axis for.
    has: &'static [&'static str],
}

const fn known(name: &'static str, read: fn(&Fields) -> Result<DecoderConfig, ModelError>) -> Known {
    Known { name, read, has: &[] }
}

const CAPS: &[&str] = &["attn_logit_softcapping", "final_logit_softcapping"];
const MULTIPLIERS: &[&str] = &["logits_scaling", "embedding_multiplier", "residual_multiplier"];

/// The `model_type`s that are read.
const FAMILIES: [Known; 32] = [
    known("gpt2", gpt::gpt2),
    known("gptj", gpt::gptj),
    known("gpt_neox", gpt::gpt_neox),
    known("llama", gated::llama),
    known("mistral", gated::mistral),
    known("qwen2", gated::qwen2),
    known("qwen3", gated::qwen3),
    known("gemma", gated::gemma),
    Known { has: CAPS, ..known("gemma2", gated::gemma2) },
    Known { has: &["final_logit_softcapping"], ..known("gemma3_text", gated::gemma3) },
    Known { has: &["qk_layernorm"], ..known("phi", gpt::phi) },
    known("phi3", gated::phi3),
    Known { has: &["clip_qkv"], ..known("olmo", gated::olmo) },
    known("olmo2", gated::olmo2),
    known("smollm3", gated::smollm3),
    Known { has: MULTIPLIERS, ..known("granite", gated::granite) },
    Known { has: &["logit_scale", "use_qk_norm"], ..known("cohere", gated::cohere) },
    known("glm4", gated::glm4),
    known("exaone4", gated::exaone4),
    known("ministral", gated::ministral),
    known("ministral3", gated::ministral3),
    Known { has: &["qk_layernorm"], ..known("stablelm", gated::stablelm) },
    known("starcoder2", gpt::starcoder2),
    known("gpt_neo", gpt::gpt_neo),
    known("opt", gpt::opt),
    known("bloom", gpt::bloom),
    Known { has: &["alibi"], ..known("falcon", gpt::falcon) },
    known("mpt", gpt::mpt),
    Known { has: &["num_local_experts"], ..known("mixtral", mixtures::mixtral) },
    Known { has: &["num_experts", "num_local_experts"], ..known("qwen2_moe", mixtures::qwen2_moe) },
    Known { has: &["num_experts", "num_local_experts"], ..known("qwen3_moe", mixtures::qwen3_moe) },
    Known { has: &["num_experts", "num_local_experts"], ..known("olmoe", mixtures::olmoe) },
];

/// `model_type`s that are known and not read, and why.
const NOT_READ: [(&str, &str); 8] = [
    ("gpt_oss", SINKS),
    ("granitemoe", EXPERTS),
    ("phimoe", EXPERTS),
    ("deepseek_v2", EXPERTS),
    ("deepseek_v3", EXPERTS),
    ("llama4", EXPERTS),
    ("gemma3", IMAGES),
    ("mistral3", IMAGES),
];
const EXPERTS: &str = "a mixture of experts of another kind: expected mixtral, qwen2_moe, qwen3_moe or olmoe";
const SINKS: &str =
    "a mixture of experts with attention sinks and weights in MXFP4: expected mixtral, qwen2_moe, qwen3_moe or olmoe";
const IMAGES: &str = "a model of texts and images: expected its text model saved by itself";

/// Whether a value asks for something.
type Asked = fn(&Value) -> bool;

const PRESENT: Asked = |v| v.as_object().is_none_or(|o| !o.is_empty());
const TRUE: Asked = |v| v != &Value::Bool(false);
const FALSE: Asked = |v| v != &Value::Bool(true);
const NOT_ONE: Asked = |v| v.as_f64() != Some(1.0);
const SEVERAL: Asked = |v| v.as_u64().is_none_or(|n| n > 1);

/// Options that would change the forward pass of families that have no axis for them.
const REFUSED: [(&str, Asked, &str); 22] = [
    ("quantization_config", PRESENT, "weights in f32, f16 or bf16 (the checkpoint that this one was quantized from)"),
    ("num_local_experts", SEVERAL, "one feed-forward a layer, not a mixture of experts"),
    ("num_experts", SEVERAL, "one feed-forward a layer, not a mixture of experts"),
    ("n_routed_experts", SEVERAL, "one feed-forward a layer, not a mixture of experts"),
    ("attn_logit_softcapping", PRESENT, "attention without a softcap"),
    ("final_logit_softcapping", PRESENT, "logits without a softcap"),
    ("is_encoder_decoder", TRUE, "a decoder alone"),
    ("add_cross_attention", TRUE, "a decoder alone"),
    ("use_bidirectional_attention", TRUE, "false: no token sees those behind it"),
    ("text_config", PRESENT, "a text model by itself"),
    ("vision_config", PRESENT, "a text model by itself"),
    ("pruned_heads", PRESENT, "whole attention layers"),
    ("alibi", TRUE, "learned or rotary positions"),
    ("use_qk_norm", TRUE, "a family that has norms on queries and keys, such as qwen3"),
    ("qk_layernorm", TRUE, "a family that has norms on queries and keys, such as qwen3"),
    ("clip_qkv", PRESENT, "null"),
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
        let supported = || FAMILIES.each_ref().map(|known| known.name).join(", ");
        if fields.get("model_type").is_none() {
            return Err(fields.error(format!("no text field \"model_type\" (supported: {})", supported())));
        }
        let name = fields.text("model_type")?;
        if let Some((_, why)) = NOT_READ.iter().find(|(known, _)| *known == name) {
            return Err(fields.error(format!("model_type {name:?} is not supported: it is {why}")));
        }
        let Some(known) = FAMILIES.iter().find(|known| known.name == name) else {
            let name: String = name.chars().take(60).collect();
            return Err(fields.error(format!("model_type {name:?} is not supported (supported: {})", supported())));
        };
        for (option, asked, expected) in REFUSED {
            if !known.has.contains(&option) {
                fields.refuse(option, asked, expected)?;
            }
        }
        let config = (known.read)(&fields)?;
        check(&config, &fields)?;
        Ok(config)
    }
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
    let first = match &c.positions {
        Positions::Rotary(rotary) => Some(rotary),
        _ => None,
    };
    let whole = c.layer_rotary.iter().any(|layer| *layer != LayerRotary::None) || c.layer_rotary.is_empty();
    for rotary in first.into_iter().chain(&c.second_rotary).filter(|_| whole) {
        let dim = rotary.dim;
        if dim > c.head_dim || dim % 2 != 0 || dim == 0 {
            return Err(f.error(format!("rotary dimension {dim} does not fit a head of {}", c.head_dim)));
        }
    }
    if !(c.norm_epsilon.is_finite() && c.norm_epsilon >= 0.0) {
        return Err(f.error(format!("the norm's epsilon is {}, expected 0 or above", c.norm_epsilon)));
    }
    Ok(())
}
