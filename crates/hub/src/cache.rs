//! The cache of `huggingface_hub`: `models--owner--name/{blobs,refs,snapshots}`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::listing::{File, INDEX, Listing, SINGLE};
use crate::{HubError, Kind, Reference};

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let failed = |error| HubError::io("write", path, &error);
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(failed)
}

/// One repository's folder in the cache.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new(cache: &Path, reference: &Reference) -> Self {
        Self { path: cache.join(reference.folder()) }
    }

    /// The commit that a revision was when it was last asked for.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.path.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers what a revision is, and what the commit holds.
    pub fn remember(&self, revision: &str, listing: &Listing) -> Result<(), HubError> {
        let json = serde_json::to_vec(listing).map_err(|error| HubError::new(error.to_string()))?;
        write(&self.listing_path(&listing.sha), &json)?;
        if is_commit(revision) { Ok(()) } else { write(&self.path.join("refs").join(revision), listing.sha.as_bytes()) }
    }

    /// What a commit holds: as it was told, or else what of it is here.
    pub fn listing(&self, commit: &str) -> Option<(Listing, bool)> {
        let told = fs::read(self.listing_path(commit)).ok().and_then(|json| serde_json::from_slice(&json).ok());
        if let Some(listing) = told {
            return Some((listing, true));
        }
        let snapshot = self.snapshot(commit);
        let mut siblings = Vec::new();
        names(&snapshot, &snapshot, &mut siblings);
        (!siblings.is_empty()).then(|| (Listing { sha: commit.to_owned(), siblings }, false))
    }

    fn listing_path(&self, commit: &str) -> PathBuf {
        self.path.join("listings").join(format!("{commit}.json"))
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// Where contents of this name lie.
    pub fn blob(&self, name: &str) -> PathBuf {
        self.path.join("blobs").join(name)
    }

    /// Makes a blob the snapshot's file.
    pub fn link(&self, commit: &str, file: &File, blob: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(&file.rfilename);
        let failed = |error| HubError::io("write", &path, &error);
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(failed)?;
        let up = "../".repeat(2 + file.rfilename.matches('/').count());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), &path).map_err(failed)
    }

    /// Whether all files are here. Where the repository's own list is not known, a model must have all its shards.
    pub fn is_whole(&self, reference: &Reference, listing: &Listing, files: &[File]) -> bool {
        let snapshot = self.snapshot(&listing.sha);
        let here = |name: &str| snapshot.join(name).is_file();
        let weights = || {
            let index = || -> Option<bool> {
                let index: serde_json::Value = serde_json::from_slice(&fs::read(snapshot.join(INDEX)).ok()?).ok()?;
                let shards = index["weight_map"].as_object()?;
                Some(shards.values().all(|shard| shard.as_str().is_some_and(here)))
            };
            here(SINGLE) || index().unwrap_or(false)
        };
        files.iter().all(|file| here(&file.rfilename))
            && (reference.kind == Kind::Dataset || (here("config.json") && here("tokenizer.json") && weights()))
    }
}

/// Whether a revision is a commit, which never changes.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn names(root: &Path, folder: &Path, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names(root, &path, found);
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str)
            && path.is_file()
        {
            found.push(File::named(name));
        }
    }
}
