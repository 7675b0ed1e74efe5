//! Files outside the store: their digests, remembered, and where contents were last seen.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::Store;
use super::index::Table;
use super::stat::{Known, Stat};
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::FileRef;

/// Reading a file of this size for its digest takes long enough to tell.
const TELL_FROM: u64 = 256 << 20;

/// Hears of a file that is about to be read for its digest, and of its size, where that takes long enough to say.
pub type Hashing<'a> = dyn Fn(&Path, u64) + 'a;

impl Store {
    /// The contents of a file that stages read from outside: as [`Store::digest_of`], and its contents are found there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn see(&self, path: &Path, hashing: &Hashing<'_>) -> Result<FileRef, Error> {
        let file = self.digest_of(path, hashing)?;
        let path = std::path::absolute(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
        if let Some(index) = &self.index
            && index.get(Table::Seen, file.digest.as_bytes()).as_deref() != Some(path.as_os_str().as_encoded_bytes())
        {
            index.put(Table::Seen, file.digest.as_bytes(), path.as_os_str().as_encoded_bytes());
        }
        self.saw(file, &path);
        Ok(file)
    }

    /// The contents of an external file: remembered, or read when it looks different from last time.
    ///
    /// What a stage published is looked at with this alone: a result must not be taken to be there since a file that the
    /// next stage writes over happens to hold the same.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn digest_of(&self, path: &Path, hashing: &Hashing<'_>) -> Result<FileRef, Error> {
        let failed = |error| Error::io(ErrorKind::Input, "read", path, error);
        let path = &std::path::absolute(path).map_err(failed)?;
        let stat = Stat::outside(path).map_err(failed)?;
        if let Some(file) = self.known(path).and_then(|known| known.if_still(&stat)) {
            return Ok(file);
        }
        // The stamp comes first: what it says of changes holds for those after it.
        let begun = self.stamp(&stat);
        let stat = Stat::outside(path).map_err(failed)?;
        if stat.size() >= TELL_FROM {
            hashing(path, stat.size());
        }
        let file = FileRef::of_file(path).map_err(failed)?;
        // A file that changed while it was read has a digest of nothing that ever was; it is not remembered.
        if Stat::outside(path).is_ok_and(|after| stat.is_still(&after)) {
            self.remember(path, &Known::new(stat, file, begun));
        }
        Ok(file)
    }

    /// Where contents lie: as a blob, or unchanged where they were last seen outside.
    ///
    /// # Errors
    /// When the blob, or the place where they were last seen, cannot be read.
    pub fn find(&self, file: &FileRef) -> Result<Option<PathBuf>, Error> {
        if self.has_blob(file)? {
            return Ok(Some(self.blob_path(&file.digest)));
        }
        let Some(path) = self.last_seen(file) else { return Ok(None) };
        if !path.exists() {
            return Ok(None);
        }
        let found = self.digest_of(&path, &|_, _| ())?;
        Ok((found == *file).then_some(path))
    }

    /// Where contents were last seen outside, whatever is there now.
    pub fn last_seen(&self, file: &FileRef) -> Option<PathBuf> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&file.digest).cloned();
        if seen.is_some() {
            return seen;
        }
        let bytes = self.index.as_ref()?.get(Table::Seen, file.digest.as_bytes())?;
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }

    pub(super) fn saw(&self, file: FileRef, path: &Path) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(file.digest, path.to_owned());
    }

    pub(super) fn known(&self, path: &Path) -> Option<Known> {
        let Some(index) = &self.index else { return self.memory.get(path) };
        let bytes = index.get(Table::Stats, path.as_os_str().as_encoded_bytes())?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(super) fn remember(&self, path: &Path, known: &Known) {
        match (&self.index, serde_json::to_vec(known)) {
            (Some(index), Ok(bytes)) => index.put(Table::Stats, path.as_os_str().as_encoded_bytes(), &bytes),
            _ => self.memory.put(path, *known),
        }
    }
}
