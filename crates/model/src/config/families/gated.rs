//! Llama and families with a gated feed-forward.

use serde_json::Value;

use crate::config::families::base::{DEFAULTS, Defaults, by_layer, everywhere, kinds, read};
use crate::config::fields::Fields;
use crate::{Arrangement, DecoderConfig, Family, HeadNorm, LayerRotary, ModelError, NormKind, Positions};

/// Llama 1 to 3.
pub fn llama(f: &Fields) -> Result<DecoderConfig, ModelError> {
    f.refuse("partial_rotary_factor", |v| v.as_f64() != Some(1.0), "1: whole heads are rotated in this family")?;
    read(f, Family::Llama, DEFAULTS)
}

pub fn mistral(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = llama(f)?;
    // Null means no window; a file without the field is of a time when all of them had one.
    let window = f.size_or_null("sliding_window", Some(4096))?;
    f.refuse("layer_types", |v| kinds(v).is_none_or(|k| k.contains(&"full_attention")), "one kind for all layers")?;
    Ok(DecoderConfig { family: Family::Mistral, windows: everywhere(window, config.layers), ..config })
}

/// Qwen 2 and 2.5: Llama with a bias on queries, keys and values.
pub fn qwen2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = llama(f)?;
    let windows = qwen_windows(f, config.layers)?;
    Ok(DecoderConfig { family: Family::Qwen2, qkv_bias: true, attention_out_bias: false, windows, ..config })
}

/// Llama with norms on queries and keys.
pub fn qwen3(f: &Fields) -> Result<DecoderConfig, ModelError> {
    if f.get("head_dim").is_none() {
        return Err(f.error("no field \"head_dim\""));
    }
    let config = llama(f)?;
    let windows = qwen_windows(f, config.layers)?;
    Ok(DecoderConfig { family: Family::Qwen3, head_norm: Some(HeadNorm::Shared), windows, ..config })
}

fn qwen_windows(f: &Fields, layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    if !f.flag_or("use_sliding_window", false)? {
        f.refuse("layer_types", |v| kinds(v).is_none_or(|k| k.contains(&"sliding_attention")), "full_attention")?;
        return Ok(Vec::new());
    }
    let window = f.size_or("sliding_window", 4096)?;
    let first = f.get("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
    by_layer(f, layers, Some(window), |layer| layer as u64 >= first)
}

const GEMMA: Defaults =
    Defaults { tied: true, head_dim: Some(256), activation: ("hidden_activation", "gelu_pytorch_tanh"), ..DEFAULTS };

/// Scaled embeddings, and norms that store what is added to 1.
fn any_gemma(f: &Fields, family: Family, defaults: Defaults) -> Result<DecoderConfig, ModelError> {
    let config = read(f, family, defaults)?;
    // transformers multiplies with the root as f32 has it.
    let multiplier = f64::from((config.hidden as f64).sqrt() as f32);
    Ok(DecoderConfig { norm_plus_one: true, embedding_multiplier: multiplier, ..config })
}

pub fn gemma(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults = Defaults { activation: ("hidden_act", "gelu_pytorch_tanh"), kv_heads: Some(16), ..GEMMA };
    let config = any_gemma(f, Family::Gemma, defaults)?;
    // Files of the first release say "gelu" and mean its approximation.
    let activation = match f.get("hidden_act").and_then(Value::as_str) {
        Some("gelu") => crate::Activation::GeluNew,
        _ => config.activation,
    };
    Ok(DecoderConfig { activation, ..config })
}

/// Scores are divided by the root of `query_pre_attn_scalar`.
fn attention_scale(f: &Fields) -> Result<Option<f64>, ModelError> {
    match f.number_or("query_pre_attn_scalar", 256.0)? {
        n if n > 0.0 && n.is_finite() => Ok(Some(1.0 / n.sqrt())),
        n => Err(f.error(format!("query_pre_attn_scalar is {n}, expected a number above 0"))),
    }
}

pub fn gemma2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = any_gemma(f, Family::Gemma2, Defaults { kv_heads: Some(4), ..GEMMA })?;
    let window = f.size_or_null("sliding_window", Some(4096))?;
    Ok(DecoderConfig {
        norms_behind: true,
        windows: by_layer(f, config.layers, window, |layer| layer % 2 == 0)?,
        attention_scale: attention_scale(f)?,
        attention_cap: f.bound("attn_logit_softcapping", Some(50.0))?,
        logit_cap: f.bound("final_logit_softcapping", Some(30.0))?,
        ..config
    })
}

/// Layers with a window have a rotation of their own.
pub fn gemma3(f: &Fields) -> Result<DecoderConfig, ModelError> {
    // The kinds' own sets are read below.
    let outer = f.value.as_object().into_iter().flatten().filter(|(name, _)| !name.starts_with("rope_"));
    let outer = Value::Object(outer.map(|(name, value)| (name.clone(), value.clone())).collect());
    let config = any_gemma(&Fields { value: &outer, ..*f }, Family::Gemma3, Defaults { kv_heads: Some(4), ..GEMMA })?;
    let head = config.head_dim;
    let full = f.rotary_of_kind("full_attention", head, ("rope_theta", 1e6), f.object("rope_scaling"))?;
    let sliding = f.rotary_of_kind("sliding_attention", head, ("rope_local_base_freq", 1e4), None)?;
    let window = f.size_or_null("sliding_window", Some(4096))?;
    let every = f.size_or("sliding_window_pattern", f.size_or("_sliding_window_pattern", 6)?)?;
    // Which layers are of that kind, whether or not there is a window.
    let slides = by_layer(f, config.layers, Some(1), |layer| !(layer + 1).is_multiple_of(every))?;
    let rotary = slides.iter().map(|s| if s.is_some() { LayerRotary::Second } else { LayerRotary::First });
    Ok(DecoderConfig {
        context: f.size("max_position_embeddings")?,
        norms_behind: true,
        positions: Positions::Rotary(full),
        second_rotary: Some(sliding),
        layer_rotary: rotary.collect(),
        windows: slides.iter().map(|s| s.and(window)).collect(),
        attention_scale: attention_scale(f)?,
        head_norm: Some(HeadNorm::Shared),
        logit_cap: f.bound("final_logit_softcapping", None)?,
        ..config
    })
}

pub fn phi3(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Phi3, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..DEFAULTS })?;
    let windows = everywhere(f.size_or_null("sliding_window", None)?, config.layers);
    Ok(DecoderConfig { windows, ..config })
}

/// LayerNorm without weights.
pub fn olmo(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Olmo, DEFAULTS)?;
    let qkv_clip = f.bound("clip_qkv", None)?;
    Ok(DecoderConfig { norm: NormKind::Layer, norm_weight: false, norm_epsilon: 1e-5, qkv_clip, ..config })
}

pub fn olmo2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Olmo2, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..DEFAULTS })?;
    Ok(DecoderConfig { norms_before: false, norms_behind: true, head_norm: Some(HeadNorm::Whole), ..config })
}

pub fn smollm3(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::SmolLm3, Defaults { theta: 2e6, tied: true, kv_heads: Some(4), ..DEFAULTS })?;
    let every = f.size_or("no_rope_layer_interval", 4)?;
    let rotated: Vec<bool> = match f.get("no_rope_layers") {
        None => (0..config.layers).map(|layer| !(layer + 1).is_multiple_of(every)).collect(),
        Some(list) => {
            let all: Option<Vec<bool>> =
                list.as_array().and_then(|l| l.iter().map(|v| Some(v.as_u64()? != 0)).collect());
            let fits = all.filter(|all| all.len() == config.layers);
            fits.ok_or_else(|| f.error("no_rope_layers is not understood: expected 0 or 1 for each layer"))?
        }
    };
    let window = if f.flag_or("use_sliding_window", false)? { f.size_or_null("sliding_window", None)? } else { None };
    let windows = by_layer(f, config.layers, window, |layer| !rotated[layer])?;
    let kind = |rotated: &bool| if *rotated { LayerRotary::First } else { LayerRotary::None };
    Ok(DecoderConfig { layer_rotary: rotated.iter().map(kind).collect(), windows, ..config })
}

pub fn granite(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Granite, DEFAULTS)?;
    Ok(DecoderConfig {
        attention_scale: Some(f.multiplier("attention_multiplier", 1.0)?),
        embedding_multiplier: f.multiplier("embedding_multiplier", 1.0)?,
        residual_multiplier: f.multiplier("residual_multiplier", 1.0)?,
        logit_multiplier: 1.0 / f.multiplier("logits_scaling", 1.0)?,
        ..config
    })
}

pub fn cohere(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults = Defaults { theta: 500_000.0, tied: true, epsilon: ("layer_norm_eps", 1e-5), ..DEFAULTS };
    let config = neighbours(read(f, Family::Cohere, defaults)?);
    Ok(DecoderConfig {
        norm: NormKind::Layer,
        arrangement: Arrangement::Parallel,
        head_norm: f.flag_or("use_qk_norm", false)?.then_some(HeadNorm::Each),
        logit_multiplier: f.multiplier("logit_scale", 0.0625)?,
        ..config
    })
}

pub fn glm4(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults = Defaults {
        share: 0.5,
        head_dim: Some(128),
        kv_heads: Some(2),
        epsilon: ("rms_norm_eps", 1.5625e-7),
        attention_bias: true,
        ..DEFAULTS
    };
    let config = neighbours(read(f, Family::Glm4, defaults)?);
    Ok(DecoderConfig { norms_behind: true, attention_out_bias: false, mlp_bias: false, ..config })
}

/// Rotated pairs are neighbours.
fn neighbours(mut config: DecoderConfig) -> DecoderConfig {
    if let Positions::Rotary(rotary) = &mut config.positions {
        rotary.interleaved = true;
    }
    config
}

pub fn exaone4(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Exaone4, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..DEFAULTS })?;
    let window = f.size_or_null("sliding_window", Some(4096))?;
    let pattern = f.get("sliding_window_pattern");
    let slides = |layer: usize| match pattern {
        Some(Value::String(kinds)) => kinds.as_bytes().get(layer % kinds.len().max(1)) == Some(&b'L'),
        Some(every) => every.as_u64().is_none_or(|every| every > 0 && !(layer as u64 + 1).is_multiple_of(every)),
        None => !(layer + 1).is_multiple_of(4),
    };
    let windows = by_layer(f, config.layers, window, slides)?;
    // Where there are windows, layers without one have no positions.
    let kind = |window: &Option<usize>| if window.is_some() { LayerRotary::First } else { LayerRotary::None };
    let layer_rotary = if window.is_some() { windows.iter().map(kind).collect() } else { Vec::new() };
    let head_norm = Some(HeadNorm::Shared);
    Ok(DecoderConfig { norms_before: false, norms_behind: true, head_norm, layer_rotary, windows, ..config })
}

pub fn ministral(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Ministral, Defaults { kv_heads: Some(8), ..DEFAULTS })?;
    let window = f.size_or_null("sliding_window", Some(4096))?;
    let windows = by_layer(f, config.layers, window, |_| true)?;
    Ok(DecoderConfig { windows, ..config })
}

pub fn ministral3(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults = Defaults { kv_heads: Some(8), epsilon: ("rms_norm_eps", 1e-5), ..DEFAULTS };
    let config = read(f, Family::Ministral3, defaults)?;
    let windows = everywhere(f.size_or_null("sliding_window", None)?, config.layers);
    Ok(DecoderConfig { windows, ..config })
}

pub fn stablelm(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::StableLm, Defaults { share: 0.25, epsilon: ("layer_norm_eps", 1e-5), ..DEFAULTS })?;
    let parallel = f.flag_or("use_parallel_residual", false)?;
    Ok(DecoderConfig {
        norm: NormKind::Layer,
        norm_bias: true,
        arrangement: if parallel { Arrangement::Parallel } else { Arrangement::Sequential },
        qkv_bias: f.flag_or("use_qkv_bias", false)?,
        attention_out_bias: false,
        mlp_bias: false,
        head_norm: f.flag_or("qk_layernorm", false)?.then_some(HeadNorm::Each),
        ..config
    })
}
