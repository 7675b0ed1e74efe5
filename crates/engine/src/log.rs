//! The event log of a run: one JSON object per line.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{ErrorKind, StageError};
use crate::event::{Event, Observer};
use crate::stagelog::{self, now_ms};

/// The file's name in the folder of a run.
pub const NAME: &str = "events.jsonl";

/// Of steps of progress, which are many, only one is written in this time for each count.
const EVERY: Duration = Duration::from_secs(5);

/// Writes events down, those of a stage in the stage's own log too.
pub struct EventLog {
    dir: PathBuf,
    file: Mutex<BufWriter<File>>,
    /// When a step of each count was last written, by instance and what is counted.
    steps: Mutex<HashMap<(String, String), Instant>>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since 1970.
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

impl EventLog {
    /// Starts a log in the folder of a run, which is made here.
    pub fn create(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(NAME);
        fs::create_dir_all(dir)
            .and_then(|()| File::create(&path))
            .map(|file| Self { dir: dir.to_owned(), file: Mutex::new(BufWriter::new(file)), steps: Mutex::default() })
            .map_err(|error| StageError::io(ErrorKind::Store, "write", &path, error))
    }

    /// Whether this event is to be written.
    fn wanted(&self, event: &Event) -> bool {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::ProgressStarted { instance, what, .. } => {
                steps.insert((instance.clone(), what.clone()), Instant::now());
                true
            }
            Event::Progress { instance, what, .. } => {
                let Some(last) = steps.get_mut(&(instance.clone(), what.clone())) else { return false };
                let due = last.elapsed() >= EVERY;
                if due {
                    *last = Instant::now();
                }
                due
            }
            Event::ProgressEnded { instance, what, .. } => {
                steps.remove(&(instance.clone(), what.clone()));
                true
            }
            _ => true,
        }
    }
}

impl Observer for EventLog {
    fn event(&self, event: &Event) {
        if !self.wanted(event) {
            return;
        }
        let at_ms = now_ms();
        let Ok(mut line) = serde_json::to_vec(&Line { at_ms, event }) else { return };
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Cached stages are many and quick; they reach the disk with whatever comes next.
        let minor = matches!(event, Event::StageFinished { outcome: crate::Outcome::Cached, .. });
        let written = file.write_all(&line).and_then(|()| if minor { Ok(()) } else { file.flush() });
        if let Err(error) = written {
            tracing::warn!(%error, "the event log cannot be written");
        }
        stagelog::append(&self.dir, event, at_ms);
    }
}

/// Tells two observers.
pub struct Tee<A>(pub A, pub Arc<dyn Observer>);

impl<A: Observer> Observer for Tee<A> {
    fn event(&self, event: &Event) {
        self.0.event(event);
        self.1.event(event);
    }
}
