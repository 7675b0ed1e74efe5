//! Partial results of long stages.

use std::fs;
use std::path::PathBuf;

use super::index::{MOST, Table};
use super::{Store, durable, fan_out};
use crate::digest::{Digest, Key};
use crate::error::StageError;

/// Length of the digest before the bytes of a unit's file.
const HEAD: usize = 32;

impl Store {
    /// The result of a unit of work, if it was put before and is whole.
    pub fn get_unit(&self, key: &Key) -> Option<Vec<u8>> {
        let indexed = self.index.as_ref().and_then(|index| index.get(Table::Units, key.0.as_bytes()));
        indexed.or_else(|| {
            let bytes = fs::read(self.unit_path(key)).ok()?;
            let (head, body) = bytes.split_at_checked(HEAD)?;
            let whole = Digest::of(body).as_bytes() == head;
            if !whole {
                tracing::warn!(%key, "a partial result was damaged; it is computed again");
            }
            whole.then(|| body.to_vec())
        })
    }

    /// Keeps the result of a unit of work: small ones in the index, large ones in a file of their own.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_unit(&self, key: &Key, bytes: &[u8]) -> Result<(), StageError> {
        if let Some(index) = &self.index
            && bytes.len() <= MOST
        {
            index.put(Table::Units, key.0.as_bytes(), bytes);
            if index.flush() {
                return Ok(());
            }
        }
        self.put_unit_file(key, bytes)
    }

    /// Writes the units that lie in the index into files, where workers find them.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn units_to_files(&self) -> Result<(), StageError> {
        let Some(index) = &self.index else { return Ok(()) };
        for (key, bytes) in index.all(Table::Units) {
            let Ok(raw) = <[u8; 32]>::try_from(key.as_slice()) else { continue };
            self.put_unit_file(&Key(Digest::from_bytes(raw)), &bytes)?;
            index.remove(Table::Units, &key);
        }
        Ok(())
    }

    fn put_unit_file(&self, key: &Key, bytes: &[u8]) -> Result<(), StageError> {
        let mut whole = Digest::of(bytes).as_bytes().to_vec();
        whole.extend_from_slice(bytes);
        durable::write(&self.tmp(), &self.unit_path(key), &whole)
    }

    pub(super) fn unit_path(&self, key: &Key) -> PathBuf {
        fan_out(&self.root.join("units"), &key.to_string())
    }
}
