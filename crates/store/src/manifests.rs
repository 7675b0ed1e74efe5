//! Finding and publishing manifests.

use std::fs;
use std::path::PathBuf;

use super::index::{MOST, Table};
use super::{Manifest, Store, durable};
use palinode_error::StageError;
use palinode_fingerprint::{Digest, Key};

impl Store {
    /// The manifest of an action, if it was finished.
    pub fn manifest(&self, key: &Key) -> Option<Manifest> {
        let indexed = self.index.as_ref().and_then(|index| index.get(Table::Manifests, key.0.as_bytes()));
        if let Some(manifest) = indexed.and_then(|bytes| Manifest::read(&bytes)) {
            return Some(manifest);
        }
        let path = self.manifest_path(key);
        let bytes = fs::read(&path).ok()?;
        let manifest = Manifest::read(&bytes).filter(|manifest| manifest.key == *key);
        match &manifest {
            Some(manifest) => self.index_manifest(manifest),
            None => self.note(format!("manifest {} was damaged; its stage runs again", key.0.short())),
        }
        manifest
    }

    /// Publishes a finished action: its blobs are on disk already, then its manifest, then the index.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn publish(&self, manifest: &Manifest) -> Result<(), StageError> {
        durable::write(&self.tmp(), &self.manifest_path(&manifest.key), &[&manifest.write()])?;
        self.index_manifest(manifest);
        self.flush();
        Ok(())
    }

    /// The latest manifests of a stage kind, newest first, at most `most`.
    pub fn latest(&self, stage: &str, most: usize) -> Vec<Manifest> {
        let Some(index) = &self.index else {
            let all = self.manifests().into_iter().rev();
            return all.filter(|manifest| manifest.fingerprint.stage == stage).take(most).collect();
        };
        let keys = index.last_keys(Table::Kinds, &kind_prefix(stage), most);
        let digest = |key: &Vec<u8>| key.last_chunk::<32>().copied();
        keys.iter().filter_map(digest).filter_map(|bytes| self.manifest(&Key(Digest::from_bytes(bytes)))).collect()
    }

    pub(super) fn manifest_path(&self, key: &Key) -> PathBuf {
        Manifest::path(&self.root, key)
    }

    /// Every manifest on disk, with what could not be read.
    pub(super) fn manifest_files(&self) -> Vec<PathBuf> {
        files_below(&self.root.join("actions"))
    }

    /// Indexes every manifest, and says how many there are.
    pub(super) fn index_manifests(&self) -> usize {
        let manifests = self.manifests();
        for manifest in &manifests {
            self.index_manifest(manifest);
        }
        manifests.len()
    }

    pub(super) fn index_manifest(&self, manifest: &Manifest) {
        let Some(index) = &self.index else { return };
        let Ok(bytes) = serde_json::to_vec(manifest) else { return };
        let key = manifest.key.0.as_bytes();
        if bytes.len() <= MOST {
            index.put(Table::Manifests, key, &bytes);
        } else {
            index.remove(Table::Manifests, key);
        }
        index.put(Table::Kinds, &kind_entry(manifest), b"");
    }

    /// Forgets a manifest that is about to be removed.
    pub(super) fn forget_manifest(&self, manifest: &Manifest) {
        let Some(index) = &self.index else { return };
        index.remove(Table::Manifests, manifest.key.0.as_bytes());
        index.remove(Table::Kinds, &kind_entry(manifest));
    }
}

fn kind_entry(manifest: &Manifest) -> Vec<u8> {
    let mut entry = kind_prefix(&manifest.fingerprint.stage);
    entry.extend_from_slice(&manifest.finished_ms.to_be_bytes());
    entry.extend_from_slice(manifest.key.0.as_bytes());
    entry
}

fn kind_prefix(stage: &str) -> Vec<u8> {
    [stage.as_bytes(), &[0]].concat()
}

/// The files two levels down: `folder/ab/name`.
pub(super) fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries =
        |folder: &std::path::Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries(folder).flat_map(|folder| entries(&folder).collect::<Vec<_>>()).collect();
    files.sort();
    files
}
