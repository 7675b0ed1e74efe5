//! What became of runs: a record of each in `runs/<id>/`, read without opening the store.
//!
//! ```text
//! runs/<id>/run.json        the record: written when the run begins and again, whole, when it ends
//! runs/<id>/resolved.yaml   the pipeline as it ran, all values filled in
//! runs/<id>/events.jsonl    what happened, as it happened
//! ```
//!
//! A record whose run has not ended says what was to be done; what was done so far is in the event log, and both are put
//! together here. That is why a run can be looked at while it goes on, and after it was killed.

mod look;
mod outline;
mod record;
mod recorder;
mod resolved;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use look::Count;
pub(crate) use record::Used;
pub use record::{Ended, RunRecord, StageRecord, StageState};
pub(crate) use recorder::Recorder;
pub use resolved::{ResolvedPipeline, ResolvedStage};

use crate::attempts::{self, Attempt};
use crate::event::Event;
use crate::{log, runid};
use palinode_error::did_you_mean;
use palinode_error::{Error, ErrorKind, Hint};
use palinode_store::{Holder, Manifest};

/// The record's name in the folder of a run.
pub const RECORD: &str = "run.json";
/// The name of the pipeline as it ran.
pub const RESOLVED: &str = "resolved.yaml";

/// The runs of a store, read from files alone: another process may hold the store meanwhile.
#[derive(Clone, Debug)]
pub struct Runs {
    store: PathBuf,
    folder: PathBuf,
    holder: Option<Holder>,
}

impl Runs {
    /// The runs of the store in this folder, which need not be there.
    pub fn of(store: &Path) -> Self {
        Self { store: store.to_owned(), folder: store.join("runs"), holder: Holder::of(store) }
    }

    /// The folder of a run.
    pub fn dir(&self, run: &str) -> PathBuf {
        self.folder.join(run)
    }

    /// The names of all runs, newest first.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| runid::is_one(name)).collect();
        // A name begins with the time of the run.
        names.sort_unstable_by(|a, b| b.cmp(a));
        names
    }

    /// The records of all runs, newest first. A run without a whole record is left out.
    pub fn list(&self) -> Vec<RunRecord> {
        self.names().iter().filter_map(|name| self.read(name)).collect()
    }

    /// Runs whose record is there and does not read, each with the reason: [`Runs::list`] leaves them out.
    pub fn unread(&self) -> Vec<(String, String)> {
        let wrong = |name: &String| match fs::read(self.dir(name).join(RECORD)) {
            Ok(bytes) => RunRecord::read(&bytes).is_none().then(|| "it is damaged, or of another version".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(palinode_error::plain(&error)),
        };
        self.names().into_iter().filter_map(|name| wrong(&name).map(|why| (name, why))).collect()
    }

    /// The record of one run: `which` is its name, a beginning or an end of it that no other has, `latest`, or `latest~2` for
    /// the second before the latest.
    ///
    /// # Errors
    /// When there is no such run, or several, or its record is damaged.
    pub fn open(&self, which: &str) -> Result<RunRecord, Error> {
        let names = self.names();
        let usage = |message: String| Error::new(ErrorKind::Usage, message);
        if names.is_empty() {
            return Err(usage(format!("there are no runs in {}", self.folder.display())));
        }
        let fits = |name: &&String| !which.is_empty() && (name.starts_with(which) || name.ends_with(which));
        let back = match which.strip_prefix("latest") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('~').and_then(|back| back.parse::<usize>().ok()),
            None => None,
        };
        let fitting: Vec<&String> = match back {
            Some(back) => names.iter().skip(back).take(1).collect(),
            None => names.iter().filter(fits).collect(),
        };
        match fitting.as_slice() {
            [name] => self.read(name).ok_or_else(|| {
                let path = self.dir(name).join(RECORD);
                Error::store(format!("the record {} is missing or damaged", path.display()))
            }),
            [] => {
                let hint = did_you_mean(which, names.iter().map(String::as_str));
                let latest = &names[0];
                Err(usage(format!("there is no run `{which}`"))
                    .hint(hint.map_or_else(|| Hint::ListRuns { latest: latest.as_str().into() }, Hint::Say)))
            }
            [first, .., last] => Err(usage(format!("{} runs begin or end with `{which}`", fitting.len()))
                .hint(format!("give more of the name: {last} … {first}"))),
        }
    }

    /// The events of a run, oldest first, with their times in milliseconds since 1970. Lines that are not whole, such as the
    /// last one of a killed run, are left out.
    pub fn events(&self, run: &str) -> Vec<(u64, Event)> {
        log::read(&self.dir(run))
    }

    /// The attempts of a run, those begun first before the others. Lines that are not whole are left out.
    pub fn attempts(&self, run: &str) -> Vec<Attempt> {
        attempts::read(&self.dir(run))
    }

    /// What results each run made or used, newest first: of one run after the other, since records of many stages are long.
    pub(crate) fn used(&self) -> impl Iterator<Item = Used> {
        self.names().into_iter().filter_map(|name| {
            let brief = fs::read(self.dir(&name).join(RECORD)).ok().and_then(|bytes| Used::read(&bytes));
            brief.or_else(|| Some(Used::of(&self.read(&name)?)))
        })
    }

    fn read(&self, name: &str) -> Option<RunRecord> {
        let bytes = fs::read(self.dir(name).join(RECORD)).ok()?;
        let mut record = RunRecord::read(&bytes)?;
        if record.ended == Ended::Not {
            let mut heard_ms = record.started_ms;
            for (at_ms, event) in self.events(name) {
                record.apply(at_ms, &event);
                heard_ms = at_ms;
            }
            let alive = self.holder.as_ref().is_some_and(|holder| holder.run.as_deref() == Some(name));
            if !alive {
                record.lost(heard_ms);
            }
            for (instance, key) in record.unread() {
                if let Some(manifest) = Manifest::find(&self.store, &key) {
                    record.result(&instance, &manifest.output);
                }
            }
        }
        Some(record)
    }
}
