//! What happens during a run, told to whoever watches: the command line, the event log, a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use palinode_error::{ErrorKind, Hint};
use palinode_fingerprint::Key;
use palinode_pipeline::Pipeline;

/// Something that happened. One JSON object per line in a run's event log, with `event` naming the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Its id; the name of its folder under `runs/`.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// Number of stage instances.
        stages: usize,
    },
    /// A large external file is read for its digest.
    Hashing {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// A stage begins to work.
    StageStarted {
        /// The stage instance.
        instance: String,
        /// Its stage kind.
        uses: String,
        /// Why it is not cached.
        reasons: Vec<String>,
    },
    /// Long work inside a stage begins.
    ProgressStarted {
        /// The stage instance.
        instance: String,
        /// What is counted, such as "documents".
        what: String,
        /// How many there are, where known.
        total: Option<u64>,
    },
    /// A unit of work is done and kept.
    UnitDone {
        /// The stage instance.
        instance: String,
        /// The unit's key.
        unit: Key,
        /// How long it took.
        seconds: f64,
    },
    /// Units were done.
    Progress {
        /// The stage instance.
        instance: String,
        /// What is counted.
        what: String,
        /// How many are done.
        done: u64,
        /// How many of them were found from earlier work.
        kept: u64,
        /// How many there are, where known.
        total: Option<u64>,
        /// A short remark.
        note: String,
    },
    /// Long work inside a stage ended, finished or not.
    ProgressEnded {
        /// The stage instance.
        instance: String,
        /// What was counted.
        what: String,
        /// How many were done.
        done: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A number that changes while a stage works, such as a loss: a point of a curve.
    Measured {
        /// The stage instance.
        instance: String,
        /// What is measured.
        what: String,
        /// What its steps are: "step", "edits".
        step: String,
        /// Where on the curve.
        at: u64,
        /// The value.
        value: f64,
    },
    /// A stage failed and is tried again.
    StageRetried {
        /// The stage instance.
        instance: String,
        /// How many tries failed so far.
        failed: u32,
        /// How many tries are left.
        left: u32,
        /// What went wrong.
        message: String,
    },
    /// The process of an isolated stage wrote a line that is no event.
    Said {
        /// The stage instance.
        instance: String,
        /// The line.
        line: String,
    },
    /// A stage has its result, or will not have one.
    StageFinished {
        /// The stage instance.
        instance: String,
        /// How it ended.
        outcome: Outcome,
        /// Its key, where it got far enough to have one.
        key: Option<Key>,
        /// How long it worked.
        seconds: f64,
    },
    /// Something that the reader should know but that stops nothing.
    Warning {
        /// The stage instance that it is of; `None` when it is of the run or the store. Logs of older versions have the
        /// instance at the beginning of the message alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// What.
        message: String,
    },
    /// The run is over.
    RunFinished {
        /// Stages that worked.
        ran: usize,
        /// Stages whose result was there.
        cached: usize,
        /// Stages that failed.
        failed: usize,
        /// Stages not reached.
        skipped: usize,
        /// How long all of it took.
        seconds: f64,
    },
}

impl Event {
    /// A warning of the run or the store as a whole.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::Warning { instance: None, message: message.into() }
    }

    /// A warning as one line for people, which begins with the stage instance that it is of; `None` for other events.
    pub fn warning_line(&self) -> Option<String> {
        match self {
            Self::Warning { instance: Some(instance), message } => Some(format!("{instance}: {message}")),
            Self::Warning { instance: None, message } => Some(message.clone()),
            _ => None,
        }
    }
}

/// How a stage of a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// Its result was in the store.
    Cached,
    /// It worked.
    Ran,
    /// It gave an error.
    Failed {
        /// What sort of error.
        kind: ErrorKind,
        /// What went wrong, with its causes.
        message: String,
        /// What the reader can do about it.
        hint: Option<Hint>,
    },
    /// It was not reached.
    Skipped {
        /// The failed stage that it needs; `None` when the run stopped before it.
        because: Option<String>,
    },
    /// The run was not about it: see [`palinode_pipeline::Selection`].
    NotAsked,
}

/// Hears of everything that happens. Called from any thread, and often: be quick.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);

    /// The least time between two steps of progress that are told. The first and the last of some work always are.
    fn pace(&self) -> Duration {
        Duration::from_millis(50)
    }
}

/// Hears nothing.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event) {}
}

/// What tells an observer that a file is read for its digest.
pub(crate) fn hashing(observer: &dyn Observer) -> impl Fn(&Path, u64) + '_ {
    |path, size| observer.event(&Event::Hashing { path: path.to_owned(), size })
}

/// Tells an observer the warnings of a pipeline, each with its place.
pub(crate) fn warn(pipeline: &Pipeline, observer: &dyn Observer) {
    for warning in &pipeline.warnings.0 {
        observer.event(&Event::warning(warning.line()));
    }
}
