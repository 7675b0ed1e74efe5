//! `load_requests`: a data set as edit requests.

use std::path::{Path, PathBuf};

use palinode_data::{
    Dataset, DatasetKind, EditRequest, Fields, Mistakes, Selection, ZsreQuestion, ZsreTarget, add_snippets, conflicts,
    read_requests,
};
use palinode_engine::bounds::Count;
use palinode_engine::{Artifact, DescribeCx, Error, ExternalFile, FieldError, Resources, StageContext, StageKind};
use palinode_eval::MetricSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::chat::Chat;
use crate::artifacts::requests::{PlannedRequests, RequestsKind, put};
use crate::errors::{StageFailure, all_in_field};
use crate::sources::hub;

/// Files up to this size are read before anything runs, so that their mistakes show with those of the pipeline.
const READ_EARLY: u64 = 16 << 20;

/// Parameters of `load_requests`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadRequestsParams {
    /// The file: a path, one of a data set of the Hugging Face Hub (`hf:datasets/owner/name/file.json`), or an address (`https://…`). The
    /// key covers its contents and not its name.
    path: PathBuf,
    /// The data set, which decides the fields of the records.
    #[serde(default)]
    dataset: DatasetKind,
    /// Where the fields of a request are in the records of any JSON, JSON lines, CSV or Parquet file, instead of `dataset`: paths such
    /// as `answer`, `entity.name`, `answers[0]` or `questions[*].text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fields: Option<Fields>,
    /// The names of the records to take, in this order. The default is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
    /// For zsRE, the answer that becomes the new target.
    #[serde(default)]
    zsre_target: ZsreTarget,
    /// For zsRE, the wording of the questions about other subjects.
    #[serde(default, skip_serializing_if = "as_written")]
    zsre_question: ZsreQuestion,
    /// Texts about the objects of the facts (`attribute_snippets.json`). They become the references of the requests:
    /// `evaluate` compares generated texts with them.
    #[serde(default)]
    snippets: Option<PathBuf>,
    /// Shuffle the records with this seed before the selection.
    #[serde(default)]
    shuffle: Option<u64>,
    /// Number of records to skip.
    #[serde(default)]
    offset: usize,
    /// Maximum number of records.
    #[serde(default)]
    limit: Option<Count>,
    /// Puts every prompt as a user's message by the model's chat template, with the target as the beginning of the answer: `chat: {}`, or
    /// `chat: { system: … }`. The default is prompts that the model continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat: Option<Chat>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn as_written(question: &ZsreQuestion) -> bool {
    *question == ZsreQuestion::AsWritten
}

impl LoadRequestsParams {
    /// The chat whose messages the prompts are.
    pub fn chat(&self) -> Option<&Chat> {
        self.chat.as_ref()
    }

    /// Where the file is: in a cache, if it was fetched.
    fn file(&self) -> Result<PathBuf, FieldError> {
        let fetched = self.path.to_str().map(|text| hub::file("path", text)).transpose()?.flatten();
        Ok(fetched.unwrap_or_else(|| self.path.clone()))
    }

    /// The requests of the file.
    pub fn read(&self, path: &Path) -> Result<Vec<EditRequest>, Mistakes> {
        let dataset = match &self.fields {
            Some(fields) => Dataset::Mapped(Box::new(fields.clone())),
            None => Dataset::new(self.dataset, self.zsre_target, self.zsre_question),
        };
        let selection = Selection {
            ids: self.ids.clone(),
            shuffle: self.shuffle,
            offset: self.offset,
            limit: self.limit.map(Count::get),
        };
        read_requests(path, &dataset, &selection)
    }
}

/// See [`StageKind::DOC`].
pub struct LoadRequests;

impl StageKind for LoadRequests {
    type Params = LoadRequestsParams;
    const NAME: &'static str = "load_requests";
    const VERSION: u32 = 6;
    const SUMMARY: &'static str =
        "Reads edit requests: CounterFact, zsRE, KnowEdit and other data sets, plain JSONL, or any file by a mapping.";
    const DOC: &'static str = "\
Reads the facts to edit and the prompts that evaluate the edits, and selects some of them: it shuffles them if there is a \
seed, skips `offset` records, and takes at most `limit`. It checks every record, and reports mistakes with record and field, \
the first ten at once. Files of up to 16 MiB are checked before anything runs.

A file may be one JSON array or one object per line, plain or compressed with gzip or Zstandard; its contents decide. Fields \
that an edit does not need may be missing. In a prompt without `{}`, the subject is looked for as a word of its own; in plain JSONL it must stand there once. \
docs/inputs.md shows every data set by example.

A request may have a `strength`, its own μ. For every objective, 0 makes its edit a hard constraint, and larger values make \
it softer. One batch may mix hard and soft edits.";
    type Output = RequestsKind;

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["path", "snippets"]
    }

    fn files(params: &LoadRequestsParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let dataset = ExternalFile::new("dataset", params.file()?, "path");
        let snippets = params.snippets.as_ref().map(|path| ExternalFile::new("snippets", path, "snippets"));
        Ok([Some(dataset), snippets].into_iter().flatten().collect())
    }

    fn describe(params: &LoadRequestsParams, cx: &DescribeCx<'_>) -> Result<PlannedRequests, Vec<FieldError>> {
        if let Some(fields) = &params.fields {
            if params.dataset != DatasetKind::default() {
                let message = "`fields` says where everything is, and so does `dataset`";
                return Err(vec![FieldError::new("dataset", message).expected("one of the two")]);
            }
            fields.check().map_err(|(field, message)| {
                let at = if field.is_empty() { "fields".to_owned() } else { format!("fields.{field}") };
                vec![FieldError::new(at, message)]
            })?;
        }
        let Ok(path) = params.file().map(|file| cx.base_dir().join(file)) else {
            return Ok(PlannedRequests::default());
        };
        if path.metadata().is_ok_and(|file| file.is_file() && file.len() <= READ_EARLY) {
            let requests = params.read(&path).map_err(|mistakes| all_in_field("path", mistakes))?;
            return Ok(PlannedRequests::of(&requests));
        }
        Ok(PlannedRequests::default())
    }

    fn resources(_: &LoadRequestsParams) -> Resources {
        Resources::LIGHT
    }

    fn run(params: &LoadRequestsParams, cx: &StageContext) -> Result<Artifact, Error> {
        let mut requests = params.read(&cx.file("dataset")?.1).map_err(StageFailure::stage)?;
        if params.snippets.is_some() {
            let with = add_snippets(&cx.file("snippets")?.1, &mut requests).map_err(StageFailure::stage)?;
            if with < requests.len() {
                let without = requests.len() - with;
                let have = if without == 1 { "has" } else { "have" };
                cx.warn(format!("{without} of {} requests {have} no snippets", requests.len()));
            }
        }
        let axes = |request: &EditRequest| !request.portability.is_empty() || !request.locality.is_empty();
        let published = matches!(params.dataset, DatasetKind::CounterFact | DatasetKind::Zsre | DatasetKind::Jsonl);
        let judged =
            (!published || params.fields.is_some() && requests.iter().any(axes)).then(|| vec![MetricSet::EasyEdit]);
        put_requests(cx, &requests, judged, params.chat.clone())
    }
}

/// The data set that a file is one of, by name: the first whose fields its records have.
///
/// # Errors
/// When it cannot be read or fits none: the mistakes are those of plain JSON lines.
pub fn dataset_of(path: &Path) -> Result<String, Error> {
    const KINDS: [DatasetKind; 9] = [
        DatasetKind::CounterFact,
        // Refuses fields that it does not know: those that follow ignore them.
        DatasetKind::Jsonl,
        DatasetKind::Zsre,
        DatasetKind::WikiBigEdit,
        DatasetKind::HalluEdit,
        DatasetKind::Unke,
        DatasetKind::Akew,
        DatasetKind::KnowEdit,
        DatasetKind::EasyEditQa,
    ];
    let read = |kind| {
        let dataset = Dataset::new(kind, ZsreTarget::default(), ZsreQuestion::default());
        read_requests(path, &dataset, &Selection::default())
    };
    let mut kinds = KINDS.into_iter();
    let found = kinds.find(|&kind| read(kind).is_ok());
    let Some(kind) = found else {
        return Err(read(DatasetKind::Jsonl)
            .err()
            .map_or_else(|| Error::internal("a file was read, and then was not"), StageFailure::stage));
    };
    let name = serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned));
    name.ok_or_else(|| Error::internal("a data set without a name"))
}

/// A fact as a command line shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedFact {
    /// The prompt, with its subject.
    pub prompt: String,
    /// What the model should say.
    pub target: String,
}

/// The facts of a file with plain fields: JSON lines, or CSV.
///
/// # Errors
/// Mistakes of the file, by line.
pub fn facts_in(path: &Path) -> Result<Vec<StatedFact>, Error> {
    let read = read_requests(path, &Dataset::Jsonl, &Selection::default()).map_err(StageFailure::stage)?;
    Ok(read.iter().map(|fact| StatedFact { prompt: fact.filled_prompt(), target: fact.target_new.clone() }).collect())
}

/// Requests as an artifact; warns of those that contradict each other.
pub fn put_requests(
    cx: &StageContext,
    requests: &[EditRequest],
    judged: Option<Vec<MetricSet>>,
    chat: Option<Chat>,
) -> Result<Artifact, Error> {
    let conflicts = conflicts(requests);
    if let Some(&(a, b)) = conflicts.first() {
        cx.warn(format!(
            "{} for different targets at the same prompt, first records {} and {}: {:?}",
            match conflicts.len() {
                1 => "one pair of requests asks".to_owned(),
                more => format!("{more} pairs of requests ask"),
            },
            requests[a].id,
            requests[b].id,
            requests[a].filled_prompt()
        ));
    }
    put(cx, requests, judged, chat)
}
