//! Mixtures of experts.

use serde_json::Value;

use crate::config::experts::Experts;
use crate::config::families::base::{DEFAULTS, Defaults, by_layer, everywhere, read};
use crate::config::fields::Fields;
use crate::{DecoderConfig, Family, HeadNorm, ModelError};

/// No real layer has nearly as many; their number bounds memory.
const MOST: usize = 1 << 12;

/// The experts of a family whose classes name their number `num_experts`, with its defaults for the number and for those that a token uses.
fn experts(f: &Fields, count: (&str, usize), top: usize, size: usize) -> Result<Experts, ModelError> {
    // transformers 5 reads either name.
    let name = if f.get(count.0).is_some() { count.0 } else { "num_local_experts" };
    let count = f.size_or(name, count.1)?;
    let top = f.size_or("num_experts_per_tok", top)?;
    if count > MOST {
        return Err(f.error(format!("{name} is {count}, expected at most {MOST}")));
    }
    if top > count {
        return Err(f.error(format!("num_experts_per_tok is {top}, but there are {count} experts")));
    }
    let normalised = f.flag_or("norm_topk_prob", false)?;
    Ok(Experts { count, top, size, normalised, shared: None, dense_layers: Vec::new() })
}

/// Layers that have one feed-forward: those that `mlp_only_layers` lists, and all but every `decoder_sparse_step`-th.
fn dense_layers(f: &Fields, layers: usize) -> Result<Vec<usize>, ModelError> {
    let step = f.size_or("decoder_sparse_step", 1)?;
    let listed: Vec<u64> = match f.get("mlp_only_layers") {
        None => Vec::new(),
        Some(value) => {
            let all: Option<Vec<u64>> = value.as_array().and_then(|l| l.iter().map(Value::as_u64).collect());
            all.ok_or_else(|| f.error("mlp_only_layers is not understood: expected a list of layers"))?
        }
    };
    Ok((0..layers).filter(|&l| listed.contains(&(l as u64)) || !(l + 1).is_multiple_of(step)).collect())
}

/// The mixture, of a model that has it in some layer; one without is another family's.
fn with(f: &Fields, config: DecoderConfig, experts: Experts) -> Result<DecoderConfig, ModelError> {
    if experts.dense_layers.len() == config.layers {
        return Err(f.error("mlp_only_layers and decoder_sparse_step leave no layer a mixture of experts"));
    }
    Ok(DecoderConfig { experts: Some(experts), ..config })
}

/// Mistral with experts.
pub fn mixtral(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults = Defaults { theta: 1e6, epsilon: ("rms_norm_eps", 1e-5), ..DEFAULTS };
    let config = read(f, Family::Mixtral, defaults)?;
    let windows = everywhere(f.size_or_null("sliding_window", None)?, config.layers);
    let experts = Experts { normalised: true, ..experts(f, ("num_local_experts", 8), 2, config.feed_forward)? };
    with(f, DecoderConfig { windows, mlp_bias: false, ..config }, experts)
}

/// Qwen 2 with experts, one of which all tokens use.
pub fn qwen2_moe(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Qwen2Moe, Defaults { kv_heads: Some(16), ..DEFAULTS })?;
    let layers = config.layers;
    let windows = if f.flag_or("use_sliding_window", false)? {
        let first = f.size_or("max_window_layers", 28)?;
        by_layer(f, layers, f.size_or_null("sliding_window", Some(4096))?, |l| l % 2 == 0 && l < first)?
    } else {
        Vec::new()
    };
    let experts = Experts {
        shared: Some(f.size_or("shared_expert_intermediate_size", 5632)?),
        dense_layers: dense_layers(f, layers)?,
        ..experts(f, ("num_experts", 60), 4, f.size_or("moe_intermediate_size", 1408)?)?
    };
    let qkv_bias = f.flag_or("qkv_bias", true)?;
    let config = DecoderConfig { qkv_bias, attention_out_bias: false, mlp_bias: false, windows, ..config };
    with(f, config, experts)
}

/// Qwen 3 with experts.
pub fn qwen3_moe(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Qwen3Moe, Defaults { kv_heads: Some(4), ..DEFAULTS })?;
    let window =
        if f.flag_or("use_sliding_window", false)? { f.size_or_null("sliding_window", Some(4096))? } else { None };
    let experts = Experts {
        dense_layers: dense_layers(f, config.layers)?,
        ..experts(f, ("num_experts", 128), 8, f.size_or("moe_intermediate_size", 768)?)?
    };
    let windows = everywhere(window, config.layers);
    let config = DecoderConfig { head_norm: Some(HeadNorm::Shared), mlp_bias: false, windows, ..config };
    with(f, config, experts)
}

/// Norms over all heads of queries and of keys.
pub fn olmoe(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let config = read(f, Family::Olmoe, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..DEFAULTS })?;
    let experts = experts(f, ("num_experts", 64), 8, config.feed_forward)?;
    with(f, DecoderConfig { head_norm: Some(HeadNorm::Whole), mlp_bias: false, ..config }, experts)
}
