//! The store as a worker has it: the files alone, beside the run that holds the lock and the index.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::layout::FOLDERS;
use super::stat::{Known, Stat};
use super::{Manifest, Store, filesystem, lock, network, version};
use palinode_error::{Error, ErrorKind, Hint};
use palinode_fingerprint::{FileRef, Key};

/// A file with its contents as they were when it was last read; whoever finds it looking the same need not read it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    path: PathBuf,
    known: Known,
}

impl Store {
    /// Looks at the files of a store that is there already: no lock is taken, no index is opened, nothing is cleared away.
    /// Everything is written whole or not at all, so that any number of processes can do this beside the one that has the
    /// store open.
    ///
    /// # Errors
    /// When there is no store, or it was written by a later version of the program.
    pub fn look(root: &Path) -> Result<Self, Error> {
        let root = std::path::absolute(root).map_err(|error| Error::io(ErrorKind::Store, "find", root, error))?;
        version::check(&root)?;
        for folder in FOLDERS {
            let path = root.join(folder);
            fs::metadata(&path).map_err(|error| Error::io(ErrorKind::Store, "open", &path, error))?;
        }
        Ok(Self::of(root, None))
    }

    /// Opens the store to look at it and no more: as [`Store::open`] where that is possible. Where another process has it open, or this user
    /// may not write to it, the files are looked at as they are, with a copy of the index so that large files need not be read again. Why it
    /// could not be opened is then given too.
    ///
    /// # Errors
    /// As [`Store::open`], where the files cannot be looked at either.
    pub fn open_or_look(root: &Path) -> Result<(Self, Option<Error>), Error> {
        let error = match Self::open(root) {
            Ok(store) => return Ok((store, None)),
            Err(error) => error,
        };
        let refused = error.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
        let refused = refused.is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        });
        if !refused && error.hint != Some(Hint::WaitForStore) || !Self::is_at(root)? {
            return Err(error);
        }
        let mut store = Self::look(root)?;
        store.copy_index();
        Ok((store, Some(error)))
    }

    /// As [`Store::bare`], with a copy of the index as it is at this moment, so that large files outside need not be read again: for those
    /// who stay beside whoever has the store open, and must never keep it from others.
    ///
    /// # Errors
    /// As [`Store::look`].
    pub fn beside(root: &Path) -> Result<Self, Error> {
        let mut store = Self::bare(root)?;
        store.copy_index();
        Ok(store)
    }

    /// Takes the index as it is at this moment, if it can be read. What is copied while it is written to may lack records or be unusable:
    /// every value has a checksum, and what is not there is found in the files.
    fn copy_index(&mut self) {
        let Ok(copy) = tempfile::tempdir() else { return };
        if copy_folder(&network::index(&self.root), copy.path()).is_err() {
            return;
        }
        self.index = Index::open(copy.path()).filter(Index::is_sound);
        self.copy = self.index.is_some().then_some(copy);
    }

    /// As [`Store::look`], for those who count on what they find or write: nothing that is there is removed meanwhile.
    ///
    /// # Errors
    /// As [`Store::look`].
    pub fn bare(root: &Path) -> Result<Self, Error> {
        let mut store = Self::look(root)?;
        store.in_use = lock::use_files(&store.root);
        Ok(store)
    }

    /// What is known of contents, for a worker that has to find them; `None` where they are not to be found.
    pub fn place(&self, file: &FileRef) -> Result<Option<Place>, Error> {
        let Some(path) = self.find(file)? else { return Ok(None) };
        Ok(self.known(&path).map(|known| Place { path, known }))
    }

    /// What is known of an external file.
    pub fn place_of(&self, path: &Path) -> Option<Place> {
        let path = std::path::absolute(path).ok()?;
        self.known(&path).map(|known| Place { path, known })
    }

    /// Takes over what another process found out about a file.
    pub fn learn(&self, place: &Place) {
        let now = if filesystem::is_shared(&place.path) { Stat::outside(&place.path).ok() } else { None };
        let known = now.and_then(|now| place.known.here(&now)).unwrap_or(place.known);
        self.remember(&place.path, &known);
        self.saw(place.known.file(), &place.path);
    }

    /// All that was found out since a bare store was opened.
    pub fn places(&self) -> Vec<Place> {
        let all = self.memory.all();
        all.iter().map(|(path, known)| Place { path: path.clone(), known: *known }).collect()
    }

    /// Takes over a manifest that a worker published.
    pub fn adopt(&self, key: &Key) -> Option<Manifest> {
        let bytes = fs::read(self.manifest_path(key)).ok()?;
        let manifest = Manifest::read(&bytes).filter(|manifest| manifest.key == *key)?;
        self.index_manifest(&manifest);
        self.flush();
        Some(manifest)
    }
}

/// Copies the files of a folder, and those of its folders.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let (path, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            fs::create_dir(&to)?;
            copy_folder(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}
