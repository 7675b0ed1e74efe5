//! `requests`: edit requests that the pipeline itself states.

use palinode_data::{EditRequest, by_record, plain_request, settle};
use palinode_engine::bounds::NonNegative;
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, StageContext, StageKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::chat::Chat;
use crate::artifacts::requests::{PlannedRequests, RequestsKind};
use crate::sources::load_requests::put_requests;

/// A prompt about another subject that the edit should leave alone.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Neighbor {
    /// The whole prompt.
    prompt: String,
    /// What the model should still say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

/// One fact.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fact {
    /// What the fact is about.
    subject: String,
    /// The beginning of a sentence that states the fact, with `{}` in the place of the subject.
    prompt: String,
    /// What the model should say.
    target_new: String,
    /// What the model says before the edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_true: Option<String>,
    /// Paraphrase prompts, to evaluate the edit.
    #[serde(default)]
    paraphrases: Vec<String>,
    /// Neighborhood prompts, where the edit should change nothing.
    #[serde(default)]
    neighbors: Vec<Neighbor>,
    /// The request's own μ. For every objective, 0 makes its edit a hard constraint, and larger values make it softer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strength: Option<NonNegative>,
    /// What stands between a prompt and a target. The default is a space where the language has one; `""` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_prefix: Option<String>,
    /// What the fact says of its subject, by any name: of two facts with one subject and one relation, the later one holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    /// The record that it belongs to, by any name: facts of one group are written together, and judged together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Contexts of its own, with `{}` in the prompt's place, instead of those of `templates`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<String>,
    /// Prompts with `{}` in the subject's place where the model should not drift. The default is "{} is a".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kl_prompts: Vec<String>,
    /// Name in reports. The default is the number of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Parameters of `requests`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestsParams {
    /// The facts.
    #[schemars(length(min = 1))]
    facts: Vec<Fact>,
    /// Puts every prompt as a user's message by the model's chat template, with the target as the beginning of the answer: `chat: {}`, or
    /// `chat: { system: … }`. The default is prompts that the model continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat: Option<Chat>,
}

impl RequestsParams {
    /// The chat whose messages the prompts are.
    pub fn chat(&self) -> Option<&Chat> {
        self.chat.as_ref()
    }

    /// The requests.
    pub fn read(&self) -> Result<Vec<EditRequest>, Vec<FieldError>> {
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
        let mut requests: Vec<EditRequest> = by_record(requests).into_iter().flatten().collect();
        settle(&mut requests);
        if errors.is_empty() { Ok(requests) } else { Err(errors) }
    }
}

/// See [`StageKind::DOC`].
pub struct Requests;

impl StageKind for Requests {
    type Params = RequestsParams;
    const NAME: &'static str = "requests";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Lists edit requests in the pipeline itself.";
    const DOC: &'static str = "\
For a few facts without a file of their own: each has a subject, a prompt with `{}` in the place of the subject, and the \
text that the model should say. For many facts use a file and `load_requests`.";
    type Output = RequestsKind;

    fn carries() -> &'static [u32] {
        // Version 3 added groups, contexts and KL prompts of requests, which do nothing where they are left out.
        &[2]
    }

    fn describe(params: &RequestsParams, _: &DescribeCx<'_>) -> Result<PlannedRequests, Vec<FieldError>> {
        if params.facts.is_empty() {
            return Err(vec![FieldError::new("facts", "`facts` is empty").expected("one fact or more")]);
        }
        Ok(PlannedRequests::of(&params.read()?))
    }

    fn run(params: &RequestsParams, cx: &StageContext) -> Result<Artifact, Error> {
        let told = |errors: Vec<FieldError>| Error::internal(errors[0].message.clone());
        put_requests(cx, &params.read().map_err(told)?, None, params.chat.clone())
    }
}
