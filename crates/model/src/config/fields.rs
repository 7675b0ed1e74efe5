//! Typed reading of a JSON file's fields, with the file in every message.

use std::path::Path;

use serde_json::Value;

use crate::{Activation, ModelError, Rotary, RotaryScaling};

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

    /// A number, the default where the field is not there, and none where it is null.
    pub fn number_or_null(&self, name: &str, default: Option<f64>) -> Result<Option<f64>, ModelError> {
        match self.value.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.number_or(name, 0.0).map(Some),
        }
    }

    /// A number above 0, or none: null, and what stands for none.
    pub fn bound(&self, name: &str, default: Option<f64>) -> Result<Option<f64>, ModelError> {
        match self.number_or_null(name, default)? {
            Some(n) if !(n > 0.0 && n.is_finite()) => {
                Err(self.error(format!("{name} is {n}, expected a number above 0")))
            }
            found => Ok(found),
        }
    }

    /// A finite number other than 0.
    pub fn multiplier(&self, name: &str, default: f64) -> Result<f64, ModelError> {
        match self.number_or(name, default)? {
            n if n.is_finite() && n != 0.0 => Ok(n),
            n => Err(self.error(format!("{name} is {n}, expected a number other than 0"))),
        }
    }

    /// A size, none where it is null, and the default where the field is not there.
    pub fn size_or_null(&self, name: &str, default: Option<usize>) -> Result<Option<usize>, ModelError> {
        match self.value.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(name).map(Some),
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
    /// (`rope_parameters`) and of earlier versions (`rope_theta` or `base`, `rope_scaling`); each name with its default.
    pub fn rotary(&self, head: usize, base: (&str, f64), share: (&str, f64)) -> Result<Rotary, ModelError> {
        let joined = self.object("rope_parameters");
        if joined.and_then(Value::as_object).is_some_and(|o| o.values().any(Value::is_object)) {
            return Err(self.error("rope_parameters differ between layers: expected one set for all layers"));
        }
        self.rotary_by(joined, head, base, share, self.object("rope_scaling"))
    }

    /// As [`Fields::rotary`], of the layers of one kind, whose set `rope_parameters` has under the kind's name.
    pub fn rotary_of_kind(
        &self,
        kind: &str,
        head: usize,
        base: (&str, f64),
        scaling: Option<&Value>,
    ) -> Result<Rotary, ModelError> {
        let all = self.object("rope_parameters");
        let own = match all.and_then(Value::as_object) {
            Some(o) if o.values().any(Value::is_object) => o.get(kind).filter(|set| set.is_object()),
            _ => all,
        };
        self.rotary_by(own, head, base, ("partial_rotary_factor", 1.0), scaling)
    }

    /// A field that is an object with something in it.
    pub fn object(&self, name: &str) -> Option<&'a Value> {
        self.get(name).filter(|v| v.as_object().is_some_and(|o| !o.is_empty()))
    }

    fn rotary_by(
        &self,
        joined: Option<&Value>,
        head: usize,
        base: (&str, f64),
        share: (&str, f64),
        scaling: Option<&Value>,
    ) -> Result<Rotary, ModelError> {
        let inner = Fields { value: joined.unwrap_or(&Value::Null), path: self.path };
        // Llama and its descendants have one name for the base; where a layer kind has a name of its own, only that counts.
        let outer = self.number_or(base.0, base.1)?;
        let outer = if base.0 == "rope_local_base_freq" { outer } else { self.number_or("rope_theta", outer)? };
        let theta = inner.number_or("rope_theta", outer)?;
        let share = inner.number_or("partial_rotary_factor", self.number_or(share.0, share.1)?)?;
        if !(theta.is_finite() && theta > 0.0 && share > 0.0 && share <= 1.0) {
            let found = format!("the rotary base is {theta} over {share} of a head");
            return Err(self.error(format!("{found}, expected a base above 0 over at most 1")));
        }
        let dim = (head as f64 * share) as usize;
        let scaling = match joined.or(scaling) {
            None => None,
            Some(value) => self.rotary_scaling(&Fields { value, path: self.path }, dim)?,
        };
        Ok(Rotary { dim, theta, interleaved: false, scaling })
    }

    /// The context, where attention of longer texts would be another one: of rules that change behind the first training's context, that.
    pub fn context(&self, name: &str) -> Result<usize, ModelError> {
        let context = self.size(name)?;
        let Some(value) = self.object("rope_parameters").or_else(|| self.object("rope_scaling")) else {
            return Ok(context);
        };
        let set = Fields { value, path: self.path };
        let changes =
            matches!(set.rope_kind()?, "longrope" | "su") || set.number_or("llama_4_scaling_beta", 0.0)? != 0.0;
        if !changes {
            return Ok(context);
        }
        Ok(context.min(self.original_context(&set)? as usize))
    }

    /// How `rope_parameters` or `rope_scaling` call the rule.
    fn rope_kind(&self) -> Result<&'a str, ModelError> {
        let name = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        if self.get(name).is_some() { self.text(name) } else { Ok("default") }
    }

    /// The context of the first training, given a rule's own fields.
    fn original_context(&self, set: &Fields) -> Result<f64, ModelError> {
        let name = "original_max_position_embeddings";
        let first = set.number_or(name, self.number_or("max_position_embeddings", 0.0)?)?;
        match self.number_or(name, first)? {
            n if n > 1.0 && n.is_finite() => Ok(n),
            n => Err(self.error(format!("{name} is {n}, expected a number above 1"))),
        }
    }

    /// The rule of a set of fields, for a rotation of `dim` dimensions.
    fn rotary_scaling(&self, set: &Fields, dim: usize) -> Result<Option<RotaryScaling>, ModelError> {
        let kind = set.rope_kind()?;
        let wrong = |name: &str| self.error(format!("rope scaling {kind:?} has no number {name:?} above 0"));
        let above_0 = |name: &str, n: f64| if n > 0.0 && n.is_finite() { Ok(n) } else { Err(wrong(name)) };
        let number = |name: &str| {
            set.get(name).and_then(Value::as_f64).ok_or_else(|| wrong(name)).and_then(|n| above_0(name, n))
        };
        let or = |name: &str, default: f64| above_0(name, set.number_or(name, default)?);
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
            "yarn" => {
                let original = self.original_context(set)?;
                let factor = or("factor", self.number_or("max_position_embeddings", original)? / original)?;
                let spread = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
                let scales = ["mscale", "mscale_all_dim"].map(|name| set.number_or(name, 0.0));
                let attention = match scales {
                    [Ok(a), Ok(b)] if a != 0.0 && b != 0.0 => spread(a) / spread(b),
                    [Ok(_), Ok(_)] => spread(1.0),
                    [Err(error), _] | [_, Err(error)] => return Err(error),
                };
                Ok(Some(RotaryScaling::Yarn {
                    factor,
                    attention: or("attention_factor", attention)?,
                    fast: or("beta_fast", 32.0)?,
                    slow: or("beta_slow", 1.0)?,
                    original,
                    whole: set.flag_or("truncate", true)?,
                }))
            }
            "longrope" | "su" => {
                let original = self.original_context(set)?;
                let factor = or("factor", self.number_or("max_position_embeddings", original)? / original)?;
                let attention = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
                let listed = set.get("short_factor").and_then(Value::as_array);
                let factors: Option<Vec<f64>> = listed.and_then(|l| l.iter().map(Value::as_f64).collect());
                let Some(factors) = factors.filter(|f| f.len() == dim / 2 && f.iter().all(|f| *f > 0.0)) else {
                    let expected = format!("{} numbers above 0", dim / 2);
                    return Err(self.error(format!("short_factor of rope scaling {kind:?} is not {expected}")));
                };
                Ok(Some(RotaryScaling::Each { factors, attention: or("attention_factor", attention)? }))
            }
            other => Err(self.error(format!(
                "rope scaling {} is not supported (supported: default, linear, dynamic, llama3, yarn, longrope)",
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
