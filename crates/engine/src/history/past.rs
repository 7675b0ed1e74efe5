//! One run, as its event log tells it.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::digest::Key;
use crate::event::{Event, Outcome};
use crate::log;

/// A run, finished or not.
#[derive(Clone, Debug, Serialize)]
pub struct PastRun {
    /// Its id.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Number of stage instances of the pipeline.
    pub total: usize,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it last wrote anything down.
    pub last_ms: u64,
    /// How long it took; `None` when it did not come to its end, or has not yet.
    pub seconds: Option<f64>,
    /// The stage instances that it began or settled, in that order.
    pub stages: Vec<PastStage>,
    /// What it warned of.
    pub warnings: Vec<String>,
}

/// A stage instance in a run.
#[derive(Clone, Debug, Serialize)]
pub struct PastStage {
    /// Its name.
    pub instance: String,
    /// Its stage kind, where it was begun.
    pub uses: Option<String>,
    /// How it stands.
    pub state: PastState,
    /// Its key, where it got far enough to have one.
    pub key: Option<Key>,
    /// When it began or was found, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it worked.
    pub seconds: f64,
    /// Counts that go on.
    pub counts: Vec<PastCount>,
}

/// How a stage instance of a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum PastState {
    /// It began and did not end.
    Working,
    /// It ended.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// Units of work counted so far.
#[derive(Clone, Debug, Serialize)]
pub struct PastCount {
    /// What is counted.
    pub what: String,
    /// How many are done.
    pub done: u64,
    /// How many there are, where known.
    pub total: Option<u64>,
    /// A short remark.
    pub note: String,
    /// When counting began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it was last told.
    pub at_ms: u64,
}

impl PastStage {
    /// The stage's name without the cell of the matrix.
    pub fn stage(&self) -> &str {
        self.instance.split('[').next().unwrap_or_default()
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            PastState::Working => None,
            PastState::Ended { outcome } => Some(outcome),
        }
    }
}

impl PastRun {
    pub(super) fn read(id: &str, dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join(log::NAME)).ok()?;
        let mut run: Option<Self> = None;
        for line in text.lines() {
            // The last line of a killed run may be half written.
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let at = line["at_ms"].as_u64().unwrap_or(0);
            // Events of a later version are passed over.
            let Ok(event) = serde_json::from_value::<Event>(line) else { continue };
            match (&mut run, event) {
                (None, Event::RunStarted { pipeline, stages, .. }) => run = Some(Self::begun(id, pipeline, stages, at)),
                (None, _) => {}
                (Some(run), event) => run.hear(event, at),
            }
        }
        run
    }

    /// Number of stages that ended like this.
    pub fn count(&self, like: impl Fn(&Outcome) -> bool) -> usize {
        self.stages.iter().filter_map(PastStage::outcome).filter(|outcome| like(outcome)).count()
    }

    /// The stages that began and did not end: at work while the run goes on, lost in it once it is over.
    pub fn working(&self) -> impl Iterator<Item = &PastStage> {
        self.stages.iter().filter(|stage| stage.state == PastState::Working)
    }

    /// The instance of this name.
    pub fn stage(&self, instance: &str) -> Option<&PastStage> {
        self.stages.iter().find(|stage| stage.instance == instance)
    }

    fn begun(id: &str, pipeline: String, total: usize, at: u64) -> Self {
        let (stages, warnings) = (Vec::new(), Vec::new());
        Self { id: id.to_owned(), pipeline, total, started_ms: at, last_ms: at, seconds: None, stages, warnings }
    }

    fn hear(&mut self, event: Event, at: u64) {
        self.last_ms = at;
        match event {
            Event::StageStarted { instance, uses, .. } => self.at(&instance, at).uses = Some(uses),
            Event::ProgressStarted { instance, what, total } => {
                let counts = &mut self.at(&instance, at).counts;
                counts.retain(|count| count.what != what);
                counts.push(PastCount { what, done: 0, total, note: String::new(), started_ms: at, at_ms: at });
            }
            Event::Progress { instance, what, done, note, .. } => {
                let counts = &mut self.at(&instance, at).counts;
                if let Some(count) = counts.iter_mut().find(|count| count.what == what) {
                    (count.done, count.note, count.at_ms) = (done, note, at);
                }
            }
            Event::ProgressEnded { instance, what, .. } => {
                self.at(&instance, at).counts.retain(|count| count.what != what);
            }
            Event::StageFinished { instance, outcome, key, seconds } => {
                let stage = self.at(&instance, at);
                stage.state = PastState::Ended { outcome };
                (stage.key, stage.seconds) = (key, seconds);
                stage.counts.clear();
            }
            Event::Warning { message } => self.warnings.push(message),
            Event::RunFinished { seconds, .. } => self.seconds = Some(seconds),
            _ => {}
        }
    }

    fn at(&mut self, instance: &str, at: u64) -> &mut PastStage {
        let known = self.stages.iter().position(|stage| stage.instance == instance);
        let index = known.unwrap_or_else(|| {
            self.stages.push(PastStage {
                instance: instance.to_owned(),
                uses: None,
                state: PastState::Working,
                key: None,
                started_ms: at,
                seconds: 0.0,
                counts: Vec::new(),
            });
            self.stages.len() - 1
        });
        &mut self.stages[index]
    }
}
