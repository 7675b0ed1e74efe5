//! The event log of a run: one JSON object per line.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::event::{Event, Observer};
use crate::stagelog;
use palinode_error::now_ms;
use palinode_error::{Error, ErrorKind};

/// The file's name in the folder of a run.
pub const NAME: &str = "events.jsonl";

/// Of steps of progress, which are many, only one is written in this time for each count.
const EVERY: Duration = Duration::from_secs(5);

/// Of a curve, so many points are written as they come, and one in [`POINT_EVERY`] after that.
const POINTS: usize = 400;
/// Where a curve has many points, one is written in this time.
const POINT_EVERY: Duration = Duration::from_secs(1);

/// Writes events down, those of a stage in the stage's own log too.
pub struct EventLog {
    dir: PathBuf,
    file: Mutex<BufWriter<File>>,
    /// When a step of each count was last written, by instance and what is counted.
    steps: Mutex<HashMap<(String, String), Instant>>,
    /// How many points of each curve were written, and when the last was.
    points: Mutex<HashMap<(String, String), (usize, Instant)>>,
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
    pub fn create(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(NAME);
        fs::create_dir_all(dir)
            .and_then(|()| File::create(&path))
            .map(|file| {
                let file = Mutex::new(BufWriter::new(file));
                Self { dir: dir.to_owned(), file, steps: Mutex::default(), points: Mutex::default() }
            })
            .map_err(|error| Error::io(ErrorKind::Store, "write", &path, error))
    }

    /// Whether others of its kind come so soon that it need not be on the disk before them.
    fn is_frequent(&self, event: &Event) -> bool {
        let Event::Measured { instance, what, .. } = event else { return false };
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        points.get(&(instance.clone(), what.clone())).is_some_and(|(written, _)| written % 8 != 0)
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
            Event::Measured { instance, what, .. } => {
                let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
                let (written, last) =
                    points.entry((instance.clone(), what.clone())).or_insert_with(|| (0, Instant::now()));
                let due = *written < POINTS || last.elapsed() >= POINT_EVERY;
                if due {
                    (*written, *last) = (*written + 1, Instant::now());
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
        // Cached stages and units are many and quick; they reach the disk with whatever comes next.
        let minor =
            matches!(event, Event::StageFinished { outcome: crate::Outcome::Cached, .. } | Event::UnitDone { .. });
        let minor = minor || self.is_frequent(event);
        let written = file.write_all(&line).and_then(|()| if minor { Ok(()) } else { file.flush() });
        if let Err(error) = written {
            tracing::warn!(%error, "the event log cannot be written");
        }
        stagelog::append(&self.dir, event, at_ms);
    }
}

/// The events in the log of a run with their times, oldest first; what is not whole or not known is left out.
pub fn read(dir: &Path) -> Vec<(u64, Event)> {
    let text = fs::read(dir.join(NAME)).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    let event = |line: &[u8]| {
        let value: Value = serde_json::from_slice(line).ok()?;
        Some((value["at_ms"].as_u64()?, serde_json::from_value(value).ok()?))
    };
    lines.filter_map(event).collect()
}

/// Writes events down and tells them on, in one order for both whichever thread they come from.
pub struct Tee {
    log: EventLog,
    told: Arc<dyn Observer>,
    turn: Mutex<()>,
}

impl Tee {
    /// For this log and this observer.
    pub fn new(log: EventLog, told: &Arc<dyn Observer>) -> Self {
        Self { log, told: Arc::clone(told), turn: Mutex::new(()) }
    }
}

impl Observer for Tee {
    fn event(&self, event: &Event) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.log.event(event);
        self.told.event(event);
    }
    fn pace(&self) -> Duration {
        self.told.pace()
    }
}
