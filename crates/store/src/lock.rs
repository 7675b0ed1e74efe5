//! Locks of the kernel, which die with their process: one for the single writer, one that says the files are in use.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::share::Shared;
use palinode_error::{Error, ErrorKind, Hint};
use palinode_error::{now_ms, utc};

/// The lock's name in the store's folder.
pub const NAME: &str = "LOCK";

/// The lock of those who use the files beside the holder, such as workers: they share it, and nothing they may need is removed
/// while one of them has it.
const IN_USE: &str = "IN_USE";

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
    /// Since when it holds the store, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: Option<u64>,
}

impl Holder {
    /// This process.
    pub fn this(run: Option<&str>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let since_ms = Some(now_ms());
        Self { pid: std::process::id(), host: host.trim().to_owned(), run: run.map(str::to_owned), since_ms }
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

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        if let Some(since_ms) = self.since_ms {
            write!(f, " since {} UTC", utc(since_ms / 1000))?;
        }
        self.run.as_ref().map_or(Ok(()), |run| write!(f, " (run {run})"))
    }
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Who is told that the store is held, before it is waited for.
pub type Waiting<'a> = &'a mut dyn FnMut(Option<&Holder>);

/// A held lock; dropping it lets go.
pub struct StoreLock {
    file: File,
    since_ms: u64,
}

impl StoreLock {
    /// Takes the lock. Where another process has it, waits until that lets go if someone is to be told of the wait, and says
    /// who holds it if not.
    pub fn take(path: &Path, waiting: Option<Waiting<'_>>) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            let refused = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
            let made = Error::io(ErrorKind::Store, "open", path, error);
            if refused { made.hint(Hint::OwnStore) } else { made }
        };
        let cannot_lock = |error| Error::io(ErrorKind::Store, "lock", path, error);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        Shared::of(path.parent().unwrap_or(path)).path(path);
        let (tries, apart) = TRIES;
        for left in (0..tries).rev() {
            match file.try_lock() {
                Ok(()) => return Ok(Self::taken(file)),
                Err(TryLockError::Error(error)) => return Err(cannot_lock(error)),
                Err(TryLockError::WouldBlock) if left > 0 => thread::sleep(apart),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let holder = read(&mut file);
        let Some(tell) = waiting else { return Err(busy(path, holder.as_ref())) };
        tell(holder.as_ref());
        file.lock().map_err(cannot_lock)?;
        Ok(Self::taken(file))
    }

    fn taken(file: File) -> Self {
        let mut lock = Self { file, since_ms: now_ms() };
        // The name is a courtesy: it cannot be left on a full disk, where the lock holds all the same.
        if let Err(error) = lock.note(None) {
            tracing::warn!(%error, "the lock file does not name its holder");
        }
        lock
    }

    /// Writes down the run that this process is in.
    pub fn note(&mut self, run: Option<&str>) -> io::Result<()> {
        let holder = Holder { since_ms: Some(self.since_ms), ..Holder::this(run) };
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(serde_json::to_string(&holder).unwrap_or_default().as_bytes())
    }
}

fn busy(path: &Path, holder: Option<&Holder>) -> Error {
    let store = path.parent().unwrap_or(path).display();
    let who = holder.map_or("another process".to_owned(), ToString::to_string);
    Error::store(format!("the store {store} is in use by {who}")).hint(Hint::WaitForStore)
}

/// Says that the files of a store are in use, until it is dropped. Where it cannot be said, such as on a file system that
/// cannot be written or has no locks, nothing is.
pub fn use_files(store: &Path) -> Option<File> {
    let file = in_use(store).ok()?;
    file.lock_shared().ok()?;
    Some(file)
}

/// Keeps others from using the files of a store until it is dropped; `None` when one does.
pub fn keep_out(store: &Path) -> Result<Option<File>, Error> {
    let path = store.join(IN_USE);
    let file = in_use(store).map_err(|error| Error::io(ErrorKind::Store, "open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io(ErrorKind::Store, "lock", &path, error)),
    }
}

fn in_use(store: &Path) -> io::Result<File> {
    let path = store.join(IN_USE);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
    Shared::of(store).path(&path);
    Ok(file)
}
