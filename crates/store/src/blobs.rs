//! Contents in the store.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::layout::fan_out;
use super::stat::{Known, Stat};
use super::{Store, durable, share, space};
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::{Digest, FileRef};

/// What is in the place of a blob.
pub(super) enum Blob {
    /// The contents that its name says.
    Whole,
    /// Nothing.
    Missing,
    /// The contents that its name says, and not of the size that was stated: who stated it is wrong.
    Other,
    /// Other contents than its name says, or no file.
    Damaged,
    /// Nobody knows: it cannot be read.
    Unreadable(io::Error),
}

/// What to do about a file of the store that cannot be read.
pub(super) fn unreadable_hint() -> &'static str {
    "it may be whole: nothing is removed or computed again for it. Make it readable for this user, or look after the disk, and run again"
}

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
    pub fn put_with(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<FileRef, Error> {
        let (temporary, file) = self.write_temporary(write)?;
        self.keep(temporary, file)
    }

    /// Puts what `write` writes if its digest is `expect`; `None` when it is another.
    pub(super) fn put_checked(
        &self,
        expect: Digest,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Option<FileRef>, Error> {
        let (temporary, file) = self.write_temporary(write)?;
        if file.digest == expect { self.keep(temporary, file).map(Some) } else { Ok(None) }
    }

    fn write_temporary(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(NamedTempFile, FileRef), Error> {
        let temporary = durable::temporary(&self.tmp(), self.shared)?;
        let mut writer = durable::HashingWriter::new(temporary.as_file());
        let file = write(&mut writer)
            .and_then(|()| writer.finish())
            .map_err(|error| Error::io(ErrorKind::Store, "write to", &self.root, error))?;
        Ok((temporary, file))
    }

    fn keep(&self, temporary: NamedTempFile, file: FileRef) -> Result<FileRef, Error> {
        let path = self.blob_path(&file.digest);
        match self.look_at_blob(&file) {
            Blob::Whole => return Ok(file),
            Blob::Damaged => self.set_aside(&path),
            // One that cannot be read is replaced by the same contents.
            Blob::Missing | Blob::Other | Blob::Unreadable(_) => {}
        }
        // A blob is never written again; saying so to the file system keeps editors and scripts from doing it.
        let _ = share::read_only(temporary.as_file());
        durable::publish(temporary, &path, self.shared)?;
        self.remember_blob(&path, file);
        Ok(file)
    }

    /// Puts bytes.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<FileRef, Error> {
        space::ensure_room(&self.root, bytes.len() as u64)?;
        self.put_with(|writer| writer.write_all(bytes))
    }

    /// Puts a copy of a file.
    ///
    /// # Errors
    /// When the file cannot be read or the store cannot be written.
    pub fn put_file(&self, path: &Path) -> Result<FileRef, Error> {
        let unreadable = |error| Error::io(ErrorKind::Input, "read", path, error);
        let mut from = fs::File::open(path).map_err(unreadable)?;
        space::ensure_room(&self.root, from.metadata().map_err(unreadable)?.len())?;
        self.put_with(|writer| io::copy(&mut from, writer).map(|_| ()))
    }

    /// Whether a blob is there and whole. Contents are read again only if the file looks different from when it was written. A damaged
    /// blob is moved aside by whoever has the store open, so that what made it runs again.
    ///
    /// # Errors
    /// When the blob is there and cannot be read: it may be as good as ever, and what made it must not run again for that.
    pub fn has_blob(&self, file: &FileRef) -> Result<bool, Error> {
        match self.look_at_blob(file) {
            Blob::Whole => Ok(true),
            Blob::Missing => Ok(false),
            Blob::Other => {
                let short = file.digest.short();
                self.note(format!(
                    "blob {short} is whole, and not of the size that a result says; what needs it runs again"
                ));
                Ok(false)
            }
            Blob::Damaged => {
                self.note(format!("blob {} was damaged; what needs it runs again", file.digest.short()));
                if self.is_locked() {
                    self.set_aside(&self.blob_path(&file.digest));
                }
                Ok(false)
            }
            Blob::Unreadable(error) => {
                let path = self.blob_path(&file.digest);
                Err(Error::io(ErrorKind::Store, "read", &path, error).hint(unreadable_hint()))
            }
        }
    }

    /// What is in the place of a blob.
    pub(super) fn look_at_blob(&self, file: &FileRef) -> Blob {
        let path = self.blob_path(&file.digest);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Blob::Missing,
            Err(error) => return Blob::Unreadable(error),
        };
        let known = self.known(&path).and_then(|known| known.if_same(&Stat::of(&metadata)));
        if known == Some(*file) {
            return Blob::Whole;
        }
        if !metadata.is_file() {
            return Blob::Damaged;
        }
        match FileRef::of_file(&path) {
            Ok(found) if found == *file => {
                self.remember_blob(&path, *file);
                Blob::Whole
            }
            Ok(found) if found.digest == file.digest => Blob::Other,
            Ok(_) => Blob::Damaged,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Blob::Missing,
            Err(error) => Blob::Unreadable(error),
        }
    }

    fn remember_blob(&self, path: &Path, file: FileRef) {
        if let Ok(metadata) = fs::metadata(path) {
            // A blob is believed while it looks the same, so that no stamp is needed.
            self.remember(path, &Known::new(Stat::of(&metadata), file, 0));
        }
    }
}
