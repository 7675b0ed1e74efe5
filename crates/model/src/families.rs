//! Reading a Hugging Face `config.json`: one function a family, and nothing else of a family's own but its tensor names.

use std::path::Path;

use serde_json::Value;

use crate::{Activation, Arrangement, DecoderConfig, Family, ModelError, NormKind, Positions, RotaryScaling};

/// The `model_type`s that are read.
const SUPPORTED: [&str; 3] = ["gpt2", "gptj", "llama"];

impl DecoderConfig {
    /// Reads `config.json`'s text. `path` is for messages only.
    ///
    /// # Errors
    /// [`ModelError::Config`] for invalid JSON, an unknown family, a missing field, and every option that would change
    /// the forward pass and isn't implemented: nothing is ignored silently.
    pub fn from_hf(text: &str, path: &Path) -> Result<Self, ModelError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| ModelError::Config { path: path.into(), message: format!("not valid JSON: {e}") })?;
        let fields = Fields { value: &value, path };
        let config =
            match fields.text("model_type")? {
                "gpt2" => gpt2(&fields),
                "gptj" => gptj(&fields),
                "llama" => llama(&fields),
                other => Err(fields
                    .error(format!("model_type {other:?} is not supported (supported: {})", SUPPORTED.join(", ")))),
            }?;
        check(&config, &fields)?;
        Ok(config)
    }
}

fn gpt2(f: &Fields) -> Result<DecoderConfig, ModelError> {
    f.refuse("scale_attn_by_inverse_layer_idx", |v| v == &Value::Bool(true))?;
    f.refuse("scale_attn_weights", |v| v == &Value::Bool(false))?;
    f.refuse("add_cross_attention", |v| v == &Value::Bool(true))?;
    let (hidden, heads) = (f.size("n_embd")?, f.size("n_head")?);
    Ok(DecoderConfig {
        feed_forward: f.size_or("n_inner", 4 * hidden)?,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        activation: f.activation("activation_function", "gelu_new")?,
        tied_head: f.flag_or("tie_word_embeddings", true)?,
        ..DecoderConfig::gpt2(f.size("vocab_size")?, hidden, f.size("n_layer")?, heads, f.size("n_positions")?)
    })
}

fn gptj(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("n_embd")?, f.size("n_head")?);
    let head_dim = f.divide(hidden, heads)?;
    Ok(DecoderConfig {
        family: Family::GptJ,
        vocab: f.size("vocab_size")?,
        hidden,
        layers: f.size("n_layer")?,
        heads,
        kv_heads: heads,
        head_dim,
        feed_forward: f.size_or("n_inner", 4 * hidden)?,
        context: f.size("n_positions")?,
        norm: NormKind::Layer,
        norm_epsilon: f.number_or("layer_norm_epsilon", 1e-5)?,
        positions: Positions::Rotary {
            dim: f.size_or("rotary_dim", 64)?,
            theta: 10_000.0,
            interleaved: true,
            scaling: None,
        },
        activation: f.activation("activation_function", "gelu_new")?,
        gated: false,
        arrangement: Arrangement::Parallel,
        qkv_bias: false,
        attention_out_bias: false,
        mlp_bias: true,
        tied_head: f.flag_or("tie_word_embeddings", false)?,
        head_bias: true,
    })
}

fn llama(f: &Fields) -> Result<DecoderConfig, ModelError> {
    let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
    let head_dim = f.size_or("head_dim", f.divide(hidden, heads)?)?;
    // transformers 5 writes `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`.
    let rope = f.value.get("rope_parameters").filter(|v| v.is_object());
    let theta = match rope.and_then(|r| r.get("rope_theta")).and_then(Value::as_f64) {
        Some(theta) => theta,
        None => f.number_or("rope_theta", 10_000.0)?,
    };
    let scaling = rope.or_else(|| f.value.get("rope_scaling").filter(|v| v.is_object()));
    let attention_bias = f.flag_or("attention_bias", false)?;
    Ok(DecoderConfig {
        family: Family::Llama,
        vocab: f.size("vocab_size")?,
        hidden,
        layers: f.size("num_hidden_layers")?,
        heads,
        kv_heads: f.size_or("num_key_value_heads", heads)?,
        head_dim,
        feed_forward: f.size("intermediate_size")?,
        context: f.size("max_position_embeddings")?,
        norm: NormKind::Rms,
        norm_epsilon: f.number_or("rms_norm_eps", 1e-6)?,
        positions: Positions::Rotary {
            dim: head_dim,
            theta,
            interleaved: false,
            scaling: scaling.map(|s| rotary_scaling(f, s)).transpose()?.flatten(),
        },
        activation: f.activation("hidden_act", "silu")?,
        gated: true,
        arrangement: Arrangement::Sequential,
        qkv_bias: attention_bias,
        attention_out_bias: attention_bias,
        mlp_bias: f.flag_or("mlp_bias", false)?,
        tied_head: f.flag_or("tie_word_embeddings", false)?,
        head_bias: false,
    })
}

fn rotary_scaling(f: &Fields, scaling: &Value) -> Result<Option<RotaryScaling>, ModelError> {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    let number = |name: &str| {
        scaling
            .get(name)
            .and_then(Value::as_f64)
            .ok_or_else(|| f.error(format!("rope scaling {kind:?} has no number {name:?}")))
    };
    match kind {
        "default" => Ok(None),
        "linear" => Ok(Some(RotaryScaling::Linear { factor: number("factor")? })),
        "llama3" => Ok(Some(RotaryScaling::Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            original: number("original_max_position_embeddings")?,
        })),
        other => Err(f.error(format!("rope scaling {other:?} is not supported (supported: default, linear, llama3)"))),
    }
}

/// Relations between sizes that the forward pass takes for granted.
fn check(c: &DecoderConfig, f: &Fields) -> Result<(), ModelError> {
    for (name, size) in [
        ("vocabulary", c.vocab),
        ("hidden size", c.hidden),
        ("number of layers", c.layers),
        ("number of heads", c.heads),
        ("number of key/value heads", c.kv_heads),
        ("feed-forward size", c.feed_forward),
        ("context length", c.context),
    ] {
        if size == 0 || size > 1 << 28 {
            return Err(f.error(format!("the {name} is {size}")));
        }
    }
    if !c.heads.is_multiple_of(c.kv_heads) {
        return Err(f.error(format!("{} heads cannot share {} key/value heads evenly", c.heads, c.kv_heads)));
    }
    if c.family == Family::Gpt2 && c.head_dim * c.heads != c.hidden {
        return Err(f.error(format!("hidden size {} is not a multiple of {} heads", c.hidden, c.heads)));
    }
    if let Positions::Rotary { dim, .. } = c.positions
        && (dim > c.head_dim || dim % 2 != 0)
    {
        return Err(f.error(format!("rotary dimension {dim} does not fit a head of {}", c.head_dim)));
    }
    Ok(())
}

/// Typed reading of fields, with the file in every message.
struct Fields<'a> {
    value: &'a Value,
    path: &'a Path,
}

impl<'a> Fields<'a> {
    fn error(&self, message: String) -> ModelError {
        ModelError::Config { path: self.path.into(), message }
    }

    /// The field, where it is present and not null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|v| !v.is_null())
    }

    fn text(&self, name: &str) -> Result<&'a str, ModelError> {
        self.get(name).and_then(Value::as_str).ok_or_else(|| self.error(format!("no text field {name:?}")))
    }

    fn size(&self, name: &str) -> Result<usize, ModelError> {
        match self.get(name) {
            Some(v) => v
                .as_u64()
                .map(|n| n as usize)
                .ok_or_else(|| self.error(format!("{name:?} is {v}, expected a whole number"))),
            None => Err(self.error(format!("no field {name:?}"))),
        }
    }

    fn size_or(&self, name: &str, default: usize) -> Result<usize, ModelError> {
        if self.get(name).is_none() { Ok(default) } else { self.size(name) }
    }

    fn number_or(&self, name: &str, default: f64) -> Result<f64, ModelError> {
        match self.get(name) {
            None => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.error(format!("{name:?} is {v}, expected a number"))),
        }
    }

    fn flag_or(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(name) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.error(format!("{name:?} is {v}, expected true or false"))),
        }
    }

    fn divide(&self, hidden: usize, heads: usize) -> Result<usize, ModelError> {
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(self.error(format!("hidden size {hidden} is not a multiple of {heads} heads")));
        }
        Ok(hidden / heads)
    }

    fn refuse(&self, name: &str, bad: impl Fn(&Value) -> bool) -> Result<(), ModelError> {
        match self.get(name) {
            Some(v) if bad(v) => Err(self.error(format!("{name} = {v} is not supported"))),
            _ => Ok(()),
        }
    }

    fn activation(&self, name: &str, default: &str) -> Result<Activation, ModelError> {
        let text = if self.get(name).is_some() { self.text(name)? } else { default };
        match text {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluNew),
            "gelu" => Ok(Activation::Gelu),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            other => {
                Err(self.error(format!("{name} {other:?} is not supported (supported: gelu_new, gelu, relu, silu)")))
            }
        }
    }
}
