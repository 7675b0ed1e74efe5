//! The record of submissions of a run, by which a later coordinator finds its jobs again.
//!
//! That jobs are about to be sent is written before they are, so that no job is ever unknown: one that was written down and never arrived
//! is not in the queue, and one that arrived is known there by the name of its submission.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::jobs::Name;
use super::list::Answer;
use crate::environment;
use crate::runs::{Ended, Runs};
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
    /// One that another run sent is gone on with.
    Adopted { at_ms: u64, submission: String, index: u32, id: Option<String>, build: String, work: Work },
    /// One is given up, and its work is sent again. If it answers after all, that counts.
    GivenUp { at_ms: u64, submission: String, index: u32, why: String },
    /// One is over.
    Ended { at_ms: u64, submission: String, index: u32 },
}

/// An attempt that an earlier coordinator sent.
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

    /// One that another run sent is gone on with.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn adopted(&mut self, left: &Left) -> Result<(), Error> {
        let Left { name: Name { submission, index }, id, build, work } = left.clone();
        self.append(&Line::Adopted { at_ms: now_ms(), submission, index, id, build, work })
    }

    /// One is given up.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn given_up(&mut self, name: &Name, why: String) -> Result<(), Error> {
        let Name { submission, index } = name.clone();
        self.append(&Line::GivenUp { at_ms: now_ms(), submission, index, why })
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

/// What the run in this folder sent, and what it took over from others.
#[derive(Default)]
pub struct Sent {
    /// Attempts whose end it did not see, in the order in which they were sent.
    pub left: Vec<Left>,
    /// Attempts that are over; how they ended, their answers say.
    pub over: Vec<Left>,
}

/// Reads what the run in this folder sent.
pub fn sent(dir: &Path) -> Sent {
    let bytes = fs::read(dir.join(RECORD)).unwrap_or_default();
    let (mut open, mut over): (Vec<Left>, Vec<Left>) = Default::default();
    for line in bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()) {
        match line {
            Line::Sending { submission, build, work, .. } => {
                for (index, work) in (0..).zip(work) {
                    let name = Name { submission: submission.clone(), index };
                    open.push(Left { name, id: None, build: build.clone(), work });
                }
            }
            Line::Sent { submission, id, .. } => {
                for left in open.iter_mut().filter(|left| left.name.submission == submission) {
                    left.id = Some(format!("{id}_{}", left.name.index));
                }
            }
            Line::Adopted { submission, index, id, build, work, .. } => {
                open.push(Left { name: Name { submission, index }, id, build, work });
            }
            Line::GivenUp { .. } => {}
            Line::Ended { submission, index, .. } => {
                let name = Name { submission, index };
                over.extend(open.extract_if(.., |left| left.name == name));
            }
        }
    }
    Sent { left: open, over }
}

/// How many of the latest runs are looked at.
const RUNS: usize = 50;

/// What earlier coordinators sent that a later one goes on from.
#[derive(Default)]
pub struct Earlier {
    /// Attempts whose end was not seen, by what they work on. Where one was given up and another was sent, the latest is the last.
    pub left: BTreeMap<(Key, Option<Share>), Vec<Left>>,
    /// Shares that are done, of coordinators that were killed before they sent the job that joins them.
    pub done: BTreeSet<(Key, Share)>,
    /// What the cluster calls attempts of other builds.
    pub foreign: Vec<String>,
}

/// Looks through the latest runs for what this run goes on from.
pub fn earlier(runs: &Runs, this: &str) -> Earlier {
    let mut found = Earlier::default();
    // What a newer run, or the same one, went on to join: that its shares were done once says nothing any more.
    let mut joined: BTreeSet<Key> = BTreeSet::new();
    // Attempts that a newer run had taken over: what it knows of them is later.
    let mut known: BTreeSet<Name> = BTreeSet::new();
    // The newest run comes first.
    for run in runs.names().into_iter().take(RUNS).filter(|run| run != this) {
        let dir = runs.dir(&run);
        let Sent { mut left, mut over } = sent(&dir);
        left.retain(|left| !known.contains(&left.name));
        over.retain(|over| !known.contains(&over.name));
        known.extend(left.iter().chain(&over).map(|left| left.name.clone()));
        // What an older run sent was sent before.
        for left in left.into_iter().rev() {
            if left.build == environment::build() {
                found.left.entry((left.work.key, left.work.share)).or_default().insert(0, left);
            } else {
                found.foreign.extend(left.id);
            }
        }
        joined.extend(over.iter().filter(|over| over.work.share.is_none()).map(|over| over.work.key));
        let done = over.iter().filter(|over| !joined.contains(&over.work.key) && is_done(runs, over));
        let done: Vec<(Key, Share)> = done.filter_map(|over| Some((over.work.key, over.work.share?))).collect();
        if !done.is_empty() && runs.open(&run).is_ok_and(|run| run.ended == Ended::Lost) {
            found.done.extend(done);
        }
    }
    found
}

/// Whether an attempt that is over has done all of its work, as this build does it.
fn is_done(runs: &Runs, over: &Left) -> bool {
    let sent = over.name.submission.rsplit_once('.');
    let is_done = |(run, number)| Answer::is_done(&Answer::path(&runs.dir(run), number, over.name.index));
    over.build == environment::build() && sent.is_some_and(is_done)
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
        let Sent { left: found, over } = sent(dir.path());
        let ids: Vec<(&str, Option<&str>)> =
            found.iter().map(|left| (left.work.instance.as_str(), left.id.as_deref())).collect();
        assert_eq!(ids, [("b", Some("17_1")), ("c", None)]);
        assert_eq!(over.iter().map(|left| left.work.instance.as_str()).collect::<Vec<_>>(), ["a"]);
        let path = dir.path().join(RECORD);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let before = sent(dir.path()).left.len();
            Record::new(dir.path()).sending("r.3", "b", vec![work("d")]).unwrap();
            let after = sent(dir.path()).left;
            assert!(after.iter().any(|left| left.work.instance == "d"), "cut at {cut}");
            assert!(after.len() == before + 1, "cut at {cut}");
        }
    }

    /// One run sent a share, gave it up and sent it again; the next took both over. The share is known by its latest attempt, however often
    /// coordinators are killed, and is not known any more once its end was seen.
    #[test]
    fn what_was_sent_again_is_known_by_its_latest_attempt() {
        let store = tempfile::tempdir().unwrap();
        let runs = Runs::of(store.path());
        let work =
            Work { key: Key(Digest::of(b"a")), share: Some(Share { number: 0, of: 2 }), instance: "a".to_owned() };
        let names = |run: &str, numbers: [u32; 2]| {
            numbers.map(|number| Name { submission: format!("{run}.{number}"), index: 0 }).to_vec()
        };
        let record = |run: &str| {
            fs::create_dir_all(runs.dir(run)).unwrap();
            Record::new(&runs.dir(run))
        };
        let found = || earlier(&runs, "none").left.remove(&(work.key, work.share)).unwrap_or_default();
        let found_names = || found().into_iter().map(|left| left.name).collect::<Vec<_>>();
        let mut first = record("20260101-000000-aaaa");
        // By their names the tenth would come before the ninth.
        for number in [9, 10] {
            let submission = format!("20260101-000000-aaaa.{number}");
            first.sending(&submission, environment::build(), vec![work.clone()]).unwrap();
            first.sent(&submission, &number.to_string()).unwrap();
            if number == 9 {
                first.given_up(&Name { submission, index: 0 }, "its job's machine is gone".to_owned()).unwrap();
            }
        }
        let sent = names("20260101-000000-aaaa", [9, 10]);
        assert_eq!(found_names(), sent);
        let mut second = record("20260102-000000-aaaa");
        for left in found() {
            second.adopted(&left).unwrap();
        }
        assert_eq!(found_names(), sent);
        assert_eq!(found()[1].id.as_deref(), Some("10_0"));
        second.sending("20260102-000000-aaaa.1", environment::build(), vec![work.clone()]).unwrap();
        let again = Name { submission: "20260102-000000-aaaa.1".to_owned(), index: 0 };
        assert_eq!(found_names(), [&sent[..], std::slice::from_ref(&again)].concat());
        for name in sent.iter().chain([&again]) {
            second.ended(name).unwrap();
        }
        assert_eq!(found_names(), []);
    }
}
