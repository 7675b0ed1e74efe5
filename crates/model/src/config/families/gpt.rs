//! GPT-2 and families whose feed-forward has no gate.

use serde_json::Value;

use crate::config::families::base::{DEFAULTS, Defaults, everywhere, read, sized};
use crate::config::fields::Fields;
use crate::{Activation, Arrangement, DecoderConfig, Family, HeadNorm, ModelError, NormKind, Positions, Rotary};

pub fn gpt2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("n_embd")?, f.size("n_head")?);
    Ok(DecoderConfig {
        feed_forward: f.size_or("n_inner", 4 * hidden)?,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        activation: f.activation("activation_function", "gelu_new")?,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, f.layers("n_layer")?, heads, f.size("n_positions")?)
    })
}

pub fn gptj(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("n_embd")?, f.size("n_head")?);
    let mut config = DecoderConfig {
        family: Family::GptJ,
        positions: Positions::Rotary(Rotary {
            dim: f.size_or("rotary_dim", 64)?,
            theta: 10_000.0,
            interleaved: true,
            scaling: None,
        }),
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
pub fn gpt_neox(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
    let head_dim = f.divide(hidden, heads)?;
    let bias = f.flag_or("attention_bias", true)?;
    let parallel = f.flag_or("use_parallel_residual", true)?;
    Ok(DecoderConfig {
        feed_forward: f.size("intermediate_size")?,
        norm_epsilon: f.number_or("layer_norm_eps", 1e-5)?,
        positions: Positions::Rotary(f.rotary(head_dim, ("rotary_emb_base", 10_000.0), ("rotary_pct", 0.25))?),
        activation: f.activation("hidden_act", "gelu")?,
        arrangement: if parallel { Arrangement::ParallelTwoNorms } else { Arrangement::Sequential },
        qkv_bias: bias,
        attention_out_bias: bias,
        tied_head: f.flag_or("tie_word_embeddings", false)?,
        ..sized(f, Family::GptNeoX, hidden, heads, f.size("max_position_embeddings")?)?
    })
}

/// Phi 1 to 2.
pub fn phi(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults =
        Defaults { share: 0.5, epsilon: ("layer_norm_eps", 1e-5), activation: ("hidden_act", "gelu_new"), ..DEFAULTS };
    let config = read(f, Family::Phi, defaults)?;
    if config.tied_head {
        return Err(f.error("tie_word_embeddings = true is not supported: expected false, as the head has a bias"));
    }
    Ok(DecoderConfig {
        norm: NormKind::Layer,
        norm_bias: true,
        gated: false,
        arrangement: Arrangement::Parallel,
        qkv_bias: true,
        attention_out_bias: true,
        mlp_bias: true,
        head_norm: f.flag_or("qk_layernorm", false)?.then_some(HeadNorm::Shared),
        head_norm_bias: true,
        head_bias: true,
        ..config
    })
}

pub fn starcoder2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let defaults = Defaults {
        tied: true,
        kv_heads: Some(2),
        epsilon: ("norm_epsilon", 1e-5),
        activation: ("hidden_act", "gelu_pytorch_tanh"),
        ..DEFAULTS
    };
    let config = read(f, Family::Starcoder2, defaults)?;
    let bias = f.flag_or("use_bias", true)?;
    Ok(DecoderConfig {
        norm: NormKind::Layer,
        norm_bias: true,
        windows: everywhere(f.size_or_null("sliding_window", None)?, config.layers),
        gated: false,
        qkv_bias: bias,
        attention_out_bias: bias,
        mlp_bias: bias,
        ..config
    })
}

/// Scores are not divided by anything.
pub fn gpt_neo(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_heads")?);
    let layers = f.layers("num_layers")?;
    let window = f.size_or("window_size", 256)?;
    let kinds = attention_layers(f, layers)?;
    f.divide(hidden, heads)?;
    Ok(DecoderConfig {
        family: Family::GptNeo,
        feed_forward: f.size_or("intermediate_size", 4 * hidden)?,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        activation: f.activation("activation_function", "gelu_new")?,
        attention_scale: Some(1.0),
        windows: kinds.into_iter().map(|local| local.then_some(window)).collect(),
        qkv_bias: false,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, layers, heads, f.size("max_position_embeddings")?)
    })
}

/// Which layers are local: `attention_layers`, or the patterns and their repetitions of `attention_types`.
fn attention_layers(f: &Fields, layers: usize) -> Result<Vec<bool>, ModelError> {
    let local = |kind: &Value| match kind.as_str()? {
        "local" => Some(true),
        "global" => Some(false),
        _ => None,
    };
    let list = |kinds: &Value| kinds.as_array()?.iter().map(local).collect::<Option<Vec<bool>>>();
    let repeated = |types: &Value| {
        let mut all = Vec::new();
        for pair in types.as_array()? {
            let pattern = list(pair.get(0)?)?;
            let times = pair.get(1)?.as_u64()?.min(layers as u64) as usize;
            all.extend(pattern.repeat(times));
        }
        Some(all)
    };
    let found = match (f.get("attention_layers"), f.get("attention_types")) {
        (Some(kinds), _) => list(kinds),
        (None, Some(types)) => repeated(types),
        (None, None) => Some((0..layers).map(|layer| layer % 2 == 1).collect()),
    };
    found.filter(|kinds| kinds.len() == layers).ok_or_else(|| {
        f.error("attention_layers and attention_types are not understood: expected global or local for each layer")
    })
}

pub fn opt(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
    f.divide(hidden, heads)?;
    let not_false = |v: &Value| v != &Value::Bool(false);
    f.refuse("do_layer_norm_before", |v| v != &Value::Bool(true), "true (OPT 350M is the only one without)")?;
    f.refuse("word_embed_proj_dim", |v| v.as_u64() != Some(hidden as u64), "the hidden size")?;
    f.refuse("_remove_final_layer_norm", not_false, "false")?;
    let bias = f.flag_or("enable_bias", true)?;
    let affine = f.flag_or("layer_norm_elementwise_affine", true)?;
    Ok(DecoderConfig {
        feed_forward: f.size("ffn_dim")?,
        norm_weight: affine,
        norm_bias: affine,
        positions: Positions::Learned { offset: 2 },
        activation: f.activation("activation_function", "relu")?,
        qkv_bias: bias,
        attention_out_bias: bias,
        mlp_bias: bias,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..sized(f, Family::Opt, hidden, heads, f.size("max_position_embeddings")?)?
    })
}

const ALIBI: Positions = Positions::Alibi { most: 8.0, scale: 1.0, rounded: false };

pub fn bloom(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let hidden = f.size(if f.get("hidden_size").is_some() { "hidden_size" } else { "n_embed" })?;
    let heads = f.size(if f.get("n_head").is_some() { "n_head" } else { "num_attention_heads" })?;
    let layers = f.layers(if f.get("n_layer").is_some() { "n_layer" } else { "num_hidden_layers" })?;
    f.divide(hidden, heads)?;
    let not_false = |v: &Value| v != &Value::Bool(false);
    f.refuse("apply_residual_connection_post_layernorm", not_false, "false")?;
    // Positions have no bound of their own: that of the training.
    let context = f.size_or("seq_length", 2048)?;
    Ok(DecoderConfig {
        family: Family::Bloom,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        positions: ALIBI,
        embedding_norm: true,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, layers, heads, context)
    })
}

pub fn falcon(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let hidden = f.size(if f.get("hidden_size").is_some() { "hidden_size" } else { "n_embed" })?;
    let heads = f.size(if f.get("num_attention_heads").is_some() { "num_attention_heads" } else { "n_head" })?;
    let head_dim = f.divide(hidden, heads)?;
    let new = f.flag_or("new_decoder_architecture", false)?;
    let parallel = f.flag_or("parallel_attn", true)?;
    let norms = f.size_or("num_ln_in_parallel_attn", if new { 2 } else { 1 })?;
    let arrangement = match (new, parallel, norms) {
        (true, true, 2) => Arrangement::ParallelTwoNorms,
        (_, true, 1) => Arrangement::Parallel,
        (false, false, _) => Arrangement::Sequential,
        _ => {
            let found = format!("new_decoder_architecture = {new}, parallel_attn = {parallel} and {norms} norms");
            return Err(f.error(format!("{found} are not supported together: transformers has no such model")));
        }
    };
    let kv_heads = match (new, f.flag_or("multi_query", true)?) {
        (true, _) => f.size_or("num_kv_heads", heads)?,
        (false, true) => 1,
        (false, false) => heads,
    };
    let positions = if f.flag_or("alibi", false)? {
        Positions::Alibi { most: 8.0, scale: 1.0 / (head_dim as f64).sqrt(), rounded: true }
    } else {
        Positions::Rotary(f.rotary(head_dim, ("rope_theta", 10_000.0), ("partial_rotary_factor", 1.0))?)
    };
    let bias = f.flag_or("bias", false)?;
    let layers = if f.get("num_hidden_layers").is_some() { "num_hidden_layers" } else { "n_layer" };
    let context = f.size_or("max_position_embeddings", 2048)?;
    Ok(DecoderConfig {
        family: Family::Falcon,
        kv_heads,
        feed_forward: f.size_or("ffn_hidden_size", 4 * hidden)?,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        positions,
        activation: f.activation("activation", "gelu")?,
        arrangement,
        qkv_bias: bias,
        attention_out_bias: bias,
        mlp_bias: bias,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, f.layers(layers)?, heads, context)
    })
}

pub fn mpt(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("d_model")?, f.size("n_heads")?);
    let head_dim = f.divide(hidden, heads)?;
    let not_false = |v: &Value| v != &Value::Bool(false);
    let not_true = |v: &Value| v != &Value::Bool(true);
    f.refuse("no_bias", not_true, "true")?;
    f.refuse("expansion_ratio", |v| v.as_f64() != Some(4.0), "4")?;
    let nothing = Value::Null;
    let attention = Fields { value: f.object("attn_config").unwrap_or(&nothing), path: f.path };
    attention.refuse("alibi", not_true, "true")?;
    attention.refuse("prefix_lm", not_false, "false")?;
    attention.refuse("qk_ln", not_false, "false")?;
    let scale = attention.bound("softmax_scale", None)?;
    let clip = attention.number_or_null("clip_qkv", None)?.filter(|clip| *clip != 0.0);
    attention.refuse("alibi_bias_max", |v| v.as_f64() != Some(8.0), "8: transformers computes with no other")?;
    Ok(DecoderConfig {
        family: Family::Mpt,
        norm_bias: false,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        positions: ALIBI,
        attention_scale: scale.filter(|scale| (scale * (head_dim as f64).sqrt() - 1.0).abs() > 1e-12),
        qkv_clip: clip,
        activation: Activation::Gelu,
        qkv_bias: false,
        attention_out_bias: false,
        mlp_bias: false,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, f.layers("n_layers")?, heads, f.size("max_seq_len")?)
    })
}
