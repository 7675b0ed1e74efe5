//! Finding and publishing manifests.

use std::fs;
use std::io;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use super::blobs::unreadable_hint;
use super::index::{MOST, Table};
use super::manifest::Unfit;
use super::stat::{Known, Stat};
use super::{Manifest, Store, durable};
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::{Digest, FileRef, Key};

/// Threads that read manifests at the same time, at most.
const MOST_READERS: usize = 8;

/// Files that are worth a thread.
const LEAST_READ: usize = 512;

/// What lies where manifests do.
enum Found {
    Whole(Box<Manifest>),
    /// Of a later version, with its bytes.
    Later(PathBuf, Vec<u8>),
    Damaged(PathBuf),
    /// With what the system answered.
    Unread(PathBuf, String),
    /// Removed since it was listed.
    Gone,
}

impl Store {
    /// The manifest of an action, if it was finished. The file on disk is the truth: what the index has of it counts as long as the file
    /// looks as it did then.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or was written by a later program.
    pub fn manifest(&self, key: &Key) -> Result<Option<Manifest>, Error> {
        let path = self.manifest_path(key);
        if let Some(manifest) = self.indexed(key, &path) {
            return Ok(Some(manifest));
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(key);
                return Ok(None);
            }
            Err(error) if path.is_dir() => {
                tracing::debug!(%error, "a folder in the place of a manifest");
                Vec::new()
            }
            Err(error) => {
                return Err(Error::io(ErrorKind::Store, "read", &path, error).hint(unreadable_hint()));
            }
        };
        match Manifest::judge(&bytes) {
            Ok(manifest) if manifest.key == *key => {
                self.index_manifest(&manifest);
                Ok(Some(manifest))
            }
            Err(Unfit::Later) => {
                Err(Error::store(format!("{} was written by a later version of the program", path.display()))
                    .hint("use that version of the program, or a store of its own for this one"))
            }
            Ok(_) | Err(Unfit::Damaged) => {
                self.note(format!("manifest {} was damaged; its stage runs again", key.0.short()));
                self.forget(key);
                if self.is_locked() {
                    self.set_aside(&path);
                }
                Ok(None)
            }
        }
    }

    /// What the index has of a manifest whose file looks as it did when it was indexed.
    fn indexed(&self, key: &Key, path: &Path) -> Option<Manifest> {
        let index = self.index.as_ref()?;
        let bytes = index.get(Table::Manifests, key.0.as_bytes())?;
        let stat = Stat::of(&fs::metadata(path).ok()?);
        self.known(path)?.if_same(&stat)?;
        Manifest::read(&bytes)
    }

    /// Publishes a finished action: its blobs are on disk already, then its manifest, then the index.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn publish(&self, manifest: &Manifest) -> Result<(), Error> {
        let bytes = manifest.write();
        durable::write(&self.tmp(), &self.manifest_path(&manifest.key), &[&bytes], self.shared)?;
        self.index_manifest(manifest);
        self.flush();
        Ok(())
    }

    /// The latest manifests of a stage kind, newest first, at most `most`.
    pub fn latest(&self, stage: &str, most: usize) -> Vec<Manifest> {
        let Some(index) = &self.index else {
            let all = self.manifests().into_iter().rev();
            return all.filter(|manifest| manifest.fingerprint.stage == stage).take(most).collect();
        };
        let keys = index.last_keys(Table::Kinds, &kind_prefix(stage), most);
        let digest = |key: &Vec<u8>| key.last_chunk::<32>().copied();
        let manifest = |bytes| self.manifest(&Key(Digest::from_bytes(bytes))).ok().flatten();
        keys.iter().filter_map(digest).filter_map(manifest).collect()
    }

    pub(super) fn manifest_path(&self, key: &Key) -> PathBuf {
        Manifest::path(&self.root, key)
    }

    /// Every file where manifests lie.
    pub(super) fn manifest_files(&self) -> Listed {
        files_below(&self.root.join("actions"))
    }

    /// Every manifest on disk, oldest first, beside the files that are none. Those that cannot be read are said.
    pub(super) fn all_manifests(&self) -> AllManifests {
        let Listed { files, mut unread } = self.manifest_files();
        let mut all = AllManifests::default();
        for found in read_manifests(&self.root, files) {
            match found {
                Found::Whole(manifest) => all.whole.push(*manifest),
                Found::Later(path, bytes) => all.later.push((path, bytes)),
                Found::Damaged(path) => all.damaged.push(path),
                Found::Unread(path, error) => unread.push((path, error)),
                Found::Gone => {}
            }
        }
        if let Some((path, error)) = unread.first() {
            let more = if unread.len() > 1 { format!(", and {} more", unread.len() - 1) } else { String::new() };
            self.note(format!(
                "records of results cannot be read, and are left out: {}: {error}{more}",
                path.display()
            ));
        }
        if let Some((path, _)) = all.later.first() {
            let count = all.later.len();
            self.note(format!(
                "records of {count} results were written by a later version of the program, such as {}",
                path.display()
            ));
        }
        all.whole.sort_by_key(|manifest| manifest.finished_ms);
        all.unread = unread;
        all
    }

    /// All manifests in the store, oldest first.
    pub fn manifests(&self) -> Vec<Manifest> {
        self.all_manifests().whole
    }

    /// Indexes every manifest, and says how many there are.
    pub(super) fn index_manifests(&self) -> usize {
        let manifests = self.manifests();
        for manifest in &manifests {
            self.index_manifest(manifest);
        }
        manifests.len()
    }

    pub(super) fn index_manifest(&self, manifest: &Manifest) {
        let Some(index) = &self.index else { return };
        let Ok(bytes) = serde_json::to_vec(manifest) else { return };
        let key = manifest.key.0.as_bytes();
        if bytes.len() <= MOST {
            index.put(Table::Manifests, key, &bytes);
            let path = self.manifest_path(&manifest.key);
            if let Ok(metadata) = fs::metadata(&path) {
                self.remember(&path, &Known::new(Stat::of(&metadata), FileRef::of(&bytes), 0));
            }
        } else {
            index.remove(Table::Manifests, key);
        }
        index.put(Table::Kinds, &kind_entry(manifest), b"");
    }

    /// Forgets what the index has under a key; the entry by kind finds nothing then.
    fn forget(&self, key: &Key) {
        let Some(index) = &self.index else { return };
        index.remove(Table::Manifests, key.0.as_bytes());
        index.remove(Table::Stats, self.manifest_path(key).as_os_str().as_encoded_bytes());
    }

    /// Forgets a manifest that is about to be removed.
    pub(super) fn forget_manifest(&self, manifest: &Manifest) {
        let Some(index) = &self.index else { return };
        index.remove(Table::Manifests, manifest.key.0.as_bytes());
        index.remove(Table::Kinds, &kind_entry(manifest));
    }
}

fn kind_entry(manifest: &Manifest) -> Vec<u8> {
    let mut entry = kind_prefix(&manifest.fingerprint.stage);
    entry.extend_from_slice(&manifest.finished_ms.to_be_bytes());
    entry.extend_from_slice(manifest.key.0.as_bytes());
    entry
}

fn kind_prefix(stage: &str) -> Vec<u8> {
    [stage.as_bytes(), &[0]].concat()
}

/// What lies where manifests lie.
#[derive(Default)]
pub(super) struct AllManifests {
    pub whole: Vec<Manifest>,
    /// Of a later format, with their bytes.
    pub later: Vec<(PathBuf, Vec<u8>)>,
    /// Read, and not what their names say.
    pub damaged: Vec<PathBuf>,
    /// Files and folders that cannot be read, and why.
    pub unread: Vec<(PathBuf, String)>,
}

/// Files in a folder.
#[derive(Default)]
pub(super) struct Listed {
    /// Sorted.
    pub files: Vec<PathBuf>,
    /// Folders that cannot be read, and why.
    pub unread: Vec<(PathBuf, String)>,
}

impl Listed {
    fn add(&mut self, folder: &Path, each: &mut dyn FnMut(&mut Self, PathBuf)) {
        match fs::read_dir(folder) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => each(self, entry.path()),
                        Err(error) => self.unread.push((folder.to_owned(), error.to_string())),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.unread.push((folder.to_owned(), error.to_string())),
        }
    }
}

/// What lies in some files, in their order. Most of the time goes into opening them, which threads do side by side.
fn read_manifests(root: &Path, files: Vec<PathBuf>) -> Vec<Found> {
    let read = |path: &PathBuf| {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Gone,
            Err(_) if path.is_dir() => Vec::new(),
            Err(error) => return Found::Unread(path.clone(), error.to_string()),
        };
        match Manifest::judge(&bytes) {
            Ok(manifest) if Manifest::path(root, &manifest.key) == *path => Found::Whole(Box::new(manifest)),
            Err(Unfit::Later) => Found::Later(path.clone(), bytes),
            Ok(_) | Err(Unfit::Damaged) => Found::Damaged(path.clone()),
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_READERS);
    let each = files.len().div_ceil(threads).max(LEAST_READ);
    let read_some = &|some: &[PathBuf]| some.iter().map(&read).collect::<Vec<_>>();
    thread::scope(|scope| {
        let mut parts = files.chunks(each);
        let own = parts.next().unwrap_or_default();
        let started: Vec<_> =
            parts.map(|some| (some, thread::Builder::new().spawn_scoped(scope, move || read_some(some)))).collect();
        let mut found = read_some(own);
        for (some, thread) in started {
            // Where the system gives no further thread, this one does the work.
            let more = thread.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            found.extend(more.unwrap_or_else(|_| read_some(some)));
        }
        found
    })
}

/// The files two levels down: `folder/ab/name`.
pub(super) fn files_below(folder: &Path) -> Listed {
    let mut listed = Listed::default();
    listed.add(folder, &mut |listed, path| {
        if path.is_dir() {
            listed.add(&path, &mut |listed, path| listed.files.push(path));
        }
    });
    listed.files.sort();
    listed
}
