//! What runs mean to a store: results that a run used are not old, a run can be pinned, and its records travel with its results.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use palinode_error::StageError;
use palinode_fingerprint::Key;
use palinode_store::{Companion, Companions, Garbage, LastUsed, Pin, Retention, Store};
use serde::Serialize;

use crate::runs::{RECORD, RunRecord, Runs};

/// What was written into an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Results.
    pub results: usize,
    /// Contents of them.
    pub contents: usize,
    /// Contents of them that lie outside the store, such as model files: they are not in the archive.
    pub outside: usize,
    /// Records of runs.
    pub runs: usize,
    /// Bytes of the archive.
    pub bytes: u64,
}

/// What was taken from an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Results that are new here.
    pub results: usize,
    /// Results that were here already.
    pub known: usize,
    /// Contents that are new here.
    pub contents: usize,
    /// Records of runs that are new here.
    pub runs: usize,
    /// Bytes of new contents.
    pub bytes: u64,
}

/// What garbage collection would remove: see [`Store::garbage`]. A result was last used by the latest run that made or used it.
pub fn garbage(store: &Store, retention: &Retention) -> Garbage {
    store.garbage(retention, &last_used(store))
}

/// Removes garbage: see [`Store::collect`].
///
/// # Errors
/// As [`Store::collect`].
pub fn collect(store: &Store, retention: &Retention) -> Result<Garbage, StageError> {
    store.collect(retention, &last_used(store))
}

/// Keeps all results of a run, or one result. `which` names a run as [`Runs::open`] takes it, or is the beginning of a key.
///
/// # Errors
/// When there is no such run or result, or several, or the store cannot be written.
pub fn pin(store: &Store, which: &str) -> Result<Pin, StageError> {
    if let Some(manifest) = store.by_key(which)? {
        let what = format!("{}: {}", manifest.pipeline, manifest.instance);
        return store.pin(&manifest.key.to_string(), &what, BTreeSet::from([manifest.key]));
    }
    let run = Runs::of(store.root()).open(which)?;
    store.pin(&run.run, &run.pipeline, keys(&run).collect())
}

/// Writes results with their contents, and the records of runs, into a new archive: of these runs, or everything.
///
/// # Errors
/// When there is no such run, the file is there already or cannot be written, or contents are damaged.
pub fn export(store: &Store, which: &[String], to: &Path) -> Result<Exported, StageError> {
    let all = Runs::of(store.root());
    let runs = match which {
        [] => all.list(),
        some => some.iter().map(|which| all.open(which)).collect::<Result<Vec<_>, _>>()?,
    };
    let some = !runs.is_empty() && runs.len() < all.names().len();
    let used: Option<BTreeSet<Key>> = some.then(|| runs.iter().flat_map(keys).collect());
    let mut companions = Vec::new();
    for run in &runs {
        let dir = all.dir(&run.run);
        for path in files_of(&dir) {
            let inside = path.strip_prefix(&dir).unwrap_or(&path).to_string_lossy().into_owned();
            companions.push(Companion { name: format!("runs/{}/{inside}", run.run), path });
        }
    }
    let packed = store.export(used.as_ref(), &companions, to)?;
    Ok(Exported {
        results: packed.results,
        contents: packed.contents,
        outside: packed.outside,
        runs: runs.len(),
        bytes: packed.bytes,
    })
}

/// Takes everything in an archive that is not here yet.
///
/// # Errors
/// As [`Store::import`]; when the record of a run is not one.
pub fn import(store: &Store, from: &Path) -> Result<Imported, StageError> {
    let taken = store.import(from, &Records { runs: Runs::of(store.root()) })?;
    let runs = taken.companions.iter().filter(|name| parts(name).is_some_and(|(_, inside)| inside == RECORD)).count();
    Ok(Imported { results: taken.results, known: taken.known, contents: taken.contents, runs, bytes: taken.bytes })
}

/// The records of runs in an archive, beside those that are here.
struct Records {
    runs: Runs,
}

impl Companions for Records {
    /// The files of runs that are not here. The record comes last: a run is there once that is.
    fn wanted(&self, names: &[&str]) -> Vec<usize> {
        let is_new = |run: &str| !self.runs.dir(run).join(RECORD).exists();
        let new = |at: &usize| parts(names[*at]).is_some_and(|(run, _)| is_new(run));
        let is_record = |at: &usize| parts(names[*at]).is_some_and(|(_, inside)| inside == RECORD);
        let (records, others): (Vec<usize>, Vec<usize>) = (0..names.len()).filter(new).partition(is_record);
        [others, records].concat()
    }

    fn check(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        match parts(name) {
            Some((run, RECORD)) if RunRecord::read(bytes).is_none_or(|record| record.run != run) => {
                Err(format!("the record of run {run} does not read"))
            }
            _ => Ok(()),
        }
    }
}

/// A run and a file in its folder.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.split_once('/')
}

fn keys(run: &RunRecord) -> impl Iterator<Item = Key> {
    run.stages.iter().filter_map(|stage| stage.key)
}

/// When runs last made or used each result.
fn last_used(store: &Store) -> LastUsed {
    let mut used = LastUsed::new();
    for run in Runs::of(store.root()).list() {
        let at = run.finished_ms.unwrap_or(run.started_ms);
        for key in keys(&run) {
            used.entry(key).and_modify(|known| *known = at.max(*known)).or_insert(at);
        }
    }
    used
}

/// All files below a folder.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() { files.extend(files_of(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
