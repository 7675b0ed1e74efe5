//! Typed reading of a JSON file's fields, with the file in every message.

use std::path::Path;

use serde_json::Value;

use crate::{Activation, ModelError, Positions, RotaryScaling};

/// No size of a real model comes near it; products of two of them still fit a machine word.
pub const LARGEST: usize = 1 << 28;
/// Layers are counted out one by one, so that their number bounds memory.
const DEEPEST: usize = 1 << 12;

/// A JSON object and where it was read.
pub struct Fields<'a> {
    /// The object.
    pub value: &'a Value,
    /// For messages only.
    pub path: &'a Path,
}

impl<'a> Fields<'a> {
    pub fn error(&self, message: impl Into<String>) -> ModelError {
        ModelError::config(self.path, message)
    }

    /// The field, where it is present and not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|v| !v.is_null())
    }

    pub fn text(&self, name: &str) -> Result<&'a str, ModelError> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.error(format!("{name} is {}, expected a text", shown(other)))),
            None => Err(self.error(format!("no text field {name:?}"))),
        }
    }

    pub fn size(&self, name: &str) -> Result<usize, ModelError> {
        self.size_below(name, LARGEST)
    }

    pub fn layers(&self, name: &str) -> Result<usize, ModelError> {
        self.size_below(name, DEEPEST)
    }

    fn size_below(&self, name: &str, most: usize) -> Result<usize, ModelError> {
        let Some(v) = self.get(name) else { return Err(self.error(format!("no field {name:?}"))) };
        match v.as_u64() {
            Some(n) if (1..=most as u64).contains(&n) => Ok(n as usize),
            _ => Err(self.error(format!("{name} is {}, expected a whole number from 1 to {most}", shown(v)))),
        }
    }

    pub fn size_or(&self, name: &str, default: usize) -> Result<usize, ModelError> {
        if self.get(name).is_none() { Ok(default) } else { self.size(name) }
    }

    pub fn number_or(&self, name: &str, default: f64) -> Result<f64, ModelError> {
        match self.get(name) {
            None => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.error(format!("{name} is {}, expected a number", shown(v)))),
        }
    }

    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(name) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.error(format!("{name} is {}, expected true or false", shown(v)))),
        }
    }

    pub fn divide(&self, hidden: usize, heads: usize) -> Result<usize, ModelError> {
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(self.error(format!("hidden size {hidden} is not a multiple of {heads} heads")));
        }
        Ok(hidden / heads)
    }

    /// Refuses a value that the decoder has no axis for, saying which would do.
    pub fn refuse(&self, name: &str, bad: impl Fn(&Value) -> bool, expected: &str) -> Result<(), ModelError> {
        match self.get(name) {
            Some(v) if bad(v) => {
                Err(self.error(format!("{name} = {} is not supported: expected {expected}", shown(v))))
            }
            _ => Ok(()),
        }
    }

    pub fn activation(&self, name: &str, default: &str) -> Result<Activation, ModelError> {
        let text = if self.get(name).is_some() { self.text(name)? } else { default };
        match text {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluNew),
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            other => Err(self.error(format!(
                "{name} {} is not supported (supported: gelu_new, gelu, relu, silu)",
                shown(&Value::from(other))
            ))),
        }
    }

    /// Rotary positions over the first `share · head` dimensions of each head, by the names of `transformers` 5
    /// (`rope_parameters`) and of earlier versions (`rope_theta` or `base`, `rope_scaling`).
    pub fn rotary(&self, head: usize, base: &str, share: (&str, f64)) -> Result<Positions, ModelError> {
        let object = |name: &str| self.get(name).filter(|v| v.as_object().is_some_and(|o| !o.is_empty()));
        let joined = object("rope_parameters");
        let inner = Fields { value: joined.unwrap_or(&Value::Null), path: self.path };
        if joined.and_then(Value::as_object).is_some_and(|o| o.values().any(Value::is_object)) {
            return Err(self.error("rope_parameters differ between layers: expected one set for all layers"));
        }
        let theta = inner.number_or("rope_theta", self.number_or("rope_theta", self.number_or(base, 10_000.0)?)?)?;
        let share = inner.number_or("partial_rotary_factor", self.number_or(share.0, share.1)?)?;
        if !(theta.is_finite() && theta > 0.0 && share > 0.0 && share <= 1.0) {
            let found = format!("the rotary base is {theta} over {share} of a head");
            return Err(self.error(format!("{found}, expected a base above 0 over at most 1")));
        }
        let scaling = match joined.or_else(|| object("rope_scaling")) {
            None => None,
            Some(value) => Fields { value, path: self.path }.rotary_scaling()?,
        };
        Ok(Positions::Rotary { dim: (head as f64 * share) as usize, theta, interleaved: false, scaling })
    }

    fn rotary_scaling(&self) -> Result<Option<RotaryScaling>, ModelError> {
        let name = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = if self.get(name).is_some() { self.text(name)? } else { "default" };
        let number = |name: &str| match self.get(name).and_then(Value::as_f64) {
            Some(n) if n > 0.0 && n.is_finite() => Ok(n),
            _ => Err(self.error(format!("rope scaling {kind:?} has no number {name:?} above 0"))),
        };
        match kind {
            // The dynamic rule stretches nothing up to max_position_embeddings, and nothing longer is run.
            "default" | "dynamic" => Ok(None),
            "linear" => Ok(Some(RotaryScaling::Linear { factor: number("factor")? })),
            "llama3" => {
                let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
                if low >= high {
                    return Err(self.error(format!("low_freq_factor {low} is not below high_freq_factor {high}")));
                }
                let original = number("original_max_position_embeddings")?;
                Ok(Some(RotaryScaling::Llama3 { factor: number("factor")?, low, high, original }))
            }
            other => Err(self.error(format!(
                "rope scaling {} is not supported (supported: default, linear, dynamic, llama3)",
                shown(&Value::from(other))
            ))),
        }
    }
}

/// A value as it stands in a message: whole when short, its beginning otherwise.
fn shown(value: &Value) -> String {
    const MOST: usize = 60;

    match value {
        // Writing out a value of any size only to cut it would take the memory twice.
        Value::String(text) => format!("{:?}", text.chars().take(MOST).collect::<String>()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => {
            let kind = ["quant_method", "rope_type", "type"].iter().find_map(|name| fields.get(*name)?.as_str());
            kind.map_or_else(|| "an object".to_owned(), |kind| format!("{:.60}", format!("{{{kind:?}}}")))
        }
        other => other.to_string(),
    }
}
