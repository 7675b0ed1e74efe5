//! One writer at a time, by a kernel lock that dies with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, StageError};

/// The lock's name in the store's folder.
pub const NAME: &str = "LOCK";

/// How often, and how long apart, the lock is tried before it counts as held: readers take it for a moment, only to see
/// whether anyone has it.
const TRIES: (u32, Duration) = (10, Duration::from_millis(5));

/// Who holds a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The host it runs on.
    pub host: String,
    /// The run it is in, once one began.
    pub run: Option<String>,
}

impl Holder {
    /// This process.
    pub(crate) fn this(run: Option<&str>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { pid: std::process::id(), host: host.trim().to_owned(), run: run.map(str::to_owned) }
    }

    /// Who holds the store in this folder now, if anyone does.
    pub fn of(store: &Path) -> Option<Self> {
        let mut file = File::open(store.join(NAME)).ok()?;
        // The lock dies with its holder, the text in the file does not: only a lock that is held says anything.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read(&mut file),
            _ => None,
        }
    }
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// A held lock; dropping it lets go.
pub struct StoreLock {
    file: File,
}

impl StoreLock {
    /// Takes the lock, or says who holds it.
    pub fn take(path: &Path) -> Result<Self, StageError> {
        let failed = |error| StageError::io(ErrorKind::Store, "open", path, error);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let (tries, apart) = TRIES;
        for left in (0..tries).rev() {
            match file.try_lock() {
                Ok(()) => {
                    let mut lock = Self { file };
                    lock.note(None).map_err(failed)?;
                    return Ok(lock);
                }
                Err(TryLockError::Error(error)) => return Err(StageError::io(ErrorKind::Store, "lock", path, error)),
                Err(TryLockError::WouldBlock) if left > 0 => thread::sleep(apart),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        Err(busy(path, read(&mut file).as_ref()))
    }

    /// Writes down the run that this process is in.
    pub fn note(&mut self, run: Option<&str>) -> std::io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(serde_json::to_string(&Holder::this(run)).unwrap_or_default().as_bytes())
    }
}

fn busy(path: &Path, holder: Option<&Holder>) -> StageError {
    let store = path.parent().unwrap_or(path).display();
    let who = match holder {
        Some(Holder { pid, host, run: Some(run) }) => format!("process {pid} on {host} (run {run})"),
        Some(Holder { pid, host, run: None }) => format!("process {pid} on {host}"),
        None => "another process".to_owned(),
    };
    StageError::store(format!("the store {store} is in use by {who}"))
        .hint("wait until it is done, or give this run a store of its own with --store")
}
