//! Making room: what nothing can use any more, what was not used for long, what was used least recently.
//!
//! Everything is found from files alone. A result goes before its contents: a store whose collection was killed has contents
//! without a result, never a result without its contents.
//!
//! Contents are shared: two results with the same bytes have one blob, and half a result's files may be another's. So nothing is removed
//! because its own result goes; a blob goes when the number of results that name it has come down to none, and the sizes that are shown
//! are those that really become free. The roots are the manifests that stay: those in use since the given time, those that fit under the
//! given size, and pinned ones always. The store does not know what a run is, so when a result was last used is handed in by who knows it
//! ([`Roots`]). Partial results have no manifest yet: they are as old as their file. Collection takes the lock of those who use the
//! files, and so never runs beside a worker that is about to name a blob which nothing names yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::index::Table;
use super::manifests::{AllManifests, files_below};
use super::{Manifest, Store, lock};
use palinode_error::now_ms;
use palinode_error::{Error, ErrorKind, Hint};
use palinode_fingerprint::{Digest, Key};

/// What those who use a store know of its files and the store does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// When results were last used, in milliseconds since 1970. One that is not named was last used when it was made.
    pub used: BTreeMap<Key, u64>,
    /// Files and folders below `runs/` that nothing can use any more, or that are to go.
    pub orphans: Vec<PathBuf>,
}

/// Folders with what is no result and takes room all the same.
const FOLDERS_BESIDE: [&str; 3] = ["index", "runs", "pins"];

/// What is to be kept. Pinned results always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What no run used for longer than this goes.
    pub unused_for: Option<Duration>,
    /// What was used least recently goes until no more than so many bytes are left, records and index included.
    pub size: Option<u64>,
}

/// A result that is to go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dead {
    /// Its key.
    pub key: Key,
    /// The stage kind.
    pub stage: String,
    /// The pipeline and the stage instance that it was last computed for.
    pub made_for: String,
    /// When a run last made or used it, in milliseconds since 1970.
    pub used_ms: u64,
    /// How long it took to compute.
    pub seconds: f64,
    /// Bytes in the store that nothing else needs, of those that go.
    pub bytes: u64,
}

/// What is to go, and what that leaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Garbage {
    /// Results, those used least recently first.
    pub results: Vec<Dead>,
    /// Partial results of long stages.
    pub units: usize,
    /// Bytes of those.
    pub unit_bytes: u64,
    /// Contents and records that nothing can use: left by stages that were killed, or damaged.
    pub orphans: usize,
    /// Bytes of those.
    pub orphan_bytes: u64,
    /// Records of runs: old ones that are not to be kept, and leftovers of runs without a record.
    pub runs: usize,
    /// Bytes of those.
    pub run_bytes: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Results that stay.
    pub kept: usize,
    /// Results that stay only since they are pinned.
    pub pinned: usize,
    /// Bytes of contents and partial results that stay.
    pub kept_bytes: u64,
    /// Bytes that stay beside them: of records of results and runs, pins, and the index.
    pub beside_bytes: u64,
    /// Records of results that stay since they cannot be read, or since a later program wrote them.
    pub unread: usize,
    /// In the order in which they go.
    #[serde(skip)]
    files: Vec<PathBuf>,
    #[serde(skip)]
    manifests: Vec<Manifest>,
}

/// Something that can go by itself.
enum Item {
    Result(Box<Manifest>),
    Unit { path: PathBuf, bytes: u64 },
}

impl Store {
    /// What is to go. Changes nothing, and can be asked of a store that another process has open: for this moment it is true.
    pub fn garbage(&self, retention: &Retention, roots: &Roots) -> Garbage {
        let now = now_ms();
        let AllManifests { whole: manifests, later, damaged, unread } = self.all_manifests();
        let (pins, unknown_pins) = self.all_pins();
        let pinned: BTreeSet<Key> = pins.into_iter().flat_map(|pin| pin.keys).collect();
        let mut garbage = Garbage { unread: unread.len() + later.len(), ..Garbage::default() };
        let mut blobs: HashMap<Digest, Blob> = HashMap::new();
        for path in files_below(&self.root.join("blobs")).files {
            let bytes = length(&path);
            match path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                Some(digest) => drop(blobs.insert(digest, Blob { path, bytes, users: 0 })),
                None => garbage.orphan(path, bytes),
            }
        }
        for path in damaged.into_iter().chain(self.damaged_files()) {
            let bytes = length(&path);
            garbage.orphan(path, bytes);
        }
        // A record of a later format still names its contents by their digests.
        for digest in later.iter().flat_map(|(_, bytes)| digests_in(bytes)) {
            blobs.entry(digest).and_modify(|blob| blob.users += 1);
        }
        for manifest in &manifests {
            for digest in contents(manifest) {
                blobs.entry(digest).and_modify(|blob| blob.users += 1);
            }
        }
        for path in &roots.orphans {
            garbage.runs += 1;
            garbage.run_bytes += bytes_below(path);
            garbage.files.push(path.clone());
        }
        // What lies beside contents takes room as well.
        let mut beside: u64 = FOLDERS_BESIDE.iter().map(|folder| bytes_below(&self.root.join(folder))).sum();
        beside = beside.saturating_sub(roots.orphans.iter().map(|path| bytes_below(path)).sum());
        let mut left: u64 = 0;
        for blob in blobs.values() {
            // What a record that cannot be read names, nobody knows: then contents that no other record names may be a result's.
            if blob.users == 0 && unread.is_empty() {
                garbage.orphan(blob.path.clone(), blob.bytes);
            } else {
                left += blob.bytes;
            }
        }
        let mut items: Vec<(u64, String, Item)> = Vec::new();
        for path in files_below(&self.root.join("units")).files {
            let bytes = length(&path);
            left += bytes;
            items.push((modified_ms(&path), path.display().to_string(), Item::Unit { path, bytes }));
        }
        for manifest in manifests {
            beside += length(&self.manifest_path(&manifest.key));
            let at = roots.used.get(&manifest.key).copied().unwrap_or(0).max(manifest.finished_ms);
            items.push((at, manifest.key.to_string(), Item::Result(Box::new(manifest))));
        }
        items.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let oldest =
            retention.unused_for.map(|span| now.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
        for (used_ms, _, item) in items {
            let goes = oldest.is_some_and(|oldest| used_ms < oldest)
                || retention.size.is_some_and(|size| left + beside > size);
            match item {
                Item::Unit { path, bytes } if goes => {
                    left -= bytes;
                    garbage.units += 1;
                    garbage.unit_bytes += bytes;
                    garbage.files.push(path);
                }
                Item::Unit { .. } => {}
                Item::Result(manifest) if goes && unknown_pins.is_empty() && !pinned.contains(&manifest.key) => {
                    let path = self.manifest_path(&manifest.key);
                    let mut freed = 0;
                    beside -= length(&path);
                    let mut files = vec![path];
                    for digest in contents(&manifest) {
                        let Some(blob) = blobs.get_mut(&digest) else { continue };
                        blob.users -= 1;
                        // A record that cannot be read may name it as well.
                        if blob.users == 0 && unread.is_empty() {
                            freed += blob.bytes;
                            files.push(blob.path.clone());
                        }
                    }
                    left -= freed;
                    garbage.results.push(Dead {
                        key: manifest.key,
                        stage: manifest.fingerprint.stage.clone(),
                        made_for: format!("{}: {}", manifest.pipeline, manifest.instance),
                        used_ms,
                        seconds: manifest.seconds,
                        bytes: freed,
                    });
                    garbage.files.append(&mut files);
                    garbage.manifests.push(*manifest);
                }
                Item::Result(_) => {
                    garbage.kept += 1;
                    garbage.pinned += usize::from(goes);
                }
            }
        }
        garbage.kept_bytes = left;
        garbage.beside_bytes = beside;
        let results: u64 = garbage.results.iter().map(|dead| dead.bytes).sum();
        garbage.bytes = results + garbage.unit_bytes + garbage.orphan_bytes + garbage.run_bytes;
        garbage
    }

    /// Removes what is to go, and says what that was.
    ///
    /// # Errors
    /// When a worker uses the files of the store, or something cannot be removed; what was removed by then is gone.
    pub fn collect(&self, retention: &Retention, roots: &Roots) -> Result<Garbage, Error> {
        let Some(_alone) = lock::keep_out(&self.root)? else {
            return Err(Error::store(format!("workers are at work on the store {}", self.root.display()))
                .hint(Hint::WaitForWorkers));
        };
        let garbage = self.garbage(retention, roots);
        for manifest in &garbage.manifests {
            self.forget_manifest(manifest);
        }
        self.flush();
        for path in &garbage.files {
            if let Some(index) = &self.index {
                index.remove(Table::Stats, path.as_os_str().as_encoded_bytes());
            }
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(ErrorKind::Store, "remove", path, error));
                }
                _ => {}
            }
        }
        Ok(garbage)
    }
}

impl Garbage {
    /// Whether nothing is to go.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn orphan(&mut self, path: PathBuf, bytes: u64) {
        self.orphans += 1;
        self.orphan_bytes += bytes;
        self.files.push(path);
    }
}

struct Blob {
    path: PathBuf,
    bytes: u64,
    /// How many results have it.
    users: usize,
}

/// The contents of a result, each once.
pub(super) fn contents(manifest: &Manifest) -> BTreeSet<Digest> {
    manifest.output.files.values().map(|file| file.digest).collect()
}

/// All digests that stand in a text.
fn digests_in(bytes: &[u8]) -> Vec<Digest> {
    let text = String::from_utf8_lossy(bytes);
    text.split(|c: char| !c.is_ascii_hexdigit()).filter_map(|word| word.parse().ok()).collect()
}

/// Bytes of a file, or of all files in a folder and below.
fn bytes_below(path: &Path) -> u64 {
    if !path.is_dir() {
        return length(path);
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| bytes_below(&entry.path())).sum()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn modified_ms(path: &Path) -> u64 {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
