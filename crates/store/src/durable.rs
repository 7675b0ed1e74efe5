//! Writes that survive a kill and a power cut.
//!
//! The order is what counts. The contents are written to a temporary file and synchronised before the rename, or a power cut could leave
//! the new name with no contents behind it; the folder is synchronised after the rename, or the name itself could be lost; and where the
//! folder is new, so is the one above it. The temporary file lies in the same file system, since a rename across two of them is a copy,
//! which a reader could see half done. Whoever reads sees the old file or the new one, at any moment and after any crash.
//!
//! A disk takes milliseconds to say that something is on it, however little that is. So many files are written as a group in the same order,
//! with one wait for all contents and one for all names ([`write_all`]). The system then writes what others left unwritten in the same file
//! system as well, which is why a few files wait each for themselves.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::filesystem;
use crate::share::Shared;
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::{Digest, FileRef};

/// Writes `parts`, one after another, to `path` whole or not at all: temporary file, fsync, rename, fsync of the folder.
pub fn write(tmp: &Path, path: &Path, parts: &[&[u8]], shared: Shared) -> Result<(), Error> {
    let mut temporary = temporary(tmp, shared)?;
    let mut written = parts.iter().map(|part| temporary.write_all(part));
    written.try_for_each(|part| part).map_err(|error| Error::io(ErrorKind::Store, "write", path, error))?;
    publish(temporary, path, shared)
}

/// So many files are worth a wait for the whole file system.
const GROUP: usize = 4;

/// Writes files as [`write`] does, and waits for the disk once for all of them where the file system can. Gives for each, in their order,
/// whether it is there for good.
pub fn write_all(tmp: &Path, files: &[(PathBuf, Vec<u8>)], shared: Shared) -> Vec<Result<(), Error>> {
    // Opened first: it hears of whatever cannot be written from now on.
    let whole = if files.len() < GROUP { None } else { filesystem::that_syncs_whole(tmp) };
    let Some(whole) = whole else {
        return files.iter().map(|(path, bytes)| write(tmp, path, &[bytes], shared)).collect();
    };
    // Closed at once: a group may be larger than the number of files that a process may have open.
    let written = files.iter().map(|(path, bytes)| {
        let mut temporary = temporary(tmp, shared)?;
        let written = temporary.write_all(bytes);
        written.map(|()| temporary.into_temp_path()).map_err(|error| Error::io(ErrorKind::Store, "write", path, error))
    });
    let written: Vec<Result<TempPath, Error>> = written.collect();
    if whole.sync().is_err() {
        // Which of them is not on the disk, nobody says, and a file that is opened again may not hear of it. So each is written once more.
        drop(written);
        return files.iter().map(|(path, bytes)| write(tmp, path, &[bytes], shared)).collect();
    }
    let named = files.iter().zip(written).map(|((path, _), temporary)| {
        let failed = |error| Error::io(ErrorKind::Store, "write", path, error);
        let temporary = temporary?;
        shared.folder(path.parent().unwrap_or(path)).map_err(failed)?;
        temporary.persist(path).map_err(|error| failed(error.error))
    });
    let named: Vec<Result<(), Error>> = named.collect();
    if whole.sync().is_ok() {
        return named;
    }
    let each = files.iter().zip(named);
    each.map(|((path, _), named)| {
        let failed = |error| Error::io(ErrorKind::Store, "write", path, error);
        let folder = path.parent().unwrap_or(path);
        named.and_then(|()| sync_folder(folder.parent().unwrap_or(folder)).map_err(failed))?;
        sync_folder(folder).map_err(failed)
    })
    .collect()
}

/// Writes `bytes` to `path` whole or not at all, without waiting for the disk: after a power cut the file may be as before.
pub fn replace(tmp: &Path, path: &Path, bytes: &[u8], shared: Shared) -> Result<(), Error> {
    let failed = |error| Error::io(ErrorKind::Store, "write", path, error);
    let mut temporary = temporary(tmp, shared)?;
    temporary.write_all(bytes).map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A file in the folder for unfinished ones, which lies in the same file system as all targets. It is for whom the umask allows: a
/// temporary file is else for its owner alone, and would stay so under its new name.
pub fn temporary(tmp: &Path, shared: Shared) -> Result<NamedTempFile, Error> {
    let anyone = Permissions::from_mode(0o666);
    let made = tempfile::Builder::new().permissions(anyone).tempfile_in(tmp);
    made.and_then(|file| shared.file(file.as_file()).map(|()| file))
        .map_err(|error| Error::io(ErrorKind::Store, "create a file in", tmp, error))
}

/// Moves a written temporary file to `path` for good.
pub fn publish(temporary: NamedTempFile, path: &Path, shared: Shared) -> Result<(), Error> {
    let failed = |error| Error::io(ErrorKind::Store, "write", path, error);
    temporary.as_file().sync_all().map_err(failed)?;
    let folder = path.parent().unwrap_or(path);
    if !folder.exists() {
        shared.folder(folder).map_err(failed)?;
        // The folder's own entry has to survive too.
        sync_folder(folder.parent().unwrap_or(folder)).map_err(failed)?;
    }
    temporary.persist(path).map_err(|error| failed(error.error))?;
    sync_folder(folder).map_err(failed)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Hashes what passes through to a buffered file.
pub struct HashingWriter<'a> {
    file: BufWriter<&'a File>,
    hasher: blake3::Hasher,
}

impl<'a> HashingWriter<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), hasher: blake3::Hasher::new() }
    }

    pub fn finish(mut self) -> io::Result<FileRef> {
        self.file.flush()?;
        Ok(FileRef { digest: Digest::from_bytes(*self.hasher.finalize().as_bytes()), size: self.hasher.count() })
    }
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_written_file_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let tmp = folder.path().join("tmp");
        std::fs::create_dir(&tmp).unwrap();
        std::fs::create_dir_all(folder.path().join("b/taken/x")).unwrap();
        for count in [0, 1, GROUP, 40] {
            let path = |at: usize| folder.path().join(format!("b/{count}-{}/{at}", at % 3));
            let mut files: Vec<_> = (0..count).map(|at| (path(at), format!("contents {at}").into_bytes())).collect();
            if count > 0 {
                // A folder lies in its place.
                files[count / 2].0 = folder.path().join("b/taken");
            }
            let found = write_all(&tmp, &files, Shared::default());
            assert_eq!(found.len(), count);
            for (at, (found, (path, bytes))) in found.iter().zip(&files).enumerate() {
                assert_eq!(found.is_ok(), at != count / 2, "{count}: {at}");
                assert_eq!(std::fs::read(path).ok().as_ref(), found.is_ok().then_some(bytes));
            }
            assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0, "nothing is left behind");
        }
    }
}
