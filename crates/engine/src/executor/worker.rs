//! The worker: the process that executes one action.
//!
//! A worker reads and writes blobs, manifests and units, which are plain files, and never the index: so any number of them
//! work beside the run that started them, or without one.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::execute;
use crate::action::Action;
use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::event::{Event, Observer, hashing};
use crate::shared::SharedPool;
use palinode_error::one_of;
use palinode_error::{DataPlace, Error, ErrorKind, Hint};
use palinode_store::{Manifest, Place, Store};

/// What a worker says to whoever started it: one JSON object per line on its stdout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// Something happened.
    Event(Event),
    /// The result is published.
    Done {
        /// What the contents that it wrote look like, so that nobody has to read them again.
        places: Vec<Place>,
    },
    /// There is no result.
    Failed {
        /// Decides the exit code.
        kind: ErrorKind,
        /// What went wrong, with its causes.
        message: String,
        /// What the reader can do about it.
        hint: Option<Hint>,
        /// The place in a data file that it concerns.
        at: Option<DataPlace>,
    },
}

impl Message {
    /// The end of what failed.
    pub(crate) fn failed(error: &Error) -> Self {
        let Error { kind, hint, at, .. } = error;
        Self::Failed { kind: *kind, message: error.with_causes(), hint: hint.clone(), at: at.as_deref().cloned() }
    }

    /// The error that it tells of, if it does.
    pub(crate) fn error(self) -> Option<Error> {
        let Self::Failed { kind, message, hint, at } = self else { return None };
        Some(Error { hint, at: at.map(Box::new), ..Error::new(kind, message) })
    }
}

/// Runs an action. Its result is published in its store; events are told to `observer`. A share has no result: its units are kept.
///
/// # Errors
/// When the action does not fit the stages of `catalogue`, its store cannot be used, or the stage fails.
pub fn work(
    action: &Action,
    catalogue: &Catalogue,
    observer: &Arc<dyn Observer>,
    interrupt: &Arc<AtomicBool>,
) -> Result<Option<Manifest>, Error> {
    let store = Arc::new(Store::bare(&action.store)?);
    work_in(&store, action, catalogue, observer, interrupt)
}

pub(crate) fn work_in(
    store: &Arc<Store>,
    action: &Action,
    catalogue: &Catalogue,
    observer: &Arc<dyn Observer>,
    interrupt: &Arc<AtomicBool>,
) -> Result<Option<Manifest>, Error> {
    let name = &action.fingerprint.stage;
    let usage = |message: String| Error::new(ErrorKind::Usage, message);
    let kind = catalogue.runnable(name).ok_or_else(|| {
        usage(format!("this program has no stage `{name}`")).hint(format!("it has {}", one_of(catalogue.names())))
    })?;
    let version = kind.info().version;
    if version != action.fingerprint.version {
        let message =
            format!("the action is for version {} of `{name}`, this program has {version}", action.fingerprint.version);
        return Err(usage(message).hint("run it with the program that planned it"));
    }
    let params = kind.params(action.with.clone()).map_err(|errors| {
        let first = errors.into_iter().next().map(|error| error.message).unwrap_or_default();
        usage(format!("the action's parameters do not fit `{name}`: {first}"))
    })?;
    for place in &action.places {
        store.learn(place);
    }
    for (_, path) in action.files.values() {
        store.see(path, &hashing(observer.as_ref()))?;
    }
    let context = RunContext {
        store: Arc::clone(store),
        base: action.base.clone(),
        device: action.device.clone(),
        settings: action.settings.clone(),
        observer: Arc::clone(observer),
        interrupt: Arc::clone(interrupt),
        pool: Arc::new(SharedPool::default()),
    };
    let (action, stop) = (Arc::new(action.clone()), Arc::default());
    if action.share.is_some() {
        return execute::work(&context, kind, &params, &action, &stop).map(|_| None);
    }
    execute::execute(&context, kind, &params, &action, &stop).map(Some)
}

/// Runs an action and tells everything, the end too, as JSON lines on `out`; this is what [`crate::WorkerCommand`] starts.
///
/// # Errors
/// As [`work`]; the error is told on `out` as well.
pub fn work_aloud(
    action: &Action,
    catalogue: &Catalogue,
    out: Box<dyn Write + Send>,
    interrupt: &Arc<AtomicBool>,
) -> Result<(), Error> {
    let aloud = Arc::new(Aloud(Mutex::new(out)));
    let observer: Arc<dyn Observer> = aloud.clone();
    let result = Store::bare(&action.store).map(Arc::new).and_then(|store| {
        let result = work_in(&store, action, catalogue, &observer, interrupt);
        for message in store.take_notes() {
            aloud.say(&Message::Event(Event::warning(message)));
        }
        result.map(|_| store.places())
    });
    match result {
        Ok(places) => {
            aloud.say(&Message::Done { places });
            Ok(())
        }
        Err(error) => {
            aloud.say(&Message::failed(&error));
            Err(error)
        }
    }
}

/// Writes messages as lines.
struct Aloud(Mutex<Box<dyn Write + Send>>);

impl Aloud {
    fn say(&self, message: &Message) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever started this may be gone; the result is what counts, and it is in the store.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

impl Observer for Aloud {
    fn event(&self, event: &Event) {
        self.say(&Message::Event(event.clone()));
    }
}
