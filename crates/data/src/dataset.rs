//! Files of edit requests: their layouts, and a selection of their records.

use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::request::settle;
use crate::zsre::{ZsreQuestion, ZsreTarget};
use crate::{DataError, EditRequest, Mistakes, Place, counterfact, easyedit, jsonl, records, zsre};

/// The fields of a file's records. Whether they are one JSON array or one object a line is told from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// The fields of CounterFact and of multi-CounterFact.
    CounterFact,
    /// zsRE's, as MEND cut it, with the answer that becomes the new target, and how its other questions are asked.
    Zsre(ZsreTarget, ZsreQuestion),
    /// KnowEdit's, and EasyEdit's flat form.
    KnowEdit,
    /// Plain ones: subject, prompt, `target_new`, and optional fields.
    Jsonl,
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
}

impl Dataset {
    /// The data set of a kind; `target` and `question` are for zsRE alone.
    pub fn new(kind: DatasetKind, target: ZsreTarget, question: ZsreQuestion) -> Self {
        match kind {
            DatasetKind::CounterFact => Self::CounterFact,
            DatasetKind::Zsre => Self::Zsre(target, question),
            DatasetKind::KnowEdit => Self::KnowEdit,
            DatasetKind::Jsonl => Self::Jsonl,
        }
    }
}

/// Which of a file's records are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
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
pub fn read_requests(file: &Path, dataset: Dataset, selection: Selection) -> Result<Vec<EditRequest>, Mistakes> {
    let mut all = match dataset {
        Dataset::CounterFact => records::requests(file, counterfact::HINT, counterfact::request)?,
        Dataset::Zsre(target, question) => {
            records::requests(file, zsre::HINT, |index, record| zsre::request(index, record, target, question))?
        }
        Dataset::KnowEdit => records::requests(file, easyedit::HINT, easyedit::request)?,
        Dataset::Jsonl => records::requests(file, jsonl::HINT, jsonl::request)?,
    };
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
