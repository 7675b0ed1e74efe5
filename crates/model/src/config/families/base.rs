//! What families have in common: fields by the names of Llama's descendants, and which layers have a window.

use serde_json::Value;

use crate::config::fields::Fields;
use crate::{Arrangement, DecoderConfig, Family, ModelError, NormKind, Positions};

/// What a family's class of transformers takes where a field is not there.
#[derive(Clone, Copy)]
pub struct Defaults {
    /// The rotary base.
    pub theta: f64,
    /// Rotated part of a head.
    pub share: f64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Size of a head; the hidden size by the number of heads where there is none.
    pub head_dim: Option<usize>,
    /// Key and value heads; as many as query heads where there is none.
    pub kv_heads: Option<usize>,
    /// The field of the norm's epsilon, and its default.
    pub epsilon: (&'static str, f64),
    /// The field of the activation, and its default.
    pub activation: (&'static str, &'static str),
    /// Biases of attention.
    pub attention_bias: bool,
}

/// Llama's.
pub const DEFAULTS: Defaults = Defaults {
    theta: 10_000.0,
    share: 1.0,
    tied: false,
    head_dim: None,
    kv_heads: None,
    epsilon: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", "silu"),
    attention_bias: false,
};

/// Llama 1 to 3, and what is said of its descendants in the same words.
pub fn read(f: &Fields, family: Family, defaults: Defaults) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
    let head_dim = match (f.get("head_dim"), defaults.head_dim) {
        (Some(_), _) => f.size("head_dim")?,
        (None, Some(size)) => size,
        (None, None) => f.divide(hidden, heads)?,
    };
    let attention_bias = f.flag_or("attention_bias", defaults.attention_bias)?;
    let rotary = f.rotary(head_dim, ("rope_theta", defaults.theta), ("partial_rotary_factor", defaults.share))?;
    Ok(DecoderConfig {
        kv_heads: f.size_or("num_key_value_heads", defaults.kv_heads.unwrap_or(heads))?,
        head_dim,
        feed_forward: f.size("intermediate_size")?,
        norm: NormKind::Rms,
        norm_bias: false,
        norm_epsilon: f.number_or(defaults.epsilon.0, defaults.epsilon.1)?,
        positions: Positions::Rotary(rotary),
        activation: f.activation(defaults.activation.0, defaults.activation.1)?,
        gated: true,
        arrangement: Arrangement::Sequential,
        qkv_bias: attention_bias,
        attention_out_bias: attention_bias,
        mlp_bias: f.flag_or("mlp_bias", false)?,
        tied_head: f.flag_or("tie_word_embeddings", defaults.tied)?,
        ..sized(f, family, hidden, heads, f.context("max_position_embeddings")?)?
    })
}

/// A model of these sizes, whose layers are counted by `num_hidden_layers`, and GPT-2's in all else.
pub fn sized(
    f: &Fields,
    family: Family,
    hidden: usize,
    heads: usize,
    context: usize,
) -> Result<DecoderConfig, ModelError> {
    let (vocab, layers) = (f.size("vocab_size")?, f.layers("num_hidden_layers")?);
    Ok(DecoderConfig { family, ..DecoderConfig::gpt2(vocab, hidden, layers, heads, context) })
}

/// The same window in all layers.
pub fn everywhere(window: Option<usize>, layers: usize) -> Vec<Option<usize>> {
    window.map_or_else(Vec::new, |window| vec![Some(window); layers])
}

/// Windows in the layers that `layer_types` lists as sliding, or else in those that `slides` says.
pub fn by_layer(
    f: &Fields,
    layers: usize,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, ModelError> {
    let sliding: Vec<bool> = match f.get("layer_types") {
        None => (0..layers).map(slides).collect(),
        Some(value) => {
            if let Some(kinds) = kinds(value).filter(|k| k.len() == layers) {
                kinds.iter().map(|kind| *kind == "sliding_attention").collect()
            } else {
                let expected = "full_attention or sliding_attention for each layer";
                return Err(f.error(format!("layer_types is not understood: expected {expected}")));
            }
        }
    };
    Ok(sliding.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// The kinds of attention that `layer_types` lists, where all of them are known.
pub fn kinds(value: &Value) -> Option<Vec<&str>> {
    let known = |kind: &&str| ["full_attention", "sliding_attention"].contains(kind);
    value.as_array()?.iter().map(|kind| kind.as_str().filter(known)).collect()
}
