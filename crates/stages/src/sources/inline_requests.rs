//! `requests`: edit requests that the pipeline itself states.

use palinode_data::{EditRequest, plain_request};
use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, StageContext, StageError, StageKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::sources::load_requests::put_requests;

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
    fn read(&self) -> Result<Vec<EditRequest>, Vec<FieldError>> {
        let mut requests = Vec::new();
        let mut errors = Vec::new();
        for (index, fact) in self.facts.iter().enumerate() {
            match plain_request(index, json!(fact)) {
                Ok(request) => requests.push(request),
                Err((field, message)) => {
                    let field = field.map_or_else(String::new, |field| format!(".{field}"));
                    errors.push(FieldError::new(format!("facts[{index}]{field}"), message));
                }
            }
        }
        if errors.is_empty() { Ok(requests) } else { Err(errors) }
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
        Ok(json!({ "requests": params.read()?.len() }))
    }

    fn run(params: &RequestsParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let told = |errors: Vec<FieldError>| StageError::internal(errors[0].message.clone());
        put_requests(cx, &params.read().map_err(told)?)
    }
}
