//! Runs that were, and the one that is: read from what they wrote down, without the store's lock, so that anyone can look
//! while a run goes on.

mod find;
mod past;
mod resolved;

use std::fs;
use std::path::{Path, PathBuf};

pub use past::{PastCount, PastRun, PastStage, PastState};
pub use resolved::{ResolvedPipeline, ResolvedStage};

use crate::digest::{Digest, Key};
use crate::store::{Holder, Manifest, blob_file, holder};

/// The runs of a store.
pub struct History {
    root: PathBuf,
}

impl History {
    /// The runs of the store in this folder; none when there is no store.
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether there is a store at all.
    pub fn exists(&self) -> bool {
        self.root.join("actions").is_dir()
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a run.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.join("runs").join(id)
    }

    /// Where contents lie if they are in the store.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_file(&self.root, digest)
    }

    /// The process that has the store open, if one has.
    pub fn holder(&self) -> Option<Holder> {
        holder(&self.root)
    }

    /// The ids of all runs, newest first.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("runs")).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    /// A run, if it wrote anything down.
    pub fn run(&self, id: &str) -> Option<PastRun> {
        PastRun::read(id, &self.dir(id))
    }

    /// The record of a finished action, if it is still in the store.
    pub fn manifest(&self, key: &Key) -> Option<Manifest> {
        let bytes = fs::read(Manifest::path(&self.root, key)).ok()?;
        Manifest::read(&bytes).filter(|manifest| manifest.key == *key)
    }

    /// The pipeline of a run as it was when it ran, with all values filled in.
    pub fn pipeline(&self, id: &str) -> Option<ResolvedPipeline> {
        ResolvedPipeline::read(&fs::read_to_string(self.dir(id).join("pipeline.yaml")).ok()?)
    }
}
