//! Remembers file digests by what the file system says of a file, so that large files are read once.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::FileRef;

/// A file as the file system described it when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl Stat {
    /// What the file system says.
    pub fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A remembered digest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Known {
    stat: Stat,
    file: FileRef,
    hashed_ns: i128,
}

impl Known {
    /// File `file` was read while it looked like `stat`, beginning at `hashed`.
    pub fn new(stat: Stat, file: FileRef, hashed: SystemTime) -> Self {
        let since = hashed.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { stat, file, hashed_ns: since.as_nanos() as i128 }
    }

    /// The contents, if the file still looks the same. A file changed within one tick of the file system's clock of being
    /// read looks the same too, so a digest taken that soon after a change is not trusted.
    pub fn if_still(&self, stat: &Stat) -> Option<FileRef> {
        const TICK: Duration = Duration::from_millis(20);
        let settled = self.stat.ctime_ns + (TICK.as_nanos() as i128) < self.hashed_ns;
        (self.stat == *stat && settled).then_some(self.file)
    }

    /// The contents, if the file still looks the same; for files that only the store itself writes.
    pub fn if_same(&self, stat: &Stat) -> Option<FileRef> {
        (self.stat == *stat).then_some(self.file)
    }
}
