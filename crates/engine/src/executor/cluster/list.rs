//! The files that jobs are told by and answer with. docs/cluster.md has their format: whatever can start a program on a machine that sees
//! the store can do the work of a run.
//!
//! ```text
//! runs/<run>/actions/<instance>-<stage>.json   the stage: see `Action`
//! runs/<run>/jobs/<n>.json                     a submission: a list of jobs, each an action and the share of it
//! runs/<run>/jobs/<n>-<index>.jsonl            what happens in one of its jobs, as events
//! runs/<run>/jobs/<n>-<index>.log              what the job prints besides, where the cluster puts it
//! runs/<run>/answers/<n>-<index>.json          the job's answer, written as the last thing it does
//! ```

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::catalogue::Catalogue;
use crate::event::{Event, Observer};
use crate::executor::worker::{self, Message};
use crate::share::Share;
use palinode_error::{Error, ErrorKind};
use palinode_store::{Holder, Store};

/// Version of the format of lists and answers.
const FORMAT: u32 = 1;

/// The folder of lists, logs and events in that of a run.
pub const JOBS: &str = "jobs";
/// The folder of answers.
pub const ANSWERS: &str = "answers";

/// How long a file that another machine wrote is waited for.
const LATE: Duration = Duration::from_mins(1);

/// A submission.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Version of the format.
    pub format: u32,
    /// Its jobs; each is known by its place, counted from 0.
    pub jobs: Vec<Item>,
}

/// A job.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The file of its action.
    pub action: PathBuf,
    /// The share of it; without one, all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// Where it writes what happens.
    pub events: PathBuf,
    /// Where it writes its answer.
    pub answer: PathBuf,
}

/// What a job answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Version of the format.
    pub format: u32,
    /// The machine that it worked on.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// Units that it finished.
    pub units: u64,
    /// How it ended, as an attached worker says it.
    pub(crate) end: Message,
}

impl Answer {
    /// The file of the answer of the job of this place in the submission of this number, in the folder of its run.
    pub fn path(dir: &Path, number: impl Display, index: impl Display) -> PathBuf {
        dir.join(ANSWERS).join(format!("{number}-{index}.json"))
    }

    /// Whether a job has answered that it is done.
    pub fn is_done(path: &Path) -> bool {
        let answer = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        answer.is_some_and(|answer| answer.end.error().is_none())
    }
}

impl List {
    /// Of these jobs.
    pub const fn new(jobs: Vec<Item>) -> Self {
        Self { format: FORMAT, jobs }
    }

    /// Reads a list, and waits for it where it is not there yet.
    fn read(path: &Path) -> Result<Self, Error> {
        let bytes = late(|| fs::read(path)).map_err(|error| Error::io(ErrorKind::Usage, "read", path, error))?;
        let wrong = |what: String| Error::new(ErrorKind::Usage, what).at(path, None);
        let list: Self =
            serde_json::from_slice(&bytes).map_err(|error| wrong(format!("this is not a list of jobs: {error}")))?;
        if list.format != FORMAT {
            return Err(wrong(format!("the list has format {}, expected {FORMAT}", list.format)));
        }
        Ok(list)
    }
}

/// Tries again while a file is not there: shared file systems show what others wrote after a while.
fn late<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && began.elapsed() < LATE => {
                thread::sleep(Duration::from_millis(200));
            }
            done => return done,
        }
    }
}

/// Does one job of a list, and answers. What the machine decides of an action, `settle` decides.
///
/// # Errors
/// What the work failed at, which the answer says too; when the list does not read, or the answer cannot be written.
pub fn work_job(
    list: &Path,
    index: usize,
    catalogue: &Catalogue,
    interrupt: &Arc<AtomicBool>,
    settle: &dyn Fn(&mut Action) -> Result<(), Error>,
) -> Result<(), Error> {
    let list_of = List::read(list)?;
    let Some(item) = list_of.jobs.get(index) else {
        let message = format!("there is no job {index} in the list, which has {}", list_of.jobs.len());
        return Err(Error::new(ErrorKind::Usage, message).at(list, None));
    };
    let aside = Arc::new(Aside::new(&item.events));
    let result = work_item(item, catalogue, &aside, interrupt, settle);
    let end = match &result {
        Ok(places) => Message::Done { places: places.clone() },
        Err(error) => Message::failed(error),
    };
    let Holder { pid, host, .. } = Holder::this(None);
    let answer = Answer { format: FORMAT, host, pid, units: aside.units.load(Ordering::Relaxed), end };
    write_whole(&item.answer, &answer)?;
    result.map(|_| ())
}

fn work_item(
    item: &Item,
    catalogue: &Catalogue,
    aside: &Arc<Aside>,
    interrupt: &Arc<AtomicBool>,
    settle: &dyn Fn(&mut Action) -> Result<(), Error>,
) -> Result<Vec<palinode_store::Place>, Error> {
    late(|| fs::metadata(&item.action)).map_err(|error| Error::io(ErrorKind::Usage, "read", &item.action, error))?;
    let mut action = Action::read(&item.action)?;
    action.share = item.share;
    settle(&mut action)?;
    let store = Arc::new(Store::bare(&action.store)?);
    for place in &action.places {
        store.learn(place);
    }
    // Results that the coordinator has seen may be seen here later.
    let began = Instant::now();
    for file in action.contents() {
        while store.find(&file)?.is_none() && began.elapsed() < LATE {
            thread::sleep(Duration::from_millis(200));
        }
    }
    let observer: Arc<dyn Observer> = aside.clone();
    worker::work_in(&store, &action, catalogue, &observer, interrupt)?;
    Ok(store.places())
}

/// Writes a file that is there whole or not at all: an attempt that was given up may be writing its own answer at the same time.
pub fn write_whole(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let failed = |error: io::Error| Error::io(ErrorKind::Store, "write", path, error);
    let mut bytes = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    bytes.push(b'\n');
    let Holder { pid, host, .. } = Holder::this(None);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{host}.{pid}"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(failed)
}

/// Events of a job, beside it in a file.
struct Aside {
    file: Mutex<Option<File>>,
    units: AtomicU64,
    /// When the last step of progress was written.
    step: Mutex<Option<Instant>>,
}

/// Of steps of progress, which are many, one is written in this time.
const EVERY: Duration = Duration::from_secs(2);

impl Aside {
    fn new(path: &Path) -> Self {
        // Nothing depends on them.
        let file = OpenOptions::new().create(true).append(true).open(path).ok();
        Self { file: Mutex::new(file), units: AtomicU64::new(0), step: Mutex::new(None) }
    }
}

impl Observer for Aside {
    fn event(&self, event: &Event) {
        match event {
            Event::UnitDone { .. } => {
                self.units.fetch_add(1, Ordering::Relaxed);
            }
            Event::Progress { done, total, .. } if Some(*done) != *total => {
                let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
                if step.is_some_and(|at| at.elapsed() < EVERY) {
                    return;
                }
                *step = Some(Instant::now());
            }
            _ => {}
        }
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_mut() {
            let _ = file.write_all(&line);
        }
    }
}
