//! Files of edit requests: their layouts, and a selection of their records.

use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::{self, Fields};
use crate::groups::by_record;
use crate::request::settle;
use crate::zsre::{ZsreQuestion, ZsreTarget};
use crate::{DataError, EditRequest, Mistakes, Place, counterfact, easyedit, jsonl, mapped, mquake, records, zsre};

/// The fields of a file's records. Whether they are one JSON array or one object a line is told from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// The fields of CounterFact and of multi-CounterFact.
    CounterFact,
    /// zsRE's, as MEND cut it, with the answer that becomes the new target, and how its other questions are asked.
    Zsre(ZsreTarget, ZsreQuestion),
    /// KnowEdit's, and EasyEdit's flat form.
    KnowEdit,
    /// MQuAKE's: several edits a record.
    Mquake,
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
    /// The fields of MQuAKE: `requested_rewrite`, a list of edits that are made together; `questions` with `new_answer`, answered in several
    /// steps, and `new_single_hops`.
    Mquake,
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
            DatasetKind::Mquake => Self::Mquake,
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
    let read = match dataset {
        Dataset::CounterFact => records::requests(file, counterfact::HINT, counterfact::request)?,
        Dataset::Zsre(target, question) => {
            records::requests(file, zsre::HINT, |index, record| zsre::request(index, record, *target, *question))?
        }
        Dataset::Mapped(fields) => mapped::requests(file, fields, true)?,
        Dataset::Named(fields) => mapped::requests(file, fields, false)?,
        Dataset::KnowEdit => records::requests(file, easyedit::HINT, easyedit::request)?,
        Dataset::Mquake => records::lists(file, mquake::HINT, mquake::requests)?,
        Dataset::Jsonl => records::requests(file, jsonl::HINT, jsonl::request)?,
    };
    // A record with several edits is chosen as a whole.
    let mut all = by_record(read);
    if !selection.ids.is_empty() {
        all = by_ids(file, all, &selection.ids)?;
    }
    let found = all.len();
    if let Some(seed) = selection.shuffle {
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    let mut chosen: Vec<_> =
        all.into_iter().skip(selection.offset).take(selection.limit.unwrap_or(usize::MAX)).flatten().collect();
    if chosen.is_empty() {
        let message = match found {
            0 => "the file holds no request".to_owned(),
            1 => format!("the file holds 1 request, and `offset` {} skips it", selection.offset),
            _ => format!("the file holds {found} requests, and `offset` {} skips them all", selection.offset),
        };
        return Err(DataError::new(file, Place::File, message).into());
    }
    settle(&mut chosen);
    Ok(chosen)
}

/// The records of these names, in their order; that of a record with several edits is its group's.
fn by_ids(file: &Path, all: Vec<Vec<EditRequest>>, ids: &[String]) -> Result<Vec<Vec<EditRequest>>, Mistakes> {
    let name = |record: &Vec<EditRequest>| record.first().map(|r| r.group.as_ref().unwrap_or(&r.id).clone());
    let mut mistakes = Mistakes::default();
    let mut chosen = Vec::new();
    for id in ids {
        let found: Vec<&Vec<EditRequest>> = all.iter().filter(|record| name(record).as_ref() == Some(id)).collect();
        if found.is_empty() {
            let some: Vec<String> = all.iter().filter_map(name).take(5).collect();
            let message = format!("no request is named `{id}`; the first ones are {}", some.join(", "));
            mistakes.add(DataError::new(file, Place::File, message));
        }
        chosen.extend(found.into_iter().cloned());
    }
    if mistakes.count > 0 { Err(mistakes) } else { Ok(chosen) }
}
