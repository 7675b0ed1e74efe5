//! Making the index again from what files hold.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::index::{Index, Table};
use super::network;
use super::walk::bytes_below;
use super::{Store, Waiting};
use palinode_error::{Error, ErrorKind};

/// What was made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Manifests indexed.
    pub manifests: usize,
    /// Files whose digests are still known, so that they need not be read again.
    pub files: usize,
    /// Bytes that the index took before.
    pub before: u64,
    /// Bytes that it takes now.
    pub after: u64,
}

impl Store {
    /// Opens the store and makes its index again: from manifests, and with what is whole of what the old one remembers of
    /// files.
    ///
    /// # Errors
    /// As [`Store::open`], or when the old index cannot be removed.
    pub fn rebuild(root: &Path, waiting: Option<Waiting<'_>>) -> Result<(Self, Rebuilt), Error> {
        let mut store = Self::opened(root, waiting)?;
        let folder = network::index(&store.root);
        let before = bytes_below(&folder);
        let remembered: Vec<_> = [Table::Stats, Table::Seen]
            .into_iter()
            .map(|table| (table, store.index.as_ref().map(|index| index.all(table)).unwrap_or_default()))
            .collect();
        // sled lets go of its files when it is dropped.
        store.index = None;
        store.remove_index().map_err(|error| Error::io(ErrorKind::Store, "remove", &folder, error))?;
        let manifests = store.new_index();
        if let Some(index) = &store.index {
            for (table, entries) in &remembered {
                for (key, value) in entries {
                    index.put(*table, key, value);
                }
            }
            index.flush();
        }
        let files =
            remembered.iter().filter(|(table, _)| matches!(table, Table::Stats)).map(|(_, all)| all.len()).sum();
        let rebuilt = Rebuilt { manifests, files, before, after: bytes_below(&folder) };
        Ok((store, rebuilt))
    }

    /// Opens the index; one that does not open, or that lost its records, is made again.
    pub(super) fn open_index(&mut self) {
        let folder = network::index(&self.root);
        let existed = folder.exists();
        if let Some(path) = not_ours(&folder) {
            // Someone else's, and as good as ever for them.
            self.note(format!(
                "{} is not for this user to read and write; going on without the index, which takes longer",
                path.display()
            ));
            return;
        }
        self.index = Index::open(&folder);
        let sound = self.index.as_ref().is_some_and(Index::is_sound);
        if sound {
            return;
        }
        // What is left of the partial results that older versions kept here is saved.
        if let Err(error) = self.gather_units() {
            tracing::warn!(%error, "partial results of the damaged index cannot be kept");
        }
        self.index = None;
        if let Err(error) = self.remove_index() {
            tracing::warn!(%error, "the damaged index cannot be removed; going on without one");
            return;
        }
        let manifests = self.new_index();
        if existed || manifests > 0 {
            let what = if existed { "damaged" } else { "missing" };
            self.note(format!("the index was {what}; it was made again from {manifests} manifests"));
        }
    }

    pub(super) fn remove_index(&self) -> std::io::Result<()> {
        match fs::remove_dir_all(network::index(&self.root)) {
            Err(error) if error.kind() != IoKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// An index with all manifests; says how many.
    fn new_index(&mut self) -> usize {
        self.index = Index::open(&network::index(&self.root));
        let manifests = self.index_manifests();
        if let Some(index) = &self.index {
            index.seal();
        }
        manifests
    }
}

/// A file of the index that this user may not read or write, if there is one.
fn not_ours(folder: &Path) -> Option<PathBuf> {
    let denied = |error: &std::io::Error| error.kind() == IoKind::PermissionDenied;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return denied(&error).then(|| folder.to_owned()),
    };
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    let opens = |path: &PathBuf| fs::File::options().read(true).write(true).open(path);
    files.into_iter().find(|path| opens(path).is_err_and(|error| denied(&error)))
}
