//! Files of edit requests: their layouts, and a selection of their records.

use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::{self, Fields};
use crate::request::settle;
use crate::zsre::{ZsreQuestion, ZsreTarget};
use crate::{DataError, EditRequest, Mistakes, Place, counterfact, easyedit, jsonl, mapped, records, zsre};

/// The fields of a file's records. Whether they are one JSON array or one object a line is told from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// The fields of CounterFact and of multi-CounterFact.
    CounterFact,
    /// zsRE's, as MEND cut it, with the answer that becomes the new target, and how its other questions are asked.
    Zsre(ZsreTarget, ZsreQuestion),
    /// KnowEdit's, and EasyEdit's flat form.
    KnowEdit,
    /// Plain ones: subject, prompt, `target_new`, and optional fields.
    Jsonl,
    /// Anyone's, by a mapping. The file may be a Parquet table, too. A path that no record has is a mistake.
    Mapped(Box<Fields>),
    /// The same for a mapping of ours, of which a file may have a part.
    Named(Box<Fields>),
}

/// A data set by name, which decides the fields of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// The fields of CounterFact and of multi-CounterFact.
    #[default]
    CounterFact,
    /// The fields of zsRE, in MEND's version: `subject`, `src`, `answers`, `alt`, `rephrase`, `loc`, `loc_ans`.
    Zsre,
    /// The fields of KnowEdit, with axes of `portability` and `locality`, and of EasyEdit's flat form with one prompt of
    /// each.
    KnowEdit,
    /// Plain fields: `subject`, `prompt` with `{}`, `target_new`; optional are `target_true`, `paraphrases`, `neighbors`
    /// (`{prompt, target}`), `strength`, `relation`, `target_prefix`. A CSV file has them as columns.
    Jsonl,
    /// The fields of WikiBigEdit: `subject`, `update`, `ans`, `rephrase`, `personas`, `mhop`, `mhop_ans`, `loc`, `loc_ans`.
    WikiBigEdit,
    /// The fields of UnKE, long answers without a subject: `question`, `answer`, `para_question`, `sub_question`, `sub_answer`.
    Unke,
    /// The fields of AKEW, unstructured facts: `requested_rewrite` with `question` and `fact_new_uns`.
    Akew,
    /// The columns of HalluEditBench: `subject`, `relation`, `object`, `question`, and questions by kind.
    HalluEdit,
    /// The fields of EasyEdit's WikiData and QAEdit files: `portability_r`, `_s`, `_l`, `locality_rs`, `_f`.
    #[serde(rename = "easyedit")]
    EasyEditQa,
}

impl Dataset {
    /// The data set of a kind; `target` and `question` are for zsRE alone.
    pub fn new(kind: DatasetKind, target: ZsreTarget, question: ZsreQuestion) -> Self {
        match kind {
            DatasetKind::CounterFact => Self::CounterFact,
            DatasetKind::Zsre => Self::Zsre(target, question),
            DatasetKind::KnowEdit => Self::KnowEdit,
            DatasetKind::Jsonl => Self::Jsonl,
            DatasetKind::WikiBigEdit => Self::named(fields::WIKIBIGEDIT),
            DatasetKind::Unke => Self::named(fields::UNKE),
            DatasetKind::Akew => Self::named(fields::AKEW),
            DatasetKind::HalluEdit => Self::named(fields::HALLUEDIT),
            DatasetKind::EasyEditQa => Self::named(fields::EASYEDIT_QA),
        }
    }

    fn named(text: &str) -> Self {
        Self::Named(Box::new(fields::named(text)))
    }
}

/// Which of a file's records are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The names of those to use, in this order; empty for all.
    pub ids: Vec<String>,
    /// Shuffle by this seed first.
    pub shuffle: Option<u64>,
    /// Skip so many.
    pub offset: usize,
    /// Maximum number of records.
    pub limit: Option<usize>,
}

/// The request that a plain record states (see [`Dataset::Jsonl`]), the `index`th of its file or list.
///
/// # Errors
/// The field at fault, where it is one, and what is wrong.
pub fn request(index: usize, record: serde_json::Value) -> Result<EditRequest, (Option<String>, String)> {
    records::one(index, record, jsonl::request)
}

/// Reads a file of requests, compressed with gzip or Zstandard or not, and takes a selection.
///
/// # Errors
/// [`Mistakes`], each with record or line, field and expectation: of every record, or the one that makes the file unreadable;
/// also where the file has more than 512 MiB, a record more than 4 MiB, or the selection is empty.
pub fn read_requests(file: &Path, dataset: &Dataset, selection: &Selection) -> Result<Vec<EditRequest>, Mistakes> {
    let mut all = match dataset {
        Dataset::CounterFact => records::requests(file, counterfact::HINT, counterfact::request)?,
        Dataset::Zsre(target, question) => {
            records::requests(file, zsre::HINT, |index, record| zsre::request(index, record, *target, *question))?
        }
        Dataset::Mapped(fields) => mapped::requests(file, fields, true)?,
        Dataset::Named(fields) => mapped::requests(file, fields, false)?,
        Dataset::KnowEdit => records::requests(file, easyedit::HINT, easyedit::request)?,
        Dataset::Jsonl => records::requests(file, jsonl::HINT, jsonl::request)?,
    };
    if !selection.ids.is_empty() {
        all = by_ids(file, all, &selection.ids)?;
    }
    let found = all.len();
    if let Some(seed) = selection.shuffle {
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    let mut chosen: Vec<_> =
        all.into_iter().skip(selection.offset).take(selection.limit.unwrap_or(usize::MAX)).collect();
    if chosen.is_empty() {
        let message = match found {
            0 => "the file holds no request".to_owned(),
            _ => format!("the file holds {found} requests, and `offset` {} skips them all", selection.offset),
        };
        return Err(DataError::new(file, Place::File, message).into());
    }
    settle(&mut chosen);
    Ok(chosen)
}

/// The requests of these names, in their order.
fn by_ids(file: &Path, all: Vec<EditRequest>, ids: &[String]) -> Result<Vec<EditRequest>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut chosen = Vec::new();
    for id in ids {
        let found: Vec<&EditRequest> = all.iter().filter(|request| request.id == *id).collect();
        if found.is_empty() {
            let some: Vec<&str> = all.iter().take(5).map(|request| request.id.as_str()).collect();
            let message = format!("no request is named `{id}`; the first ones are {}", some.join(", "));
            mistakes.add(DataError::new(file, Place::File, message));
        }
        chosen.extend(found.into_iter().cloned());
    }
    if mistakes.count > 0 { Err(mistakes) } else { Ok(chosen) }
}
