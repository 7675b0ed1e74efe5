//! A file's metadata as a config.json.
//!
//! An architecture of GGUF is a family of ours. What its metadata leave out, since llama.cpp has it in its code, stands in the table of
//! architectures, and what follows from other numbers here.

use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::checkpoint::gguf::architectures::ARCHITECTURES;
use crate::checkpoint::gguf::read::Gguf;

/// More than half the dimensions of any head.
const MOST_FREQUENCIES: usize = 1 << 16;

/// The text of a config.json.
///
/// # Errors
/// [`ModelError::Config`] for an architecture that is not read, a number that is missing, and what has no place in a config.json.
pub fn config_json(file: &Gguf) -> Result<String, ModelError> {
    let found = file.text("general.architecture")?.ok_or_else(|| file.wrong("no general.architecture"))?;
    let Some(architecture) = ARCHITECTURES.iter().find(|known| known.name == found) else {
        let supported = ARCHITECTURES.each_ref().map(|known| known.name).join(", ");
        let found: String = found.chars().take(60).collect();
        return Err(file.wrong(format!("the GGUF architecture {found:?} is not supported (supported: {supported})")));
    };
    let key = |name: &str| format!("{found}.{name}");
    let mut json = Map::new();
    json.insert("architectures".into(), json!([architecture.class]));
    json.insert("model_type".into(), architecture.model_type.into());
    json.insert("dtype".into(), "float32".into());
    for (name, text) in architecture.texts {
        json.insert((*name).into(), (*text).into());
    }
    for (name, number) in architecture.known {
        json.insert((*name).into(), (*number).into());
    }
    for (from, to) in architecture.numbers.iter().copied().flatten() {
        if let Some(number) = number(file, &key(from))? {
            json.insert((*to).into(), number);
        }
    }
    for name in architecture.or_null {
        if json.get(*name).is_none_or(|found| found.as_f64() == Some(0.0)) {
            json.insert((*name).into(), Value::Null);
        }
    }
    for (name, tensor) in architecture.present {
        json.insert((*name).into(), file.tensor(tensor).is_some().into());
    }
    let embedding = file.tensor("token_embd.weight").ok_or_else(|| file.wrong("no tensor token_embd.weight"))?;
    json.insert("vocab_size".into(), embedding.shape[0].into());
    json.insert("tie_word_embeddings".into(), file.tensor("output.weight").is_none().into());
    for (from, to) in [("bos", "bos_token_id"), ("eos", "eos_token_id")] {
        if let Some(id) = file.whole(&format!("tokenizer.ggml.{from}_token_id"))? {
            json.insert(to.into(), id.into());
        }
    }
    match architecture.model_type {
        "gpt2" | "bloom" => {}
        "mpt" => {
            let most = file.number(&key("attention.max_alibi_bias"))?.unwrap_or(8.0);
            let clip = file.number(&key("attention.clamp_kqv"))?.filter(|clip| *clip != 0.0);
            json.insert("attn_config".into(), json!({ "alibi": true, "alibi_bias_max": most, "clip_qkv": clip }));
        }
        "falcon" => {
            // Both norms of a block are there, or the one of the older architecture, whose heads share one key or none.
            let one = file.whole(&key("attention.head_count_kv"))?.is_none_or(|heads| heads == 1);
            json.insert("multi_query".into(), one.into());
        }
        "gpt_neox" => {
            let dim = head_dim(file, &key)?;
            let rotated = file.whole(&key("rope.dimension_count"))?.unwrap_or(dim);
            json.insert("rotary_pct".into(), (rotated as f64 / dim.max(1) as f64).into());
            let parallel = file.flag(&key("use_parallel_residual"))?.unwrap_or(true);
            json.insert("use_parallel_residual".into(), parallel.into());
        }
        kind => {
            let dim = head_dim(file, &key)?;
            json.insert("head_dim".into(), dim.into());
            if file.whole(&key("attention.value_length"))?.is_some_and(|value| value != dim) {
                return Err(file.wrong("keys and values of different lengths are not supported"));
            }
            // Families that rotate a part of each head unless it is said otherwise.
            let part = ["phi", "glm4", "stablelm"].contains(&kind);
            if let Some(rotated) = file.whole(&key("rope.dimension_count"))?.filter(|rotated| part || *rotated != dim) {
                json.insert("partial_rotary_factor".into(), (rotated as f64 / dim.max(1) as f64).into());
            }
            match kind {
                // Of the largest models of these families the scores are divided by another root, which the file does not say.
                "gemma2" | "gemma3_text" => {
                    let largest = if kind == "gemma2" { 46 } else { 62 };
                    let sizes = [file.whole(&key("embedding_length"))?, file.whole(&key("attention.head_count"))?];
                    let scalar = match (sizes, file.whole(&key("block_count"))?) {
                        ([Some(hidden), Some(heads)], Some(layers)) if layers == largest && heads > 0 => hidden / heads,
                        _ => dim,
                    };
                    json.insert("query_pre_attn_scalar".into(), scalar.into());
                }
                "stablelm" => {
                    // The norm before the feed-forward is missing where there is none.
                    let parallel = file.tensor("blk.0.ffn_norm.weight").is_none();
                    json.insert("use_parallel_residual".into(), parallel.into());
                    if file.tensor("blk.0.attn_q_norm.weight").is_some() {
                        return Err(file.wrong("StableLM with norms on queries and keys is not supported as GGUF"));
                    }
                }
                _ => {}
            }
        }
    }
    if let Some(scaling) = scaling(file, &key)? {
        json.insert("rope_scaling".into(), scaling);
    }
    Ok(format!("{:#}\n", Value::Object(json)))
}

/// A number as JSON; of a list, its one value.
fn number(file: &Gguf, key: &str) -> Result<Option<Value>, ModelError> {
    if let Ok(Some(whole)) = file.whole(key) {
        return Ok(Some(whole.into()));
    }
    if let Ok(Some(all)) = file.numbers(key) {
        let first = all.first().copied().unwrap_or_default();
        if all.iter().any(|n| *n != first) {
            return Err(file.wrong(format!("{key} differs between layers: expected one number for all of them")));
        }
        return Ok(Some((first as u64).into()));
    }
    Ok(file.number(key)?.map(Value::from))
}

fn head_dim(file: &Gguf, key: &impl Fn(&str) -> String) -> Result<u64, ModelError> {
    if let Some(length) = file.whole(&key("attention.key_length"))? {
        return Ok(length);
    }
    let hidden = file.whole(&key("embedding_length"))?;
    let heads = file.whole(&key("attention.head_count"))?.filter(|heads| *heads > 0);
    match (hidden, heads) {
        (Some(hidden), Some(heads)) => Ok(hidden / heads),
        _ => Err(file.wrong(format!("no {} or {}", key("embedding_length"), key("attention.head_count")))),
    }
}

/// `rope_scaling`. Llama 3's scaling is stored as what it comes to, a divisor for each frequency.
fn scaling(file: &Gguf, key: &impl Fn(&str) -> String) -> Result<Option<Value>, ModelError> {
    if let Some(tensor) = file.tensor("rope_freqs.weight") {
        let theta = file.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        if tensor.shape.iter().product::<usize>() > MOST_FREQUENCIES {
            return Err(file.wrong("rope_freqs.weight has more numbers than any head has dimensions"));
        }
        let found = file.values(tensor)?;
        let factor = f64::from(found.iter().copied().fold(1.0, f32::max));
        if !factor.is_finite() {
            return Err(file.wrong("rope_freqs.weight holds numbers that are not finite"));
        }
        if factor == 1.0 {
            return Ok(None);
        }
        // Of the three numbers behind them two are the same in all that is published, and the third is a power of two.
        let (low, high) = (1.0, 4.0);
        let expected = |i: usize, original: f64| {
            let wavelength = std::f64::consts::TAU * theta.powf(i as f64 / found.len() as f64);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor
            } else {
                let share = (original / wavelength - low) / (high - low);
                1.0 / ((1.0 - share) / factor + share)
            }
        };
        let alike = |original: &f64| {
            found.iter().enumerate().all(|(i, v)| (f64::from(*v) / expected(i, *original) - 1.0).abs() < 1e-4)
        };
        let Some(original) = (4..=20).map(|power| f64::from(1u32 << power)).find(alike) else {
            return Err(file.wrong("rope_freqs.weight is not Llama 3's scaling, and no other is supported"));
        };
        return Ok(Some(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original as u64,
        })));
    }
    let original = file.whole(&key("rope.scaling.original_context_length"))?;
    if let Some(short) = file.tensor("rope_factors_short.weight") {
        let count: usize = short.shape.iter().product();
        if count > MOST_FREQUENCIES {
            return Err(file.wrong("rope_factors_short.weight has more numbers than any head has dimensions"));
        }
        return Ok(Some(json!({
            "rope_type": "longrope",
            "short_factor": file.values(short)?,
            "original_max_position_embeddings": original,
            "attention_factor": file.number(&key("rope.scaling.attn_factor"))?,
        })));
    }
    match file.text(&key("rope.scaling.type"))? {
        None | Some("none") => match file.number(&key("rope.scale_linear"))? {
            Some(factor) if factor != 1.0 => Ok(Some(json!({ "rope_type": "linear", "factor": factor }))),
            _ => Ok(None),
        },
        Some("yarn") => {
            let number = |name: &str| file.number(&key(&format!("rope.scaling.{name}")));
            let all_dim = number("yarn_log_multiplier")?;
            Ok(Some(json!({
                "rope_type": "yarn",
                "factor": number("factor")?,
                "original_max_position_embeddings": original,
                "beta_fast": number("yarn_beta_fast")?,
                "beta_slow": number("yarn_beta_slow")?,
                "mscale": all_dim.map(|_| 1.0),
                "mscale_all_dim": all_dim,
                "llama_4_scaling_beta": file.number(&key("attention.temperature_scale"))?,
            })))
        }
        Some(kind) => Ok(Some(json!({ "rope_type": kind, "factor": file.number(&key("rope.scaling.factor"))? }))),
    }
}
