//! Plain JSON lines: `{"subject", "prompt", "target_new", "target_true"?, "paraphrases"?, "neighbors"?, "strength"?, "id"?}`.
//!
//! A prompt without `{}` that holds the subject word for word has it taken out.

use std::path::Path;

use serde::Deserialize;

use crate::{DataError, EditRequest, Neighbor, Place};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<String>,
    subject: String,
    prompt: String,
    target_new: String,
    target_true: Option<String>,
    #[serde(default)]
    paraphrases: Vec<String>,
    #[serde(default)]
    neighbors: Vec<NeighborLine>,
    #[serde(default)]
    attributes: Vec<String>,
    #[serde(default)]
    generation: Vec<String>,
    strength: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NeighborLine {
    prompt: String,
    target: Option<String>,
}

/// The requests of a text in which every line is one; `file` is what mistakes are told of.
///
/// # Errors
/// [`DataError`] with the line.
pub fn parse(text: &str, file: &Path) -> Result<Vec<EditRequest>, DataError> {
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() {
            continue;
        }
        let bad = |message: String| {
            DataError::new(file, Place::Line(number), message)
                .hint("every line is one JSON object with subject, prompt (with {}) and target_new")
        };
        let value: serde_json::Value = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        let parsed: Line = serde_path_to_error::deserialize(value).map_err(|e| {
            let field = e.path().to_string();
            let prefix = if field == "." { String::new() } else { format!("{field}: ") };
            bad(format!("{prefix}{}", e.into_inner()))
        })?;
        let request = parsed.into_request(requests.len());
        request.check().map_err(|(_, message)| DataError::new(file, Place::Line(number), message))?;
        requests.push(request);
    }
    Ok(requests)
}

impl Line {
    fn into_request(self, index: usize) -> EditRequest {
        let prompt = if self.prompt.contains("{}") || self.subject.is_empty() {
            self.prompt
        } else {
            self.prompt.replacen(&self.subject, "{}", 1)
        };
        EditRequest {
            id: self.id.unwrap_or_else(|| index.to_string()),
            prompt,
            subject: self.subject,
            target_new: self.target_new,
            neighbors: self
                .neighbors
                .into_iter()
                .map(|n| Neighbor { prompt: n.prompt, target: n.target.or_else(|| self.target_true.clone()) })
                .collect(),
            target_true: self.target_true,
            paraphrases: self.paraphrases,
            attributes: self.attributes,
            generation: self.generation,
            strength: self.strength,
        }
    }
}
