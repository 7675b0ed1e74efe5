//! CounterFact: a JSON array of records (Meng et al., arXiv 2202.05262). Only what an edit needs is required.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::{DataError, EditRequest, Neighbor, Place};

#[derive(Deserialize)]
struct Record {
    case_id: Option<Value>,
    requested_rewrite: Rewrite,
    #[serde(default)]
    paraphrase_prompts: Vec<String>,
    #[serde(default)]
    neighborhood_prompts: Vec<String>,
    #[serde(default)]
    attribute_prompts: Vec<String>,
    #[serde(default)]
    generation_prompts: Vec<String>,
    strength: Option<f64>,
}

#[derive(Deserialize)]
struct Rewrite {
    prompt: String,
    subject: String,
    target_new: Target,
    target_true: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    str: String,
}

pub fn parse(text: &str, file: &Path) -> Result<Vec<EditRequest>, DataError> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|e| {
        DataError::new(file, Place::Line(e.line()), format!("not a JSON array of records: {e}"))
            .hint("CounterFact is one JSON array; for one object a line set dataset: jsonl")
    })?;
    values.into_iter().enumerate().map(|(index, value)| record(index, value, file)).collect()
}

fn record(index: usize, value: Value, file: &Path) -> Result<EditRequest, DataError> {
    let record: Record = serde_path_to_error::deserialize(value).map_err(|e| {
        let field = e.path().to_string();
        let field = (field != ".").then_some(field);
        DataError::new(file, Place::Record(index, field), e.into_inner().to_string())
    })?;
    let rewrite = record.requested_rewrite;
    let target_true = rewrite.target_true.map(|t| t.str);
    let request = EditRequest {
        id: match record.case_id {
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => index.to_string(),
        },
        prompt: rewrite.prompt,
        subject: rewrite.subject,
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
    };
    request
        .check()
        .map_err(|(field, message)| DataError::new(file, Place::Record(index, Some(field.into())), message))?;
    Ok(request)
}
