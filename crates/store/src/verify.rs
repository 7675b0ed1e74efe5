//! Reading everything in the store again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::gc::contents;
use super::manifests::Survey;
use super::units::body;
use super::walk::walk;
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

/// What there is to know of a result.
struct Known {
    made_for: String,
    finished_ms: u64,
    contents: BTreeSet<Digest>,
    /// What its stage read from outside.
    outside: Vec<Digest>,
}

impl Known {
    fn of(manifest: Manifest) -> Self {
        Self {
            made_for: manifest.made_for(),
            finished_ms: manifest.finished_ms,
            contents: contents(&manifest),
            outside: manifest.fingerprint.files.into_values().collect(),
        }
    }
}

/// Which results have a blob.
type Users<'a> = BTreeMap<Digest, Vec<&'a Known>>;

/// What was read in the place of a blob.
struct Seen {
    path: PathBuf,
    /// What its name says.
    name: Option<Digest>,
    /// What it holds; nothing where it is a folder.
    file: Option<io::Result<FileRef>>,
}

impl Store {
    /// Reads every blob, manifest and partial result and compares it with its name; what results lack is damage as well. Changes nothing:
    /// see [`Store::set_damage_aside`].
    pub fn verify(&self) -> Verified {
        let Survey { mut whole, later, damaged, unread } = self.survey(|manifest, _| Known::of(manifest));
        whole.sort_by_key(|known| known.finished_ms);
        let mut found = Verified { manifests: whole.len() + later.len() + damaged.len(), ..Verified::default() };
        for path in damaged {
            found.damaged(path, "it does not belong to its key", Vec::new());
        }
        for (path, error) in unread {
            found.unreadable(path, &error, Vec::new());
        }
        let mut users: Users<'_> = BTreeMap::new();
        for known in &whole {
            for digest in &known.contents {
                users.entry(*digest).or_default().push(known);
            }
        }
        let there = self.verify_blobs(&users, &mut found);
        // What a stage read from outside may be a result's file as well, and then is no blob: a model's weights.
        let outside: BTreeSet<&Digest> = whole.iter().flat_map(|known| &known.outside).collect();
        for (digest, of) in users.iter().filter(|(digest, _)| !there.contains(digest) && !outside.contains(*digest)) {
            found.damaged(self.blob_path(digest), "it is missing", names(of));
        }
        self.verify_units(&mut found);
        found
    }

    /// Blobs that are there, whole or not.
    fn verify_blobs(&self, users: &Users<'_>, found: &mut Verified) -> BTreeSet<Digest> {
        let mut there = BTreeSet::new();
        let read = walk(&self.root.join("blobs"), |path| {
            let name = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let file = (name.is_some() && !path.is_dir()).then(|| FileRef::of_file(&path));
            Seen { path, name, file }
        });
        for (path, error) in read.unread {
            found.unreadable(path, &error, Vec::new());
        }
        for Seen { path, name, file } in read.found {
            found.blobs += 1;
            let Some(name) = name else {
                found.damaged(path, "its name is not a digest", Vec::new());
                continue;
            };
            there.insert(name);
            let hits = || users.get(&name).map(|of| names(of)).unwrap_or_default();
            match file {
                None => found.damaged(path, "it is a folder", hits()),
                Some(Err(error)) => found.unreadable(path, &error.to_string(), hits()),
                Some(Ok(file)) if file.digest != name => {
                    found.damaged(path, &format!("its contents are {}", file.digest.short()), hits());
                }
                Some(Ok(file)) => found.bytes += file.size,
            }
        }
        there
    }

    fn verify_units(&self, found: &mut Verified) {
        let read = walk(&self.root.join("units"), |path| {
            let read = fs::read(&path).map(|bytes| body(&bytes).map(|_| bytes.len() as u64));
            (path, read)
        });
        for (path, read) in read.found {
            match read {
                Ok(None) => found.damaged(path, "it is not the partial result that was written", Vec::new()),
                Ok(Some(bytes)) => found.bytes += bytes,
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

fn names(of: &[&Known]) -> Vec<String> {
    of.iter().map(|known| known.made_for.clone()).collect()
}
