//! The record of attempts of a run: one line when an attempt begins to work, one when it ends.
//!
//! The event log is for people and for whoever watches. This file is for whoever has to go on after the coordinator died: it says which
//! attempts were left at work, where, and under which keys their results would be found.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use palinode_error::{Error, ErrorKind, now_ms};
use palinode_fingerprint::Key;

/// The file's name in the folder of a run.
pub const ATTEMPTS: &str = "attempts.jsonl";

/// One try at an instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// The stage instance.
    pub instance: String,
    /// The key under which its result is published.
    pub key: Key,
    /// Which try it was, counted from 1.
    pub number: u32,
    /// What executed it: `thread` or `process`.
    pub executor: String,
    /// The host that it worked on.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// When it began to work, in milliseconds since 1970.
    pub begun_ms: u64,
    /// How it ended; `None` while it works, and where the run was killed before.
    pub end: Option<AttemptEnd>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptEnd {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What was wrong; `None` when its result was published.
    pub failure: Option<AttemptFailure>,
}

/// Why an attempt has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// What sort of error.
    pub kind: ErrorKind,
    /// Whether what executed it was gone without having said so itself.
    pub lost: bool,
    /// What went wrong, with its causes.
    pub message: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "attempt", rename_all = "snake_case")]
enum Line {
    Begun {
        at_ms: u64,
        instance: String,
        key: Key,
        number: u32,
        executor: String,
        host: String,
        pid: u32,
    },
    Ended {
        at_ms: u64,
        instance: String,
        number: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<AttemptFailure>,
    },
}

/// Writes the record. The file is made with its first line: a run that does nothing has none.
pub struct AttemptLog {
    path: PathBuf,
    file: Option<File>,
}

impl AttemptLog {
    /// In the folder of a run.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join(ATTEMPTS), file: None }
    }

    /// An attempt works; its end is not looked at.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begun(&mut self, attempt: Attempt) -> Result<(), Error> {
        let Attempt { instance, key, number, executor, host, pid, begun_ms: at_ms, .. } = attempt;
        self.append(&Line::Begun { at_ms, instance, key, number, executor, host, pid })
    }

    /// An attempt is over.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn ended(&mut self, instance: &str, number: u32, failure: Option<AttemptFailure>) -> Result<(), Error> {
        self.append(&Line::Ended { at_ms: now_ms(), instance: instance.to_owned(), number, failure })
    }

    /// Appends one line in one write, so that a kill leaves a line whole or torn at its end, never mixed with another.
    fn append(&mut self, line: &Line) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io(ErrorKind::Store, "write", &self.path, error);
        let mut bytes = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path).map_err(failed)?,
        };
        file.write_all(&bytes).map_err(failed)?;
        self.file = Some(file);
        Ok(())
    }
}

/// Opens the file to append to it. A last line that a kill left torn is closed first, so that the next one stands alone.
fn open(path: &Path) -> io::Result<File> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// The attempts of the run in this folder, those begun first before the others. Lines that are not whole are left out.
pub fn read(dir: &Path) -> Vec<Attempt> {
    let bytes = fs::read(dir.join(ATTEMPTS)).unwrap_or_default();
    let mut attempts: Vec<Attempt> = Vec::new();
    let lines = bytes.split(|byte| *byte == b'\n');
    for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
        match line {
            Line::Begun { at_ms, instance, key, number, executor, host, pid } => {
                attempts.push(Attempt { instance, key, number, executor, host, pid, begun_ms: at_ms, end: None });
            }
            Line::Ended { at_ms, instance, number, failure } => {
                // Few attempts are open at any time, and they are the late ones.
                let open = attempts
                    .iter_mut()
                    .rev()
                    .find(|attempt| attempt.end.is_none() && attempt.number == number && attempt.instance == instance);
                if let Some(attempt) = open {
                    attempt.end = Some(AttemptEnd { at_ms, failure });
                }
            }
        }
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(instance: &str, number: u32) -> Attempt {
        Attempt {
            instance: instance.to_owned(),
            key: Key(palinode_fingerprint::Digest::of(instance.as_bytes())),
            number,
            executor: "process".to_owned(),
            host: "h".to_owned(),
            pid: 7,
            begun_ms: 1000,
            end: None,
        }
    }

    /// Cut at any byte, the record gives what was whole; what is written after that is read too.
    #[test]
    fn a_torn_line_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let failure = AttemptFailure { kind: ErrorKind::Store, lost: false, message: "disk\nfull".to_owned() };
        let mut log = AttemptLog::new(dir.path());
        assert_eq!(read(dir.path()), []);
        log.begun(attempt("a", 1)).unwrap();
        log.ended("a", 1, Some(failure.clone())).unwrap();
        log.begun(attempt("a", 2)).unwrap();
        log.begun(attempt("b", 1)).unwrap();
        log.ended("a", 2, None).unwrap();
        let all = read(dir.path());
        let ends = |attempts: &[Attempt]| -> Vec<Option<Option<AttemptFailure>>> {
            attempts.iter().map(|attempt| attempt.end.clone().map(|end| end.failure)).collect()
        };
        assert_eq!(ends(&all), [Some(Some(failure)), Some(None), None]);
        let path = dir.path().join(ATTEMPTS);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = read(dir.path());
            let mut log = AttemptLog::new(dir.path());
            log.begun(attempt("c", 1)).unwrap();
            let after = read(dir.path());
            // A line may lack no more than its end.
            let known = after.len() - 1;
            assert!(known == whole.len(), "cut at {cut}");
            assert_eq!((&after[..known], &after[known]), (&whole[..], &attempt("c", 1)), "cut at {cut}");
        }
    }
}
