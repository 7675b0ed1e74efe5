//! The index: sled, and the only place that knows it.
//!
//! It speeds up what files hold: manifests, file digests, last-seen places; nothing is in it alone. Damaged sled files can
//! lose records silently, refuse to open, or panic; so every value carries a checksum, every call is guarded, and
//! anything odd reads as "not there". Large values bloat sled files badly, so nothing above [`MOST`] goes in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use palinode_error::panics;

/// The largest value worth keeping here, in bytes.
pub const MOST: usize = 64 * 1024;

/// Version of the tables of the index.
const LAYOUT: &[u8] = b"1";

/// How often, and how long apart, opening is tried while sled's own lock is held. The store's lock keeps other processes away,
/// so that it can only be a thread of a database that was dropped a moment ago.
const TRIES: (u32, Duration) = (200, Duration::from_millis(10));

/// The tables of the index.
#[derive(Clone, Copy, Debug)]
pub enum Table {
    /// Key → manifest.
    Manifests,
    /// Stage kind, time and key → nothing: finds earlier manifests of a kind.
    Kinds,
    /// Path → what was known of the file there.
    Stats,
    /// Digest → path where external contents were last seen.
    Seen,
    /// Unit key → partial result, as older versions kept them; see `Store::gather_units`.
    Units,
    /// About the index itself.
    Meta,
}

const TABLES: [&str; 6] = ["manifests", "kinds", "stats", "seen", "units", "meta"];

/// An open index.
pub struct Index {
    db: sled::Db,
    tables: Vec<sled::Tree>,
    broken: AtomicBool,
}

impl Index {
    /// Opens or makes the index in this folder; `None` when sled cannot.
    pub fn open(folder: &Path) -> Option<Self> {
        let open = || -> sled::Result<Self> {
            // Flushes happen at commit points; the timer is only for the stat cache.
            let db = sled::Config::new().path(folder).cache_capacity(64 << 20).flush_every_ms(Some(1000)).open()?;
            let tables = TABLES.iter().map(|name| db.open_tree(name)).collect::<Result<_, _>>()?;
            Ok(Self { db, tables, broken: AtomicBool::new(false) })
        };
        let (mut tries, apart) = TRIES;
        loop {
            let trouble = match panics::catch(open) {
                Ok(Ok(index)) => return Some(index),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic,
            };
            tries -= 1;
            if tries == 0 || !trouble.contains("could not acquire lock") {
                tracing::warn!(trouble, "the index does not open");
                return None;
            }
            thread::sleep(apart);
        }
    }

    /// Whether its oldest record is still there. The canary is written last when an index is made.
    pub fn is_sound(&self) -> bool {
        self.get(Table::Meta, b"canary").as_deref() == Some(LAYOUT)
    }

    /// Says that all records are in it that belong there.
    pub fn seal(&self) {
        self.put(Table::Meta, b"canary", LAYOUT);
        self.flush();
    }

    /// The value under `key`, if it is there and whole.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let stored = self.guard(|| self.table(table).get(key))??;
        let (sum, value) = stored.split_at_checked(8)?;
        (sum == checksum(key, value)).then(|| value.to_vec())
    }

    /// Keeps a value; a failure is only logged, since everything here can be found or computed again.
    pub fn put(&self, table: Table, key: &[u8], value: &[u8]) {
        let mut stored = checksum(key, value).to_vec();
        stored.extend_from_slice(value);
        self.guard(|| self.table(table).insert(key, stored));
    }

    /// Forgets a value.
    pub fn remove(&self, table: Table, key: &[u8]) {
        self.guard(|| self.table(table).remove(key));
    }

    /// The last `most` keys that start with `prefix`, in falling order.
    pub fn last_keys(&self, table: Table, prefix: &[u8], most: usize) -> Vec<Vec<u8>> {
        self.guard(|| {
            let keys = self.table(table).scan_prefix(prefix).keys().rev().take(most);
            keys.map(|key| key.map(|key| key.to_vec())).collect::<Result<_, _>>()
        })
        .unwrap_or_default()
    }

    /// All keys and values of a table that are whole.
    pub fn all(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let keys = self.guard(|| {
            let keys = self.table(table).iter().keys();
            keys.map(|key| key.map(|key| key.to_vec())).collect::<Result<Vec<_>, _>>()
        });
        let keys = keys.unwrap_or_default().into_iter();
        keys.filter_map(|key| self.get(table, &key).map(|value| (key, value))).collect()
    }

    /// Writes everything to disk; `false` when that failed.
    pub fn flush(&self) -> bool {
        self.guard(|| self.db.flush()).is_some()
    }

    fn table(&self, table: Table) -> &sled::Tree {
        &self.tables[table as usize]
    }

    fn guard<T>(&self, call: impl FnOnce() -> sled::Result<T>) -> Option<T> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        let trouble = match panics::catch(call) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
        tracing::warn!(trouble, "the index is out of order; going on without it");
        self.broken.store(true, Ordering::Relaxed);
        None
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // sled flushes when it is dropped and may panic over damaged files even then.
        self.tables.clear();
        let _ = catch_unwind(AssertUnwindSafe(|| self.db.flush()));
    }
}

/// Bound to the key, so that a value that ended up under another key is not taken for its own.
fn checksum(key: &[u8], value: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(&[0]).update(value);
    let mut sum = [0; 8];
    hasher.finalize_xof().fill(&mut sum);
    sum
}
