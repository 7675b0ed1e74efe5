//! What was read before: the record of a run that ended stays as it is, so a long list is read once.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use palinode::shown::Shown;
use palinode::{Ended, Key, RECORD, RunRecord, Runs, SideBySide};

/// The name of a run's event log.
const EVENTS: &str = "events.jsonl";
/// Results of which it is remembered what they show.
const SHOWN: usize = 4096;

/// When a file was written, and its length; `None` where there is none.
type Stamp = Option<(SystemTime, u64)>;
/// Those of a run's record and of its event log.
type Stamps = [Stamp; 2];

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
    runs: Mutex<HashMap<String, (Stamps, OfRun)>>,
    overview: Mutex<Option<(u64, Arc<str>)>>,
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
        // What cannot be the name of a run is looked for nowhere.
        if name.contains(['/', '.', '\\']) {
            return None;
        }
        let stamps = [RECORD, EVENTS].map(|file| stamp(&runs.dir(name).join(file)));
        {
            let known = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, of)) = known.get(name).filter(|(known, _)| *known == stamps) {
                return Some(of.clone());
            }
        }
        let record = runs.record(name)?;
        let arms = Arc::new(SideBySide::of(runs, &record));
        let of = OfRun { record: Arc::new(record), arms };
        // Of one that goes on, that it is lost shows in no file.
        if of.record.ended != Ended::Not {
            let mut known = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(name.to_owned(), (stamps, of.clone()));
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
    /// The text about all of these runs: made again only when one of them is another than before.
    pub fn overview(&self, all: &[OfRun], make: impl FnOnce() -> String) -> Arc<str> {
        let mut hasher = DefaultHasher::new();
        for of in all {
            of.record.run.hash(&mut hasher);
            if of.record.ended == Ended::Not {
                // One that goes on is read again each time, and most often says the same.
                for stage in &of.record.stages {
                    format!("{:?}", stage.state).hash(&mut hasher);
                    stage.metrics.len().hash(&mut hasher);
                }
            } else {
                // A record that was read again is another one.
                Arc::as_ptr(&of.record).hash(&mut hasher);
            }
        }
        let mark = hasher.finish();
        let mut known = self.overview.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((of, text)) if *of == mark => Arc::clone(text),
            _ => {
                let text: Arc<str> = make().into();
                *known = Some((mark, Arc::clone(&text)));
                text
            }
        }
    }

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

/// When a file was written, and its length.
fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}
