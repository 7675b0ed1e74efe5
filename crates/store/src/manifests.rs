//! Finding and publishing manifests.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::blobs::unreadable_hint;
use super::index::{MOST, Table};
use super::manifest::Unfit;
use super::stat::{Known, Stat};
use super::walk::{Walked, walk};
use super::{Manifest, Store, durable};
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::{Digest, FileRef, Key};

/// What lies where manifests do, with what was made of it.
enum Found<T> {
    Whole(T),
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
        // It was looked at when it was indexed, and the index's own checksum says that it is what it was.
        Manifest::indexed(&bytes).filter(|manifest| manifest.key == *key)
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

    /// As [`Store::publish`] each, in this order, with one wait for the disk for all. Gives for each whether it is published.
    pub fn publish_all(&self, manifests: &[Manifest]) -> Vec<Result<(), Error>> {
        let file = |manifest: &Manifest| (self.manifest_path(&manifest.key), manifest.write());
        let files: Vec<(PathBuf, Vec<u8>)> = manifests.iter().map(file).collect();
        let published = durable::write_all(&self.tmp(), &files, self.shared);
        for (manifest, _) in manifests.iter().zip(&published).filter(|(_, published)| published.is_ok()) {
            self.index_manifest(manifest);
        }
        self.flush();
        published
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

    /// What `make` makes of every manifest on disk, in the order of their keys, beside the files that are none. Those that cannot be read
    /// are said. `make` also hears how long the manifest's file is, and is called by several threads.
    pub(super) fn survey<T: Send>(&self, make: impl Fn(Manifest, u64) -> T + Sync) -> Survey<T> {
        let Walked { found, mut unread } = walk(&self.root.join("actions"), |path| read(&self.root, path, &make));
        let mut all = Survey { whole: Vec::with_capacity(found.len()), ..Survey::default() };
        for found in found {
            match found {
                Found::Whole(made) => all.whole.push(made),
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
        all.unread = unread;
        all
    }

    /// What `make` makes of every manifest in the store, in the order of their keys. A store may have a hundred thousand of them: keep what is
    /// needed of each. Several threads call `make`.
    pub fn each_manifest<T: Send>(&self, make: impl Fn(Manifest) -> T + Sync) -> Vec<T> {
        self.survey(|manifest, _| make(manifest)).whole
    }

    /// All manifests in the store, oldest first.
    pub fn manifests(&self) -> Vec<Manifest> {
        let mut all = self.each_manifest(|manifest| manifest);
        all.sort_by_key(|manifest| manifest.finished_ms);
        all
    }

    /// Indexes every manifest, and says how many there are.
    pub(super) fn index_manifests(&self) -> usize {
        self.each_manifest(|manifest| self.index_manifest(&manifest)).len()
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
        index.put(Table::Kinds, &kind_entry(&manifest.key, &manifest.fingerprint.stage, manifest.finished_ms), b"");
    }

    /// Forgets what the index has under a key; the entry by kind finds nothing then.
    fn forget(&self, key: &Key) {
        let Some(index) = &self.index else { return };
        index.remove(Table::Manifests, key.0.as_bytes());
        index.remove(Table::Stats, self.manifest_path(key).as_os_str().as_encoded_bytes());
    }

    /// Forgets the manifest of a stage kind that is about to be removed.
    pub(super) fn forget_manifest(&self, key: &Key, stage: &str, finished_ms: u64) {
        let Some(index) = &self.index else { return };
        index.remove(Table::Manifests, key.0.as_bytes());
        index.remove(Table::Kinds, &kind_entry(key, stage, finished_ms));
    }
}

fn kind_entry(key: &Key, stage: &str, finished_ms: u64) -> Vec<u8> {
    let mut entry = kind_prefix(stage);
    entry.extend_from_slice(&finished_ms.to_be_bytes());
    entry.extend_from_slice(key.0.as_bytes());
    entry
}

fn kind_prefix(stage: &str) -> Vec<u8> {
    [stage.as_bytes(), &[0]].concat()
}

/// What lies where manifests lie.
pub(super) struct Survey<T> {
    pub whole: Vec<T>,
    /// Of a later format, with their bytes.
    pub later: Vec<(PathBuf, Vec<u8>)>,
    /// Read, and not what their names say.
    pub damaged: Vec<PathBuf>,
    /// Files and folders that cannot be read, and why.
    pub unread: Vec<(PathBuf, String)>,
}

impl<T> Default for Survey<T> {
    fn default() -> Self {
        Self { whole: Vec::new(), later: Vec::new(), damaged: Vec::new(), unread: Vec::new() }
    }
}

/// What lies at a path where a manifest should.
fn read<T>(root: &Path, path: PathBuf, make: impl Fn(Manifest, u64) -> T) -> Found<T> {
    // As many bytes as nearly all of them have: one call reads them, another says that there are no more.
    let mut bytes = Vec::with_capacity(4096);
    match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Gone,
        Err(_) if path.is_dir() => bytes.clear(),
        Err(error) => return Found::Unread(path, error.to_string()),
    }
    match Manifest::judge(&bytes) {
        Ok(manifest) if Manifest::path(root, &manifest.key) == path => Found::Whole(make(manifest, bytes.len() as u64)),
        Err(Unfit::Later) => Found::Later(path, bytes),
        Ok(_) | Err(Unfit::Damaged) => Found::Damaged(path),
    }
}
