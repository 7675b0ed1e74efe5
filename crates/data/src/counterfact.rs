//! CounterFact and multi-CounterFact (Meng et al., arXiv 2202.05262). Only what an edit needs is required.

use serde::Deserialize;
use serde_json::Value;

use crate::records::{Fault, null_is_none};
use crate::request::trimmed;
use crate::{EditRequest, Neighbor, TargetPrefix};

pub const HINT: &str = "a CounterFact record has requested_rewrite with prompt (with {}), subject and target_new.str; for plain \
                        records set dataset: jsonl";

#[derive(Deserialize)]
pub struct Record {
    case_id: Option<Value>,
    requested_rewrite: Rewrite,
    #[serde(default, deserialize_with = "null_is_none")]
    paraphrase_prompts: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    neighborhood_prompts: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    attribute_prompts: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    generation_prompts: Vec<String>,
    strength: Option<f64>,
    target_prefix: Option<String>,
}

#[derive(Deserialize)]
struct Rewrite {
    prompt: String,
    subject: String,
    relation_id: Option<String>,
    target_new: Target,
    target_true: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    str: String,
    id: Option<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "one shape for all readers")]
pub fn request(index: usize, record: Record) -> Result<EditRequest, Fault> {
    let rewrite = record.requested_rewrite;
    let target_true = rewrite.target_true.map(|t| t.str);
    Ok(EditRequest {
        id: id(record.case_id, index),
        fact: rewrite.relation_id.zip(rewrite.target_new.id),
        prompt: rewrite.prompt,
        subject: trimmed(rewrite.subject),
        target_new: rewrite.target_new.str,
        paraphrases: record.paraphrase_prompts,
        neighbors: record
            .neighborhood_prompts
            .into_iter()
            .map(|prompt| Neighbor { prompt, target: target_true.clone() })
            .collect(),
        target_true,
        attributes: record.attribute_prompts,
        generation: record.generation_prompts,
        strength: record.strength,
        target_prefix: record.target_prefix.map_or(TargetPrefix::Blank, TargetPrefix::Given),
        ..EditRequest::default()
    })
}

/// A record's own name, or its number.
pub fn id(value: Option<Value>, index: usize) -> String {
    match value {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) => id.to_string(),
        _ => index.to_string(),
    }
}
