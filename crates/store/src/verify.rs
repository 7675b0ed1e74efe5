//! Reading everything in the store again.

use std::fs;
use std::path::PathBuf;

use super::manifests::files_below;
use super::{Manifest, Store};
use palinode_fingerprint::{Digest, FileRef};

/// What a full check of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs read.
    pub blobs: usize,
    /// Manifests read.
    pub manifests: usize,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// A file of the store that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Store {
    /// Reads every blob and manifest and compares it with its name. Changes nothing: a damaged file is found again, and
    /// replaced, by the next run that needs it.
    pub fn verify(&self) -> Verified {
        let mut found = Verified::default();
        for path in files_below(&self.root.join("blobs")) {
            found.blobs += 1;
            let name: Option<Digest> = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let what = match (name, FileRef::of_file(&path)) {
                (None, _) => Some("its name is not a digest".to_owned()),
                (_, Err(error)) => Some(format!("it cannot be read: {error}")),
                (Some(name), Ok(file)) => {
                    found.bytes += file.size;
                    (file.digest != name).then(|| format!("its contents are {}", file.digest.short()))
                }
            };
            found.damage.extend(what.map(|what| Damage { path, what }));
        }
        for path in self.manifest_files() {
            found.manifests += 1;
            let manifest = fs::read(&path).ok().and_then(|bytes| Manifest::read(&bytes));
            if manifest.is_none_or(|manifest| self.manifest_path(&manifest.key) != path) {
                found.damage.push(Damage { path, what: "it does not belong to its key".to_owned() });
            }
        }
        found
    }

    /// All manifests in the store, oldest first.
    pub fn manifests(&self) -> Vec<Manifest> {
        let read = |path: PathBuf| fs::read(path).ok().and_then(|bytes| Manifest::read(&bytes));
        let mut manifests: Vec<_> = self.manifest_files().into_iter().filter_map(read).collect();
        manifests.sort_by_key(|manifest| manifest.finished_ms);
        manifests
    }
}
