//! Scores record by record, for comparisons: `records.jsonl` of scores.

use std::fs;
use std::path::PathBuf;

use palinode_engine::{Artifact, Digest, Kind as _};
use palinode_eval::{RecordScores, Scored};
use serde::Deserialize;

use crate::artifacts::measurements::{RECORDS, ScoresKind};

/// A record before and after the edit; of an unedited model there is only the first.
#[derive(Deserialize)]
struct Record {
    before: RecordScores,
    after: Option<RecordScores>,
}

/// The scores of an artifact record by record, from the file that `place` finds of a digest; `None` of what holds no scores, and where the
/// file is gone.
pub fn scored(artifact: &Artifact, place: impl Fn(&Digest) -> Option<PathBuf>) -> Option<Scored> {
    if artifact.kind != ScoresKind::NAME {
        return None;
    }
    let bytes = fs::read(place(&artifact.file(RECORDS)?.digest)?).ok()?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Vec<Record> = lines.map(|line| serde_json::from_slice(line).ok()).collect::<Option<_>>()?;
    let before: Vec<RecordScores> = records.iter().map(|record| record.before.clone()).collect();
    let after: Vec<RecordScores> = records.into_iter().filter_map(|record| record.after).collect();
    Some(Scored::new(&before, &after))
}
