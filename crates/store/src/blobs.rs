//! Contents in the store.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::index::Table;
use super::layout::fan_out;
use super::stat::{Known, Stat};
use super::{Store, durable, space};
use palinode_error::{ErrorKind, StageError};
use palinode_fingerprint::{Digest, FileRef};

/// Where a blob lies in the store in this folder.
pub fn blob_file(root: &Path, digest: &Digest) -> PathBuf {
    fan_out(&root.join("blobs"), &digest.to_string())
}

impl Store {
    /// Where a blob lies, there or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_file(&self.root, digest)
    }

    /// Puts what `write` writes.
    ///
    /// # Errors
    /// When `write` fails or the store cannot be written.
    pub fn put_with(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<FileRef, StageError> {
        let (temporary, file) = self.write_temporary(write)?;
        self.keep(temporary, file)
    }

    /// Puts what `write` writes if its digest is `expect`; `None` when it is another.
    pub(super) fn put_checked(
        &self,
        expect: Digest,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Option<FileRef>, StageError> {
        let (temporary, file) = self.write_temporary(write)?;
        if file.digest == expect { self.keep(temporary, file).map(Some) } else { Ok(None) }
    }

    fn write_temporary(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(NamedTempFile, FileRef), StageError> {
        let temporary = durable::temporary(&self.tmp())?;
        let mut writer = durable::HashingWriter::new(temporary.as_file());
        let file = write(&mut writer)
            .and_then(|()| writer.finish())
            .map_err(|error| StageError::io(ErrorKind::Store, "write to", &self.root, error))?;
        Ok((temporary, file))
    }

    fn keep(&self, temporary: NamedTempFile, file: FileRef) -> Result<FileRef, StageError> {
        if self.has_blob(&file) {
            return Ok(file);
        }
        let path = self.blob_path(&file.digest);
        // A blob is never written again; saying so to the file system keeps editors and scripts from doing it.
        if let Ok(metadata) = temporary.as_file().metadata() {
            let mut permissions = metadata.permissions();
            permissions.set_readonly(true);
            let _ = temporary.as_file().set_permissions(permissions);
        }
        durable::publish(temporary, &path)?;
        self.remember_blob(&path, file);
        Ok(file)
    }

    /// Puts bytes.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<FileRef, StageError> {
        space::ensure_room(&self.root, bytes.len() as u64)?;
        self.put_with(|writer| writer.write_all(bytes))
    }

    /// Puts a copy of a file.
    ///
    /// # Errors
    /// When the file cannot be read or the store cannot be written.
    pub fn put_file(&self, path: &Path) -> Result<FileRef, StageError> {
        let unreadable = |error| StageError::io(ErrorKind::Input, "read", path, error);
        let mut from = fs::File::open(path).map_err(unreadable)?;
        space::ensure_room(&self.root, from.metadata().map_err(unreadable)?.len())?;
        self.put_with(|writer| io::copy(&mut from, writer).map(|_| ()))
    }

    /// Whether a blob is there and whole. Contents are read again only if the file looks different from when it was written;
    /// a damaged blob is removed, so that what made it runs again.
    pub fn has_blob(&self, file: &FileRef) -> bool {
        let path = self.blob_path(&file.digest);
        let Ok(metadata) = fs::metadata(&path) else { return false };
        let known = self.known(&path).and_then(|known| known.if_same(&Stat::of(&metadata)));
        if known == Some(*file) {
            return true;
        }
        if metadata.len() == file.size && FileRef::of_file(&path).is_ok_and(|found| found == *file) {
            self.remember_blob(&path, *file);
            return true;
        }
        self.note(format!("blob {} was damaged; what needs it runs again", file.digest.short()));
        self.forget_blob(&path);
        false
    }

    pub(super) fn forget_blob(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove a damaged blob");
        }
        if let Some(index) = &self.index {
            index.remove(Table::Stats, path.as_os_str().as_encoded_bytes());
        }
    }

    fn remember_blob(&self, path: &Path, file: FileRef) {
        if let Ok(metadata) = fs::metadata(path) {
            // A blob is believed while it looks the same, so that no stamp is needed.
            self.remember(path, &Known::new(Stat::of(&metadata), file, 0));
        }
    }
}
