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
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::blobs::blob_file;
use super::index::Table;
use super::manifests::Survey;
use super::walk::{bytes_below, walk};
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
    /// Of each result that goes, when it was made.
    #[serde(skip)]
    finished_ms: Vec<u64>,
}

/// What there is to know of a result: of a hundred thousand of them, all is not kept in memory.
struct Known {
    key: Key,
    stage: String,
    made_for: String,
    finished_ms: u64,
    used_ms: u64,
    seconds: f64,
    contents: Box<[Digest]>,
    /// Bytes of its manifest.
    bytes: u64,
}

impl Known {
    fn of(manifest: Manifest, bytes: u64, used: &BTreeMap<Key, u64>) -> Self {
        Self {
            key: manifest.key,
            used_ms: used.get(&manifest.key).copied().unwrap_or(0).max(manifest.finished_ms),
            contents: contents(&manifest).into_iter().collect(),
            made_for: manifest.made_for(),
            stage: manifest.fingerprint.stage,
            finished_ms: manifest.finished_ms,
            seconds: manifest.seconds,
            bytes,
        }
    }
}

/// Something that can go by itself.
enum Item {
    Unit { used_ms: u64, path: PathBuf, bytes: u64 },
    Result(Known),
}

impl Item {
    /// What goes first comes first.
    fn order(&self) -> (u64, bool, &[u8]) {
        match self {
            Self::Unit { used_ms, path, .. } => (*used_ms, false, path.as_os_str().as_encoded_bytes()),
            Self::Result(known) => (known.used_ms, true, known.key.0.as_bytes()),
        }
    }
}

impl Store {
    /// What is to go. Changes nothing, and can be asked of a store that another process has open: for this moment it is true.
    pub fn garbage(&self, retention: &Retention, roots: &Roots) -> Garbage {
        let now = now_ms();
        let Survey { whole: results, later, damaged, unread } =
            self.survey(|manifest, bytes| Known::of(manifest, bytes, &roots.used));
        let (pins, unknown_pins) = self.all_pins();
        let pinned: BTreeSet<Key> = pins.into_iter().flat_map(|pin| pin.keys).collect();
        let mut garbage = Garbage { unread: unread.len() + later.len(), ..Garbage::default() };
        let there = walk(&self.root.join("blobs"), |path| {
            let name = path.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok());
            let bytes = length(&path);
            match name {
                Some(digest) if blob_file(&self.root, &digest) == path => Ok((digest, bytes)),
                _ => Err((path, bytes)),
            }
        });
        let mut blobs: HashMap<Digest, Blob> = HashMap::with_capacity(there.found.len());
        for found in there.found {
            match found {
                Ok((digest, bytes)) => drop(blobs.insert(digest, Blob { bytes, users: 0 })),
                Err((path, bytes)) => garbage.orphan(path, bytes),
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
        for digest in results.iter().flat_map(|known| &known.contents) {
            blobs.entry(*digest).and_modify(|blob| blob.users += 1);
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
        for (digest, blob) in &blobs {
            // What a record that cannot be read names, nobody knows: then contents that no other record names may be a result's.
            if blob.users == 0 && unread.is_empty() {
                garbage.orphan(self.blob_path(digest), blob.bytes);
            } else {
                left += blob.bytes;
            }
        }
        let units = walk(&self.root.join("units"), |path| {
            let metadata = fs::metadata(&path).ok();
            let (used_ms, bytes) = metadata.map_or((0, 0), |metadata| (modified_ms(&metadata), metadata.len()));
            Item::Unit { used_ms, path, bytes }
        });
        let mut items = units.found;
        for item in &items {
            left += if let Item::Unit { bytes, .. } = item { *bytes } else { 0 };
        }
        beside += results.iter().map(|known| known.bytes).sum::<u64>();
        items.extend(results.into_iter().map(Item::Result));
        items.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        let oldest =
            retention.unused_for.map(|span| now.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
        for item in items {
            let goes = oldest.is_some_and(|oldest| item.order().0 < oldest)
                || retention.size.is_some_and(|size| left + beside > size);
            match item {
                Item::Unit { path, bytes, .. } if goes => {
                    left -= bytes;
                    garbage.units += 1;
                    garbage.unit_bytes += bytes;
                    garbage.files.push(path);
                }
                Item::Unit { .. } => {}
                Item::Result(known) if goes && unknown_pins.is_empty() && !pinned.contains(&known.key) => {
                    let mut freed = 0;
                    beside -= known.bytes;
                    garbage.files.push(self.manifest_path(&known.key));
                    for digest in &known.contents {
                        let Some(blob) = blobs.get_mut(digest) else { continue };
                        blob.users -= 1;
                        // A record that cannot be read may name it as well.
                        if blob.users == 0 && unread.is_empty() {
                            freed += blob.bytes;
                            garbage.files.push(self.blob_path(digest));
                        }
                    }
                    left -= freed;
                    garbage.finished_ms.push(known.finished_ms);
                    garbage.results.push(Dead {
                        key: known.key,
                        stage: known.stage,
                        made_for: known.made_for,
                        used_ms: known.used_ms,
                        seconds: known.seconds,
                        bytes: freed,
                    });
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
        for (dead, finished_ms) in garbage.results.iter().zip(&garbage.finished_ms) {
            self.forget_manifest(&dead.key, &dead.stage, *finished_ms);
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

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn modified_ms(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
