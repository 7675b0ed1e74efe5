//! What runs mean to a store: results that a run used are not old, a run can be pinned, and its records travel with its results.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use palinode_error::{Error, now_ms};
use palinode_fingerprint::Key;
use palinode_store::{Companion, Companions, Garbage, Holder, Pin, Retention, Roots, Store};
use serde::Serialize;

use crate::runid;
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

/// Which records of runs are to be kept. Records of pinned runs always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunRetention {
    /// So many of the latest.
    pub latest: Option<usize>,
    /// Those that are no older than this.
    pub newer_than: Option<Duration>,
}

/// What garbage collection would remove: see [`Store::garbage`]. A result was last used by the latest run that made or used it.
pub fn garbage(store: &Store, retention: &Retention, runs: &RunRetention) -> Garbage {
    store.garbage(retention, &roots(store, runs))
}

/// Removes garbage: see [`Store::collect`].
///
/// # Errors
/// As [`Store::collect`].
pub fn collect(store: &Store, retention: &Retention, runs: &RunRetention) -> Result<Garbage, Error> {
    store.collect(retention, &roots(store, runs))
}

/// Keeps all results of a run, or one result. `which` names a run as [`Runs::open`] takes it, or is the beginning of a key.
///
/// # Errors
/// When there is no such run or result, or several, or the store cannot be written.
pub fn pin(store: &Store, which: &str) -> Result<Pin, Error> {
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
pub fn export(store: &Store, which: &[String], to: &Path) -> Result<Exported, Error> {
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
pub fn import(store: &Store, from: &Path) -> Result<Imported, Error> {
    let taken = store.import(from, &Records { runs: Runs::of(store.root()) })?;
    let runs = taken.companions.iter().filter(|name| parts(name).is_some_and(|(_, inside)| inside == RECORD)).count();
    Ok(Imported { results: taken.results, known: taken.known, contents: taken.contents, runs, bytes: taken.bytes })
}

/// Clocks differ.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The records of runs in an archive, beside those that are here.
struct Records {
    runs: Runs,
}

impl Companions for Records {
    /// The files of runs that are not here and of which the archive has a record. The record comes last: a run is there once that is.
    fn wanted(&self, names: &[&str]) -> Vec<usize> {
        let recorded: BTreeSet<&str> = names
            .iter()
            .filter_map(|name| parts(name))
            .filter(|(_, inside)| *inside == RECORD)
            .map(|(run, _)| run)
            .collect();
        let is_new =
            |run: &str| runid::is_one(run) && recorded.contains(run) && !self.runs.dir(run).join(RECORD).exists();
        let new = |at: &usize| parts(names[*at]).is_some_and(|(run, _)| is_new(run));
        let is_record = |at: &usize| parts(names[*at]).is_some_and(|(_, inside)| inside == RECORD);
        let (records, others): (Vec<usize>, Vec<usize>) = (0..names.len()).filter(new).partition(is_record);
        [others, records].concat()
    }

    fn check(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let Some((run, RECORD)) = parts(name) else { return Ok(()) };
        match RunRecord::read(bytes) {
            // A run of the future would be the latest one for ever.
            Some(record) if record.run == run && record.started_ms > now_ms() + DAY_MS => {
                Err(format!("run {run} began in the future"))
            }
            Some(record) if record.run == run => Ok(()),
            _ => Err(format!("the record of run {run} does not read")),
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

/// What runs know of a store's files: when they last made or used each result, and which of their own records are to go. A folder without
/// a record, left by a run or an import that was killed before it wrote one, is of no use to anyone; the run that holds the store is left
/// alone.
fn roots(store: &Store, retention: &RunRetention) -> Roots {
    let all = Runs::of(store.root());
    let mut roots = Roots::default();
    let current = Holder::of(store.root()).and_then(|holder| holder.run);
    let pinned: BTreeSet<String> = store.pins().into_iter().map(|pin| pin.name).collect();
    let oldest =
        retention.newer_than.map(|span| now_ms().saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    for (number, run) in all.used().enumerate() {
        let at = run.finished_ms.unwrap_or(run.started_ms);
        for key in run.keys {
            roots.used.entry(key).and_modify(|known| *known = at.max(*known)).or_insert(at);
        }
        let old = retention.latest.is_some_and(|latest| number >= latest)
            || oldest.is_some_and(|oldest| run.started_ms < oldest);
        if old && !pinned.contains(&run.run) && current.as_ref() != Some(&run.run) {
            roots.orphans.push(all.dir(&run.run));
        }
    }
    for path in fs::read_dir(store.root().join("runs")).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A record that cannot be read may be sound.
        let unrecorded =
            fs::symlink_metadata(path.join(RECORD)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if unrecorded && current.as_ref() != Some(&name) {
            roots.orphans.push(path);
        }
    }
    roots
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
