//! What was read before: the record of a run that ended stays as it is, so a long list is read once.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use palinode::shown::Shown;
use palinode::{Ended, Key, RECORD, RunRecord, Runs, SideBySide};

/// Results of which it is remembered what they show.
const SHOWN: usize = 4096;

/// When a file was written, and its length.
type Stamp = (SystemTime, u64);

/// What is known of a run.
#[derive(Clone)]
pub struct OfRun {
    /// Its record.
    pub record: Arc<RunRecord>,
    /// Its arms.
    pub arms: Arc<SideBySide>,
}

/// What was read before.
#[derive(Default)]
pub struct Known {
    runs: Mutex<HashMap<String, (Stamp, OfRun)>>,
    shown: Mutex<HashMap<Key, Arc<Shown>>>,
    models: Mutex<HashMap<Key, bool>>,
}

impl Known {
    /// A run by its whole name; `None` where there is none.
    pub fn record(&self, runs: &Runs, name: &str) -> Option<Arc<RunRecord>> {
        Some(self.run(runs, name)?.record)
    }

    /// A run with its arms.
    pub fn run(&self, runs: &Runs, name: &str) -> Option<OfRun> {
        let known = |stamp: Stamp| {
            let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            runs.get(name).filter(|(known, _)| *known == stamp).map(|(_, of)| of.clone())
        };
        // The name is one of a run, or nothing is read.
        let stamp = stamp(runs, name);
        if let Some(of) = stamp.and_then(known) {
            return Some(of);
        }
        let record = runs.record(name)?;
        let arms = Arc::new(SideBySide::of(runs, &record));
        let of = OfRun { record: Arc::new(record), arms };
        // One that goes on changes without its record; whether one was lost shows elsewhere.
        if let Some(stamp) = stamp
            && !matches!(of.record.ended, Ended::Not | Ended::Lost)
        {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            runs.insert(name.to_owned(), (stamp, of.clone()));
        }
        Some(of)
    }

    /// What the result under a key shows.
    pub fn shown(&self, runs: &Runs, key: &Key) -> Option<Arc<Shown>> {
        if let Some(known) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(Arc::clone(known));
        }
        let shown = Arc::new(Shown::of(&runs.manifest(key)?.output.meta));
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SHOWN {
            all.clear();
        }
        all.insert(*key, Arc::clone(&shown));
        Some(shown)
    }
}

impl Known {
    /// Whether the result under a key is a model that can be asked: it is there, and its edits make one model.
    pub fn can_be_asked(&self, runs: &Runs, key: &Key) -> bool {
        if let Some(known) = self.models.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return *known;
        }
        let can = runs.manifest(key).is_some_and(|manifest| palinode::can_be_asked(&manifest.output));
        self.models.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, can);
        can
    }
}

/// When the record of a run was written.
fn stamp(runs: &Runs, name: &str) -> Option<Stamp> {
    if name.contains(['/', '.', '\\']) {
        return None;
    }
    let file = fs::metadata(runs.dir(name).join(RECORD)).ok()?;
    Some((file.modified().ok()?, file.len()))
}
