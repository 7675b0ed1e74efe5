//! `load_requests`: a data set as edit requests.

use std::path::{Path, PathBuf};

use palinode_data::{Dataset, EditRequest, Mistakes, Selection, ZsreTarget, add_snippets, conflicts, read_requests};
use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ExternalFile, FieldError, StageContext, StageError, StageKind, Takes,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::{StageFailure, all_in_field};
use crate::judge::evaluate::Metrics;

/// Files up to this size are read before anything runs, so that their mistakes show with those of the pipeline.
const READ_EARLY: u64 = 16 << 20;
/// The logical name of the requests.
pub const REQUESTS: &str = "requests.json";

/// The fields of a data set's records.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// CounterFact's (also multi-CounterFact's).
    CounterFact,
    /// zsRE's, as MEND cut it: `subject`, `src`, `answers`, `alt`, `rephrase`, `loc`, `loc_ans`.
    Zsre,
    /// KnowEdit's, with axes of `portability` and `locality`, and EasyEdit's flat form with one prompt of each.
    KnowEdit,
    /// Plain ones: `subject`, `prompt` with `{}`, `target_new`; and, where known, `target_true`, `paraphrases`, `neighbors`
    /// (`{prompt, target}`), `strength`.
    Jsonl,
}

/// The answer that becomes the new target of a zsRE record.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewTarget {
    /// The true one, `answers[0]`: the reading of MEMIT and of the papers after it.
    Answer,
    /// The false one, `alt`: EasyEdit's reading.
    Alt,
}

/// Parameters of `load_requests`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadRequestsParams {
    /// The file. Its name is no part of the key: its contents are.
    path: PathBuf,
    /// The fields of its records.
    #[serde(default = "counterfact")]
    dataset: Layout,
    /// For zsRE, the answer that becomes the new target.
    #[serde(default = "answer")]
    zsre_target: NewTarget,
    /// Texts about the facts' objects (`attribute_snippets.json`), which become the requests' references: `evaluate` compares what
    /// the model writes with them.
    #[serde(default)]
    snippets: Option<PathBuf>,
    /// Shuffle the records by this seed before any are taken.
    #[serde(default)]
    shuffle: Option<u64>,
    /// Skip so many records.
    #[serde(default)]
    offset: usize,
    /// Take at most so many.
    #[serde(default)]
    limit: Option<usize>,
}

fn counterfact() -> Layout {
    Layout::CounterFact
}

fn answer() -> NewTarget {
    NewTarget::Answer
}

impl LoadRequestsParams {
    fn read(&self, path: &Path) -> Result<Vec<EditRequest>, Mistakes> {
        let dataset = match self.dataset {
            Layout::CounterFact => Dataset::CounterFact,
            Layout::Zsre => Dataset::Zsre(match self.zsre_target {
                NewTarget::Answer => ZsreTarget::Answer,
                NewTarget::Alt => ZsreTarget::Alt,
            }),
            Layout::KnowEdit => Dataset::KnowEdit,
            Layout::Jsonl => Dataset::Jsonl,
        };
        let selection = Selection { shuffle: self.shuffle, offset: self.offset, limit: self.limit };
        read_requests(path, dataset, selection)
    }
}

/// See [`StageKind::DOC`].
pub struct LoadRequests;

impl StageKind for LoadRequests {
    type Params = LoadRequestsParams;
    const NAME: &'static str = "load_requests";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads edit requests: CounterFact, zsRE, KnowEdit, or plain JSONL.";
    const DOC: &'static str = "\
Reads the facts to be edited, with the prompts that judge the edits, and takes a selection of them: shuffled if a seed is \
given, then `offset` skipped, then at most `limit` taken. Every record is checked; mistakes are told with record and field, \
the first ten at once. Files of up to 16 MiB are read before anything runs.

Whether a file is one JSON array or one object a line is told from the file, and so is gzip or Zstandard. Fields that an \
edit does not need may be absent. A prompt without `{}` has the first mention of its subject taken out. \
docs/inputs.md shows every layout by example.

A request may carry a `strength`, its own μ: 0 makes its edit a hard constraint whatever the objective, larger values \
softer ones. Hard and soft edits mix in one batch.";
    const OUTPUT: ArtifactKind = "requests";

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["path", "snippets"]
    }

    fn files(params: &LoadRequestsParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let dataset = ExternalFile::new("dataset", &params.path, "path");
        let snippets = params.snippets.as_ref().map(|path| ExternalFile::new("snippets", path, "snippets"));
        Ok([Some(dataset), snippets].into_iter().flatten().collect())
    }

    fn describe(params: &LoadRequestsParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        if params.limit == Some(0) {
            return Err(vec![FieldError::new("limit", "`limit` is 0").expected("1 or more")]);
        }
        let path = cx.base_dir().join(&params.path);
        if path.metadata().is_ok_and(|file| file.is_file() && file.len() <= READ_EARLY) {
            let requests = params.read(&path).map_err(|mistakes| all_in_field("path", mistakes))?;
            return Ok(json!({ "requests": requests.len() }));
        }
        Ok(Value::Null)
    }

    fn takes(_: &LoadRequestsParams) -> Takes {
        Takes::LIGHT
    }

    fn run(params: &LoadRequestsParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let mut requests = params.read(&cx.file("dataset")?.1).map_err(StageFailure::stage)?;
        if params.snippets.is_some() {
            let with = add_snippets(&cx.file("snippets")?.1, &mut requests).map_err(StageFailure::stage)?;
            if with < requests.len() {
                cx.warn(format!("{} of {} requests have no snippets", requests.len() - with, requests.len()));
            }
        }
        let mut made = put_requests(cx, &requests)?;
        if params.dataset == Layout::KnowEdit {
            made.meta["judged"] = json!([Metrics::EasyEdit]);
        }
        Ok(made)
    }
}

/// Requests as an artifact; warns of those that contradict each other.
pub fn put_requests(cx: &StageContext, requests: &[EditRequest]) -> Result<Artifact, StageError> {
    let conflicts = conflicts(requests);
    if let Some(&(a, b)) = conflicts.first() {
        cx.warn(format!(
            "{} of the requests ask for different targets at the same prompt, first records {} and {}: {:?}",
            conflicts.len(),
            requests[a].id,
            requests[b].id,
            requests[a].filled_prompt()
        ));
    }
    let bytes = serde_json::to_vec(requests).map_err(|error| StageError::internal(error.to_string()))?;
    let file = cx.put_bytes(&bytes)?;
    Ok(Artifact::new("requests", json!({ "requests": requests.len() })).with_file(REQUESTS, file))
}

/// The requests of an artifact that holds some.
pub fn requests(cx: &StageContext, artifact: &Artifact) -> Result<Vec<EditRequest>, StageError> {
    let bytes = cx.read(crate::artifacts::model::file(artifact, REQUESTS)?)?;
    serde_json::from_slice(&bytes).map_err(|error| StageError::internal(format!("stored requests: {error}")))
}
