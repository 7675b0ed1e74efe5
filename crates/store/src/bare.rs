//! The store as a worker has it: the files alone, beside the run that holds the lock and the index.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::FOLDERS;
use super::stat::Known;
use super::{Manifest, Store, lock, version};
use palinode_error::{Error, ErrorKind};
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
        self.remember(&place.path, &place.known);
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
