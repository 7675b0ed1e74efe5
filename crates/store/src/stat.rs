//! Remembers file digests by what the file system says of a file, so that large files are read once.
//!
//! A file counts as unchanged while device, inode, size, time of change and time of status change are as they were when it was hashed.
//! The last one is what makes it safe against tools that set a file's time back (`cp -p`, `rsync -t`, `tar`): a program cannot set it. What
//! is left is the tick of the file system's clock. A file that is written, hashed and written again within one tick looks the same both
//! times; so a digest is remembered for good only where the hashing began in a later tick than the file's last change. The stamp that says
//! when it began is taken from a file of the same file system, since its clock is not the system's.
//!
//! All of that is said of one file system. Another one that is mounted in its place can show the same, so that a file outside the store is
//! known by its file system too ([`filesystem`]).

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::filesystem;
use palinode_fingerprint::FileRef;

/// A file as the file system described it when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    /// The file system, of a file outside the store; not in what earlier versions remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fs: Option<u64>,
}

impl Stat {
    /// What the file system says of a file outside the store.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn outside(path: &Path) -> io::Result<Self> {
        let before = filesystem::of(path);
        let stat = Self::of(&fs::metadata(path)?);
        // One that is mounted in between is neither.
        Ok(Self { fs: before.filter(|before| filesystem::of(path) == Some(*before)), ..stat })
    }

    /// What the file system says of a file of the store, which no other file system is mounted over.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            fs: None,
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether another look at the file shows no change: it is the same file in the same file system, as long, and last changed when it was.
    pub fn is_still(&self, now: &Self) -> bool {
        self.fs.is_some() && self == now
    }

    /// Whether a file that another machine looked at is the same here. Numbers of devices and inodes are each machine's own; size and times
    /// are the server's, and no program can set the time of status change.
    pub fn from_afar(&self, now: &Self) -> bool {
        (self.size, self.mtime_ns, self.ctime_ns) == (now.size, now.mtime_ns, now.ctime_ns)
    }

    /// Whether it lies on this device.
    pub fn is_on(&self, dev: u64) -> bool {
        self.dev == dev
    }
}

/// One number from the two of the file system.
pub fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

/// A remembered digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    stat: Stat,
    file: FileRef,
    hashed_ns: i128,
}

impl Known {
    /// File `file` was read while it looked like `stat`, from the stamp `hashed_ns` on.
    pub fn new(stat: Stat, file: FileRef, hashed_ns: i128) -> Self {
        Self { stat, file, hashed_ns }
    }

    /// The same as this machine sees the file, where another one read it in a file system that both share.
    pub fn here(&self, now: &Stat) -> Option<Self> {
        self.stat.from_afar(now).then_some(Self { stat: *now, ..*self })
    }

    /// What was read.
    pub fn file(&self) -> FileRef {
        self.file
    }

    /// The contents, if the file still looks the same. One that was last changed at the very stamp of its reading may have
    /// changed again since without looking different, so its digest is not trusted.
    pub fn if_still(&self, stat: &Stat) -> Option<FileRef> {
        (self.stat.is_still(stat) && self.stat.ctime_ns < self.hashed_ns).then_some(self.file)
    }

    /// The contents, if the file still looks the same; for files that only the store itself writes.
    pub fn if_same(&self, stat: &Stat) -> Option<FileRef> {
        (Stat { fs: None, ..self.stat } == Stat { fs: None, ..*stat }).then_some(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two changes within one tick look alike; the digest that was taken between them must not be believed.
    #[test]
    fn a_digest_is_believed_when_no_later_change_could_look_the_same() {
        let stat = Stat { dev: 1, ino: 2, size: 3, mtime_ns: 100, ctime_ns: 100, fs: Some(1) };
        let file = FileRef::of(b"abc");
        // Another file system, or one that an earlier version did not ask for.
        for fs in [None, Some(2)] {
            assert!(Known::new(stat, file, 101).if_still(&Stat { fs, ..stat }).is_none());
            assert!(Known::new(Stat { fs, ..stat }, file, 101).if_still(&stat).is_none());
            assert!(Known::new(stat, file, 101).if_same(&Stat { fs, ..stat }).is_some());
        }
        for (hashed_ns, ctime_ns, expect) in [(100, 100, false), (101, 100, true), (101, 101, false), (99, 100, false)]
        {
            let found = Known::new(stat, file, hashed_ns).if_still(&Stat { ctime_ns, ..stat });
            assert_eq!(found.is_some(), expect, "read at {hashed_ns}, looks like {ctime_ns}");
        }
    }
}
