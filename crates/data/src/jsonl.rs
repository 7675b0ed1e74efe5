//! Plain JSON lines: `{"subject", "prompt", "target_new", "target_true"?, "paraphrases"?, "neighbors"?, "attributes"?, "generation"?,
//! "references"?, "portability"?, "locality"?, "strength"?, "id"?,
//! "relation"?, "target_prefix"?, "group"?, "contexts"?, "kl_prompts"?}`.
//!
//! A CSV file has these fields as columns; what is no text there is JSON.
//!
//! A prompt without `{}` that mentions the subject once, as a word of its own, has it taken out.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::records::{Fault, null_is_none};
use crate::request::{template, trimmed};
use crate::{EditRequest, Neighbor, Probe, TargetPrefix};

pub const HINT: &str =
    "every line is one JSON object with subject, prompt (with {}) and target_new, or a CSV file has these columns";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    id: Option<String>,
    subject: String,
    prompt: String,
    target_new: String,
    target_true: Option<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    paraphrases: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    neighbors: Vec<NeighborLine>,
    #[serde(default, deserialize_with = "null_is_none")]
    attributes: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    generation: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    references: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    portability: BTreeMap<String, Vec<Probe>>,
    #[serde(default, deserialize_with = "null_is_none")]
    locality: BTreeMap<String, Vec<Probe>>,
    strength: Option<f64>,
    relation: Option<String>,
    target_prefix: Option<String>,
    group: Option<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    contexts: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    kl_prompts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NeighborLine {
    prompt: String,
    target: Option<String>,
}

pub fn request(index: usize, line: Line) -> Result<EditRequest, Fault> {
    let (subject, target_true) = (trimmed(line.subject), line.target_true);
    let prompt = template(line.prompt, &subject).map_err(|message| (Some("prompt".to_owned()), message))?;
    let neighbors = line.neighbors.into_iter();
    Ok(EditRequest {
        id: line.id.unwrap_or_else(|| index.to_string()),
        prompt,
        subject,
        target_new: line.target_new,
        neighbors: neighbors
            .map(|n| Neighbor { prompt: n.prompt, target: n.target.or_else(|| target_true.clone()) })
            .collect(),
        target_true,
        paraphrases: line.paraphrases,
        attributes: line.attributes,
        generation: line.generation,
        references: line.references,
        portability: line.portability,
        locality: line.locality,
        strength: line.strength,
        relation: line.relation,
        group: line.group,
        contexts: line.contexts,
        kl_prompts: line.kl_prompts,
        target_prefix: line.target_prefix.map_or(TargetPrefix::Blank, TargetPrefix::Given),
        ..EditRequest::default()
    })
}
