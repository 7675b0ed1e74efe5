//! What else can be seen of runs without opening the store: results, what a run was asked to do, how far its stages are.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{RESOLVED, ResolvedPipeline, RunRecord, Runs};
use crate::event::Event;
use palinode_fingerprint::{Digest, Key};
use palinode_store::{Holder, Manifest, blob_file};

/// Units of work counted so far in a stage that is at work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Count {
    /// The stage instance.
    pub instance: String,
    /// What is counted.
    pub what: String,
    /// How many are done.
    pub done: u64,
    /// How many there are, where known.
    pub total: Option<u64>,
    /// A short remark.
    pub note: String,
    /// When counting began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it was last told.
    pub at_ms: u64,
}

impl Runs {
    /// The store's folder.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Whether there is a store at all.
    pub fn store_exists(&self) -> bool {
        self.store.join("actions").is_dir()
    }

    /// The process that had the store open when this was asked for, if one had.
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// The record of the run of exactly this name; `None` where there is none that reads, and for what cannot be a run's name.
    pub fn record(&self, run: &str) -> Option<RunRecord> {
        if crate::runid::is_one(run) { self.read(run) } else { None }
    }

    /// The record of a finished action, if it is still in the store.
    pub fn manifest(&self, key: &Key) -> Option<Manifest> {
        Manifest::find(&self.store, key)
    }

    /// Where contents lie if they are in the store.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_file(&self.store, digest)
    }

    /// The pipeline of a run as it was when it ran.
    pub fn resolved(&self, run: &str) -> Option<ResolvedPipeline> {
        ResolvedPipeline::read(&fs::read_to_string(self.dir(run).join(RESOLVED)).ok()?)
    }

    /// What a run warned of.
    pub fn warnings(&self, run: &str) -> Vec<String> {
        self.events(run).iter().filter_map(|(_, event)| event.warning_line()).collect()
    }

    /// The counts of a run that have not ended, those begun first before those within them.
    pub fn counts(&self, run: &str) -> Vec<Count> {
        let mut counts: Vec<Count> = Vec::new();
        for (at_ms, event) in self.events(run) {
            match event {
                Event::ProgressStarted { instance, what, total } => {
                    counts.retain(|count| (&count.instance, &count.what) != (&instance, &what));
                    let (note, started_ms) = (String::new(), at_ms);
                    counts.push(Count { instance, what, done: 0, total, note, started_ms, at_ms });
                }
                Event::Progress { instance, what, done, note, .. } => {
                    let known = counts.iter_mut().find(|count| count.instance == instance && count.what == what);
                    if let Some(count) = known {
                        (count.done, count.note, count.at_ms) = (done, note, at_ms);
                    }
                }
                Event::ProgressEnded { instance, what, .. } => {
                    counts.retain(|count| (&count.instance, &count.what) != (&instance, &what));
                }
                Event::StageFinished { instance, .. } => counts.retain(|count| count.instance != instance),
                _ => {}
            }
        }
        counts
    }
}
