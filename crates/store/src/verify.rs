//! Reading everything in the store again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifests::{AllManifests, files_below};
use super::units::body;
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
    /// Whether it was read whole, and so is known to be damaged. What cannot be read may be as good as ever.
    pub known: bool,
    /// The results that need it, as pipeline and stage instance.
    pub hits: Vec<String>,
}

/// Which results have a blob.
type Users<'a> = BTreeMap<Digest, Vec<&'a Manifest>>;

impl Store {
    /// Reads every blob, manifest and partial result and compares it with its name; what results lack is damage as well. Changes nothing:
    /// see [`Store::set_damage_aside`].
    pub fn verify(&self) -> Verified {
        let AllManifests { whole, later, damaged, unread } = self.all_manifests();
        let mut found = Verified { manifests: whole.len() + later.len() + damaged.len(), ..Verified::default() };
        for path in damaged {
            found.damaged(path, "it does not belong to its key", Vec::new());
        }
        for (path, error) in unread {
            found.unreadable(path, &error, Vec::new());
        }
        let mut users: Users<'_> = BTreeMap::new();
        for manifest in &whole {
            for file in manifest.output.files.values() {
                let of = users.entry(file.digest).or_default();
                if !of.iter().any(|known| known.key == manifest.key) {
                    of.push(manifest);
                }
            }
        }
        let there = self.verify_blobs(&users, &mut found);
        // What a stage read from outside may be a result's file as well, and then is no blob: a model's weights.
        let outside: BTreeSet<Digest> =
            whole.iter().flat_map(|manifest| manifest.fingerprint.files.values().copied()).collect();
        for (digest, of) in users.iter().filter(|(digest, _)| !there.contains(digest) && !outside.contains(digest)) {
            found.damaged(self.blob_path(digest), "it is missing", names(of));
        }
        self.verify_units(&mut found);
        found
    }

    /// Blobs that are there, whole or not.
    fn verify_blobs(&self, users: &Users<'_>, found: &mut Verified) -> BTreeSet<Digest> {
        let mut there = BTreeSet::new();
        let listed = files_below(&self.root.join("blobs"));
        for (path, error) in listed.unread {
            found.unreadable(path, &error, Vec::new());
        }
        for path in listed.files {
            found.blobs += 1;
            let name: Option<Digest> = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(name) = name else {
                found.damaged(path, "its name is not a digest", Vec::new());
                continue;
            };
            there.insert(name);
            let hits = users.get(&name).map(|of| names(of)).unwrap_or_default();
            if path.is_dir() {
                found.damaged(path, "it is a folder", hits);
                continue;
            }
            match FileRef::of_file(&path) {
                Err(error) => found.unreadable(path, &error.to_string(), hits),
                Ok(file) if file.digest != name => {
                    found.damaged(path, &format!("its contents are {}", file.digest.short()), hits);
                }
                Ok(file) => found.bytes += file.size,
            }
        }
        there
    }

    fn verify_units(&self, found: &mut Verified) {
        for path in files_below(&self.root.join("units")).files {
            match fs::read(&path) {
                Ok(bytes) if body(&bytes).is_none() => {
                    found.damaged(path, "it is not the partial result that was written", Vec::new());
                }
                Ok(bytes) => found.bytes += bytes.len() as u64,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => found.unreadable(path, &error.to_string(), Vec::new()),
            }
        }
    }

    /// Moves what is known to be damaged to `damaged/`, so that what needs it is computed again by the next run; says how many files
    /// that were. Only for a store that was opened.
    pub fn set_damage_aside(&self, found: &Verified) -> usize {
        let damaged = found.damage.iter().filter(|damage| damage.known && exists(&damage.path));
        let moved = damaged.inspect(|damage| self.set_aside(&damage.path)).count();
        self.flush();
        moved
    }
}

impl Verified {
    fn damaged(&mut self, path: PathBuf, what: &str, hits: Vec<String>) {
        self.damage.push(Damage { path, what: what.to_owned(), known: true, hits });
    }

    fn unreadable(&mut self, path: PathBuf, error: &str, hits: Vec<String>) {
        self.damage.push(Damage { path, what: format!("it cannot be read: {error}"), known: false, hits });
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn names(of: &[&Manifest]) -> Vec<String> {
    of.iter().map(|manifest| format!("{}: {}", manifest.pipeline, manifest.instance)).collect()
}
