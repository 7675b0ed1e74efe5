//! `requests`: edit requests that the pipeline itself states.

use std::path::Path;

use palinode_data::{DataError, EditRequest, Place, parse_jsonl};
use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, StageContext, StageError, StageKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::load_requests::put_requests;

/// A prompt about another subject that the edit should leave alone.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Neighbor {
    /// The whole prompt.
    prompt: String,
    /// What the model should go on saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

/// One fact.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fact {
    /// What the fact is about.
    subject: String,
    /// The beginning of a sentence that states it, with `{}` in the subject's place.
    prompt: String,
    /// What the model shall say.
    target_new: String,
    /// What it says now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_true: Option<String>,
    /// The same in other words, to judge the edit by.
    #[serde(default)]
    paraphrases: Vec<String>,
    /// Prompts that the edit should leave alone, to judge it by.
    #[serde(default)]
    neighbors: Vec<Neighbor>,
    /// The request's own μ: 0 makes its edit a hard constraint whatever the objective, larger values softer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
    /// Name in reports; its number where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Parameters of `requests`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestsParams {
    /// The facts.
    facts: Vec<Fact>,
}

impl RequestsParams {
    fn read(&self) -> Result<Vec<EditRequest>, DataError> {
        let lines: Vec<String> = self.facts.iter().map(|fact| json!(fact).to_string()).collect();
        parse_jsonl(&lines.join("\n"), Path::new("facts"))
    }
}

/// See [`StageKind::DOC`].
pub struct Requests;

impl StageKind for Requests {
    type Params = RequestsParams;
    const NAME: &'static str = "requests";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "States edit requests in the pipeline itself.";
    const DOC: &'static str = "\
For a few facts that need no file: each with its subject, a prompt with `{}` in the subject's place, and what the model shall \
say. Many facts are better kept in a file: see `load_requests`.";
    const OUTPUT: ArtifactKind = "requests";

    fn describe(params: &RequestsParams, _: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        if params.facts.is_empty() {
            return Err(vec![FieldError::new("facts", "`facts` is empty").expected("one fact or more")]);
        }
        let requests = params.read().map_err(|error| {
            let field = match error.place {
                Place::Line(number) => format!("facts[{}]", number - 1),
                _ => "facts".to_owned(),
            };
            vec![FieldError::new(field, error.message.clone())]
        })?;
        Ok(json!({ "requests": requests.len() }))
    }

    fn run(params: &RequestsParams, cx: &StageContext) -> Result<Artifact, StageError> {
        put_requests(cx, &params.read().map_err(|error| StageError::internal(error.message))?)
    }
}
