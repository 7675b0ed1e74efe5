//! The store: blobs and manifests as files, which are the truth, and an index that can be made again from them.
//!
//! ```text
//! blobs/ab/<digest>       contents
//! actions/cd/<key>.json   manifests, written after their blobs
//! units/ef/<key>          partial results of long stages
//! pins/<run or key>.json  what is kept whatever its age
//! index/                  sled; of a store that machines share, on the own disk of each: see `network`
//! runs/<id>/              record, event log and resolved pipeline of each run; the engine's business
//! damaged/                what was read whole and is not what its name says
//! tmp/                    unfinished files; emptied by whoever next takes the lock
//! VERSION                 the version of all this; see `version`
//! LOCK                    kernel lock with its holder
//! IN_USE                  kernel lock shared by those who use the files beside the holder
//! ```
//!
//! docs/store.md has the promises and the commands. A store knows no run and no pipeline: who collects garbage says what was used when,
//! and who packs an archive says what else goes into it.

mod archive;
mod artifact;
mod aside;
mod bare;
mod blobs;
mod clock;
mod durable;
mod files;
mod filesystem;
mod gc;
mod index;
mod inside;
mod layout;
mod lock;
mod manifest;
mod manifests;
mod memory;
mod network;
mod outside;
mod pins;
mod rebuild;
mod share;
pub mod shown;
mod space;
mod stat;
mod units;
mod unnamed;
mod verify;
mod version;
mod walk;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use archive::{Companion, Companions, Packed, Unpacked};
pub use artifact::{Artifact, Published};
pub use bare::Place;
pub use blobs::blob_file;
pub use files::Hashing;
pub use gc::{Dead, Garbage, Retention, Roots};
pub use inside::inside;
pub use lock::{Holder, Waiting};
pub use manifest::FORMAT;
pub use manifest::Manifest;
pub use outside::{MARKER, Maker, Output, Overwrite, Single, may_write, real, way, write_files};
pub use pins::Pin;
pub use rebuild::Rebuilt;
pub use space::{available, ensure_room};
pub use stat::Stat;
pub use verify::{Damage, Verified};
pub use version::VERSION as STORE_VERSION;

use index::Index;
use layout::FOLDERS;
use lock::StoreLock;
use memory::Memory;
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::Digest;
use share::Shared;
use tempfile::TempDir;

/// An open store. At most one process has it open.
///
/// ```
/// # use palinode_store::Store;
/// # let folder = tempfile::tempdir()?;
/// let store = Store::open(&folder.path().join("store"))?;
/// // Equal contents are kept once, under their digest.
/// let file = store.put_bytes(b"k kT")?;
/// assert_eq!(store.put_bytes(b"k kT")?, file);
/// assert_eq!(store.find(&file)?, Some(store.blob_path(&file.digest)));
/// // Nothing names them yet: they would be collected as garbage.
/// let garbage = store.garbage(&Default::default(), &Default::default());
/// assert_eq!((garbage.orphans, garbage.orphan_bytes), (1, 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store {
    root: PathBuf,
    index: Option<Index>,
    /// Held by whoever opened the store; a worker has none.
    lock: Mutex<Option<StoreLock>>,
    /// Held by whoever uses the files beside it.
    in_use: Option<File>,
    notes: Mutex<Vec<String>>,
    /// Where external contents were seen since the store was opened; the index remembers them for longer.
    seen: Mutex<HashMap<Digest, PathBuf>>,
    /// What files were found to hold, where there is no index to remember it.
    memory: Memory,
    /// What its files are for the group of its folder.
    shared: Shared,
    /// Where the index is one of its own, for a store that is only looked at. Removed after the index is closed.
    copy: Option<TempDir>,
}

impl Store {
    /// Opens the store in this folder, making it when it is not there. An index that does not open, or that lost its
    /// records, is made again from the manifests.
    ///
    /// # Errors
    /// When the folder cannot be written, the disk is full or another process has the store open.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::opened(root, None)
    }

    /// As [`Store::open`], but waits for a process that has the store open; `tell` hears who that is, if one is.
    ///
    /// # Errors
    /// When the folder cannot be written or the disk is full.
    pub fn open_when_free(root: &Path, tell: Waiting<'_>) -> Result<Self, Error> {
        Self::opened(root, Some(tell))
    }

    fn opened(root: &Path, waiting: Option<Waiting<'_>>) -> Result<Self, Error> {
        let mut store = Self::locked(root, waiting)?;
        space::ensure_least(&store.root)?;
        version::mark(&store.root, &store.tmp(), store.shared)?;
        store.open_index();
        store.gather_units()?;
        Ok(store)
    }

    /// The files of a store with its lock, without the index.
    fn locked(root: &Path, waiting: Option<Waiting<'_>>) -> Result<Self, Error> {
        let root = Self::make(root)?;
        network::check_locks(&root)?;
        let lock = StoreLock::take(&root.join(lock::NAME), waiting)?;
        // Whoever had it until now may have been of another version.
        version::check(&root)?;
        // What a worker is writing is not unfinished business of the dead.
        if let Some(_alone) = lock::keep_out(&root)? {
            empty(&root.join("tmp"));
        }
        Ok(Self::of(root, Some(lock)))
    }

    /// Makes the folders of a store where they are not there, and gives its absolute path.
    ///
    /// # Errors
    /// When they cannot be made, or the store was written by a later version of the program.
    pub fn make(root: &Path) -> Result<PathBuf, Error> {
        let root = std::path::absolute(root).map_err(|error| Error::io(ErrorKind::Store, "find", root, error))?;
        version::check(&root)?;
        let shared = Shared::of(&root);
        for folder in FOLDERS {
            let path = root.join(folder);
            shared.folder(&path).map_err(|error| Error::io(ErrorKind::Store, "create", &path, error))?;
        }
        ignore_in_git(&root);
        Ok(root)
    }

    fn of(root: PathBuf, lock: Option<StoreLock>) -> Self {
        Self {
            shared: Shared::of(&root),
            root,
            index: None,
            lock: Mutex::new(lock),
            in_use: None,
            notes: Mutex::default(),
            seen: Mutex::default(),
            memory: Memory::default(),
            copy: None,
        }
    }

    /// Whether there is a store in this folder.
    ///
    /// # Errors
    /// When there is one that was written by a later version of the program: nothing may then be said of it or done to it.
    pub fn is_at(root: &Path) -> Result<bool, Error> {
        Ok(version::check(root)?.is_some() || root.join("actions").is_dir())
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a run.
    pub fn run_dir(&self, run: &str) -> PathBuf {
        self.root.join("runs").join(run)
    }

    /// Writes a file of the store that is no result: whole or not at all, but not waited for until it is on the disk.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        durable::replace(&self.tmp(), path, bytes, self.shared)
    }

    /// Lets others see which run holds the store.
    pub fn note_run(&self, run: &str) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = lock.as_mut().map_or(Ok(()), |lock| lock.note(Some(run)));
        if let Err(error) = noted {
            tracing::warn!(%error, "the lock file does not name this run");
        }
    }

    /// What happened to the store itself that the reader should know; each is given once.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the index to disk.
    pub fn flush(&self) {
        if let Some(index) = &self.index {
            index.flush();
            if self.copy.is_none() {
                self.share_index();
            }
        }
    }

    /// Lets the group of a store that is the group's read and write a folder that was made in it, and all that it holds.
    pub fn share(&self, folder: &Path) {
        if self.shared != Shared::default() {
            self.shared.path(folder);
            for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() { self.share(&path) } else { self.shared.path(&path) }
            }
        }
    }

    /// sled makes its files itself.
    fn share_index(&self) {
        self.share(&network::index(&self.root));
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Whether this process has the store open, and no other.
    fn is_locked(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// The store is not for version control, whoever's repository it lies in.
fn ignore_in_git(root: &Path) {
    let path = root.join(".gitignore");
    if !path.exists() {
        let _ = fs::write(path, "*\n");
    }
}

/// Removes what a killed process left unfinished.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "cannot remove an unfinished file");
        }
    }
}
