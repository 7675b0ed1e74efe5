//! Partial results of long stages: a file for each, so that they outlive the index.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::index::Table;
use super::layout::fan_out;
use super::{Store, durable, space};
use palinode_error::Error;
use palinode_fingerprint::{Digest, Key};

/// Length of the digest before the bytes of a unit's file.
const HEAD: usize = 32;

/// A unit that is used counts as used today; its file's time says when that was.
const DAY: Duration = Duration::from_hours(24);

impl Store {
    /// The result of a unit of work, if it was put before and is whole.
    pub fn get_unit(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.unit_path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.note(format!("partial result {} cannot be read ({error}); it is computed again", key.0.short()));
                return None;
            }
        };
        let Some(body) = body(&bytes) else {
            self.note(format!("partial result {} was damaged; it is computed again", key.0.short()));
            self.set_aside(&path);
            return None;
        };
        touch(&path);
        Some(body.to_vec())
    }

    /// Whether the result of a unit of work is there; it may turn out to be damaged.
    pub fn has_unit(&self, key: &Key) -> bool {
        self.unit_path(key).is_file()
    }

    /// Keeps the result of a unit of work; when this returns it survives a kill and a power cut.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_unit(&self, key: &Key, bytes: &[u8]) -> Result<(), Error> {
        space::ensure_room(&self.root, bytes.len() as u64)?;
        let digest = Digest::of(bytes);
        durable::write(&self.tmp(), &self.unit_path(key), &[digest.as_bytes(), bytes], self.shared)
    }

    /// Removes the result of a unit of work, if it is there. One that cannot be removed is garbage like any other that is old.
    pub fn drop_unit(&self, key: &Key) {
        let _ = fs::remove_file(self.unit_path(key));
    }

    /// Moves partial results that older versions kept in the index into files.
    pub(super) fn gather_units(&self) -> Result<(), Error> {
        let Some(index) = &self.index else { return Ok(()) };
        for (key, bytes) in index.all(Table::Units) {
            if let Ok(raw) = <[u8; 32]>::try_from(key.as_slice()) {
                self.put_unit(&Key(Digest::from_bytes(raw)), &bytes)?;
            }
            index.remove(Table::Units, &key);
        }
        Ok(())
    }

    pub(super) fn unit_path(&self, key: &Key) -> PathBuf {
        fan_out(&self.root.join("units"), &key.to_string())
    }
}

/// The partial result in a unit's file, if it is whole.
pub(super) fn body(file: &[u8]) -> Option<&[u8]> {
    let (head, body) = file.split_at_checked(HEAD)?;
    (Digest::of(body).as_bytes() == head).then_some(body)
}

fn touch(path: &Path) {
    let now = SystemTime::now();
    let used = fs::metadata(path).and_then(|metadata| metadata.modified());
    if used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > DAY)) {
        // Only its age is at stake.
        let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(now));
    }
}
