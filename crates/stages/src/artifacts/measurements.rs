//! What was measured on models, on its way to those who show it.

use std::path::PathBuf;

use palinode_engine::Kind;
use palinode_engine::shown::Shown;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The logical name of the scores, one record a line.
pub const RECORDS: &str = "records.jsonl";
/// The logical name of the same as a table, one prompt a row.
pub const TABLE: &str = "records.parquet";
/// The logical name of the retention curve: what is left of each round's edits.
pub const AGES: &str = "ages.json";
/// The logical name of a task's answers, one question a line.
pub const ANSWERS: &str = "answers.jsonl";

/// Scores of edit requests.
pub struct ScoresKind;

impl Kind for ScoresKind {
    const NAME: &'static str = "scores";
    type Facts = ScoresFacts;
    type Planned = ();
}

/// What scores say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScoresFacts {
    /// The requests that were scored.
    pub requests: usize,
    /// The batches of the edited model; 0 of an unedited one.
    pub batches: usize,
    /// Edits that did not take: the model still prefers another answer.
    #[serde(default, skip_serializing_if = "none")]
    pub untaken: usize,
    /// The metrics.
    #[serde(flatten)]
    pub shown: Shown,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn none(count: &usize) -> bool {
    *count == 0
}

/// How well running text is predicted.
pub struct PerplexityKind;

impl Kind for PerplexityKind {
    const NAME: &'static str = "perplexity";
    type Facts = PerplexityFacts;
    type Planned = ();
}

/// What a perplexity says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct PerplexityFacts {
    /// The documents that were read.
    pub documents: usize,
    /// The tokens that were predicted.
    pub tokens: usize,
    /// The metrics.
    #[serde(flatten)]
    pub shown: Shown,
}

/// A task of classification.
pub struct ProbesKind;

impl Kind for ProbesKind {
    const NAME: &'static str = "probes";
    type Facts = ProbesFacts;
    type Planned = ();
}

/// What the results of a task say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProbesFacts {
    /// The number of questions.
    pub questions: usize,
    /// The metrics, and a few questions.
    #[serde(flatten)]
    pub shown: Shown,
}

/// The logical name of verdicts on answers, one a line.
pub const VERDICTS: &str = "verdicts.jsonl";

/// Verdicts on a model's own answers.
pub struct VerdictsKind;

impl Kind for VerdictsKind {
    const NAME: &'static str = "verdicts";
    type Facts = VerdictsFacts;
    type Planned = ();
}

/// What verdicts say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct VerdictsFacts {
    /// The answers.
    pub answers: usize,
    /// Those that the judge left open.
    pub open: usize,
    /// The metrics.
    #[serde(flatten)]
    pub shown: Shown,
}

/// The further metrics of the published code.
pub struct ReferenceKind;

impl Kind for ReferenceKind {
    const NAME: &'static str = "reference_metrics";
    type Facts = ReferenceFacts;
    type Planned = ();
}

/// What they say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReferenceFacts {
    /// The number of requests.
    pub requests: usize,
    /// Distances in every changed weight.
    pub distances: serde_json::Value,
    /// The metrics.
    #[serde(flatten)]
    pub shown: Shown,
}

/// Continuations of prompts.
pub struct AnswersKind;

impl Kind for AnswersKind {
    const NAME: &'static str = "answers";
    type Facts = AnswersFacts;
    type Planned = ();
}

/// The answers, which an artifact says itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnswersFacts {
    /// One for each prompt.
    pub answers: Vec<Answer>,
    /// The same as samples.
    #[serde(flatten)]
    pub shown: Shown,
}

/// What a model makes of a prompt.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The prompt.
    pub prompt: String,
    /// Of the unedited model.
    pub before: Said,
    /// Of the edited one, if it is edited.
    pub after: Option<Said>,
}

/// One model's continuation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Said {
    /// The text.
    pub text: String,
    /// The most probable next tokens.
    pub next: Vec<NextToken>,
}

/// A token that could come next.
#[derive(Debug, Serialize, Deserialize)]
pub struct NextToken {
    /// The token.
    pub token: String,
    /// Its probability.
    pub p: f64,
}

/// Problems that were found before an edit.
pub struct PreflightKind;

impl Kind for PreflightKind {
    const NAME: &'static str = "preflight";
    type Facts = Shown;
    type Planned = ();
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// The whole edited model in Hugging Face's layout, with the names, shards and number types of the source, and copies
    /// of its other files. Of a GGUF file: in f32, with config.json and tokenizer.json made of its metadata.
    Model,
    /// Only the change, in update.safetensors: `{weight}.left` [out, r] and `{weight}.right` [r, in], W += left · right.
    /// A change that is not low-rank has `{weight}.dense`, or its entries under `{weight}.at`, `.values` and `.shape`.
    Update,
    /// The whole edited model as one GGUF file, of a model that is one: `model.gguf`. Edited tensors that are quantized are written as
    /// `gguf_type`; everything else stays byte for byte.
    Gguf,
    /// A LoRA adapter for the unedited model, which `peft` loads, in a folder `adapter`. Only for low-rank changes.
    Peft,
}

/// Files outside the store.
pub struct ExportKind;

impl Kind for ExportKind {
    const NAME: &'static str = "export";
    type Facts = ExportFacts;
    type Planned = ();
}

/// What was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExportFacts {
    /// The formats of an edited model, of those that `export` knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formats: Option<Vec<ExportFormat>>,
    /// The files.
    pub files: Vec<PathBuf>,
    /// What of an update with several batches was written, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// What rounding took of the change.
    #[serde(flatten)]
    pub shown: Shown,
}
