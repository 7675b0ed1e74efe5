//! One writer at a time, by a kernel lock that dies with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, StageError};

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
        match file.try_lock() {
            Ok(()) => {
                let mut lock = Self { file };
                lock.note(None).map_err(failed)?;
                Ok(lock)
            }
            Err(TryLockError::Error(error)) => Err(StageError::io(ErrorKind::Store, "lock", path, error)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let holder = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
                Err(busy(path, holder.as_ref()))
            }
        }
    }

    /// Writes down the run that this process is in.
    pub fn note(&mut self, run: Option<&str>) -> std::io::Result<()> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = Holder { pid: std::process::id(), host: host.trim().to_owned(), run: run.map(str::to_owned) };
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(serde_json::to_string(&holder).unwrap_or_default().as_bytes())
    }
}

/// Who holds the lock; asks for a moment's shared hold, and leaves no trace. A store that was never opened has no holder.
pub fn holder(path: &Path) -> Option<Holder> {
    let mut file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Ok(()) | Err(TryLockError::Error(_)) => None,
        Err(TryLockError::WouldBlock) => {
            let unknown = Holder { pid: 0, host: String::new(), run: None };
            let mut text = String::new();
            let read = file.read_to_string(&mut text).ok();
            Some(read.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or(unknown))
        }
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
