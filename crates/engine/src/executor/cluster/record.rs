//! The record of submissions of a run, by which a later coordinator finds its jobs again.
//!
//! That jobs are about to be sent is written before they are, so that no job is ever unknown: one that was written down and never arrived
//! is not in the queue, and one that arrived is known there by the name of its submission.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::jobs::Name;
use crate::share::Share;
use palinode_error::{Error, ErrorKind, now_ms};
use palinode_fingerprint::Key;

/// The file's name in the folder of a run.
pub const RECORD: &str = "jobs.jsonl";

/// What a job works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Work {
    /// The key of the result.
    pub key: Key,
    /// The share of the work; without one, all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// The stage instance.
    pub instance: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "jobs", rename_all = "snake_case")]
enum Line {
    /// These go to the cluster.
    Sending { at_ms: u64, submission: String, build: String, work: Vec<Work> },
    /// They are there, under this id.
    Sent { at_ms: u64, submission: String, id: String },
    /// One is over.
    Ended { at_ms: u64, submission: String, index: u32 },
}

/// An attempt that an earlier coordinator sent and did not see the end of.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// Which one.
    pub name: Name,
    /// What the cluster calls its submission, where that is known.
    pub id: Option<String>,
    /// The build that is at work.
    pub build: String,
    /// What it works on.
    pub work: Work,
}

/// Writes the record.
pub struct Record {
    path: PathBuf,
    file: Option<File>,
}

impl Record {
    /// In the folder of a run.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join(RECORD), file: None }
    }

    /// Jobs are about to be sent: when this returns, that is on the disk.
    ///
    /// # Errors
    /// When the file cannot be written; the jobs must not be sent then.
    pub fn sending(&mut self, submission: &str, build: &str, work: Vec<Work>) -> Result<(), Error> {
        let (submission, build) = (submission.to_owned(), build.to_owned());
        self.append(&Line::Sending { at_ms: now_ms(), submission, build, work })
    }

    /// They were sent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn sent(&mut self, submission: &str, id: &str) -> Result<(), Error> {
        self.append(&Line::Sent { at_ms: now_ms(), submission: submission.to_owned(), id: id.to_owned() })
    }

    /// One is over.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn ended(&mut self, name: &Name) -> Result<(), Error> {
        self.append(&Line::Ended { at_ms: now_ms(), submission: name.submission.clone(), index: name.index })
    }

    fn append(&mut self, line: &Line) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io(ErrorKind::Store, "write", &self.path, error);
        // A line that a kill left torn is closed by the first byte.
        let mut bytes = b"\n".to_vec();
        serde_json::to_writer(&mut bytes, line).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::options().create(true).append(true).open(&self.path).map_err(failed)?,
        };
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        self.file = Some(file);
        Ok(())
    }
}

/// What was sent by the run in this folder and has not ended.
pub fn left(dir: &Path) -> Vec<Left> {
    let bytes = fs::read(dir.join(RECORD)).unwrap_or_default();
    let mut open: BTreeMap<Name, Left> = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()) {
        match line {
            Line::Sending { submission, build, work, .. } => {
                for (index, work) in (0..).zip(work) {
                    let name = Name { submission: submission.clone(), index };
                    open.insert(name.clone(), Left { name, id: None, build: build.clone(), work });
                }
            }
            Line::Sent { submission, id, .. } => {
                for left in open.values_mut().filter(|left| left.name.submission == submission) {
                    left.id = Some(format!("{id}_{}", left.name.index));
                }
            }
            Line::Ended { submission, index, .. } => {
                open.remove(&Name { submission, index });
            }
        }
    }
    open.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use palinode_fingerprint::Digest;

    #[test]
    fn what_has_not_ended_is_found_again_wherever_the_record_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let work = |instance: &str| Work {
            key: Key(Digest::of(instance.as_bytes())),
            share: Some(Share { number: 1, of: 2 }),
            instance: instance.to_owned(),
        };
        let mut record = Record::new(dir.path());
        record.sending("r.1", "b", vec![work("a"), work("b")]).unwrap();
        record.sent("r.1", "17").unwrap();
        record.sending("r.2", "b", vec![work("c")]).unwrap();
        record.ended(&Name { submission: "r.1".into(), index: 0 }).unwrap();
        let found = left(dir.path());
        let ids: Vec<(&str, Option<&str>)> =
            found.iter().map(|left| (left.work.instance.as_str(), left.id.as_deref())).collect();
        assert_eq!(ids, [("b", Some("17_1")), ("c", None)]);
        let path = dir.path().join(RECORD);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let before = left(dir.path()).len();
            Record::new(dir.path()).sending("r.3", "b", vec![work("d")]).unwrap();
            let after = left(dir.path());
            assert!(after.iter().any(|left| left.work.instance == "d"), "cut at {cut}");
            assert!(after.len() == before + 1, "cut at {cut}");
        }
    }
}
