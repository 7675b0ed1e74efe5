//! Whether the files that a stage reads stay what its key says.
//!
//! A key covers the digest of a file, and the stage reads the file by its path, often for hours. Whoever writes to the file meanwhile makes
//! a result of contents that no key stands for. So a stage's files are looked at when it begins, and again before anything of it is kept:
//! a result, a unit, a file that it publishes. What counts is the file's identity, size and times, since contents that are the same at the
//! end may have been others in between. Where the clock of the file system is too coarse to show a change, contents are read again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::FileRef;
use palinode_store::{Stat, Store};

/// A file as it was when it was first looked at, and the contents that keys stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    stat: Stat,
    file: FileRef,
}

impl Seen {
    /// A file that has to have these contents.
    pub fn of(store: &Store, path: &Path, file: FileRef) -> Result<Self, Error> {
        // What it looks like comes first: whatever changes it from now on shows.
        let stat = Stat::outside(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
        let found = store.digest_of(path, &|_, _| ())?;
        if found == file { Ok(Self { stat, file }) } else { Err(planned(path)) }
    }

    /// Whether the file looks as it did. It may have been changed within a tick of the clock; see [`Seen::change`].
    fn looks_same(&self, path: &Path) -> bool {
        Stat::outside(path).is_ok_and(|now| self.stat.is_still(&now))
    }

    fn change(&self, store: &Store, path: &Path) -> Option<Change> {
        if self.looks_same(path) {
            let whole = store.digest_of(path, &|_, _| ()).is_ok_and(|found| found == self.file);
            return (!whole).then(|| Change::Contents(path.to_owned()));
        }
        // Whoever wrote to it may not be done.
        let length = std::fs::metadata(path).map(|metadata| metadata.len());
        let whole = length.is_ok_and(|length| length == self.file.size)
            && FileRef::of_file(path).is_ok_and(|found| found == self.file);
        Some(if whole { Change::Written(path.to_owned()) } else { Change::Contents(path.to_owned()) })
    }
}

/// What became of a file that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It holds what it did, but was written or replaced: what was read in between is not known.
    Written(PathBuf),
    /// It holds something else, or is gone.
    Contents(PathBuf),
}

impl Change {
    /// Why nothing is kept of what `instance` computed since.
    pub fn error(&self, instance: &str) -> Error {
        match self {
            Self::Written(path) => changed(&format!("{} was written while `{instance}` read it", path.display())),
            Self::Contents(path) => changed(&format!("{} changed while `{instance}` read it", path.display())),
        }
    }
}

/// The files of one attempt.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Seen>,
    /// The files in the order in which they were asked for.
    asked: Vec<PathBuf>,
}

/// Files that something in memory was made from, as they were then.
pub(crate) type Sources = Vec<(PathBuf, Seen)>;

/// Whether something in memory is still of the files that it was made from.
pub(crate) fn is_of(sources: &Sources) -> bool {
    sources.iter().all(|(path, seen)| seen.looks_same(path))
}

impl Watch {
    /// Of the files that a stage says it reads.
    ///
    /// # Errors
    /// When one is not what the key says any more.
    pub fn begin<'a>(store: &Store, files: impl Iterator<Item = &'a (FileRef, PathBuf)>) -> Result<Self, Error> {
        let watch = Self::default();
        for (file, path) in files {
            let seen = Seen::of(store, path, *file)?;
            watch.state().files.insert(path.clone(), seen);
        }
        Ok(watch)
    }

    /// A file is about to be read.
    pub fn ask(&self, store: &Store, path: &Path, file: FileRef) -> Result<(), Error> {
        let known = self.state().files.contains_key(path);
        if !known {
            let seen = Seen::of(store, path, file)?;
            self.state().files.entry(path.to_owned()).or_insert(seen);
        }
        self.state().asked.push(path.to_owned());
        Ok(())
    }

    /// How many files were asked for so far; for [`Watch::since`].
    pub fn mark(&self) -> usize {
        self.state().asked.len()
    }

    /// The files that were asked for since.
    pub fn since(&self, mark: usize) -> Sources {
        let state = self.state();
        let asked = state.asked.iter().skip(mark);
        let mut sources: Sources = asked.filter_map(|path| Some((path.clone(), *state.files.get(path)?))).collect();
        sources.sort_by(|a, b| a.0.cmp(&b.0));
        sources.dedup_by(|a, b| a.0 == b.0);
        sources
    }

    /// What this attempt uses was made from these files: that they change counts from then on.
    pub fn adopt(&self, sources: &Sources) {
        let mut state = self.state();
        for (path, seen) in sources {
            state.files.insert(path.clone(), *seen);
        }
    }

    /// The first file that is not as it was.
    pub fn change(&self, store: &Store) -> Option<Change> {
        // Looking takes as long as the disk does; nobody is kept from asking for files meanwhile.
        let files: Sources = self.state().files.iter().map(|(path, seen)| (path.clone(), *seen)).collect();
        files.iter().find_map(|(path, seen)| seen.change(store, path))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file is not what a key stands for, which was made before.
pub(crate) fn planned(path: &Path) -> Error {
    changed(&format!("{} changed after the run had looked at it", path.display()))
}

fn changed(message: &str) -> Error {
    Error::new(ErrorKind::Changed, format!("{message}: nothing is kept of what was computed from it since"))
        .hint("run again when no program writes to it any more; what was finished before is still there")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    type Act<'a> = &'a dyn Fn(&Path);

    #[test]
    fn every_change_shows_one_that_was_undone_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let path = folder.path().join("in");
        let file = FileRef::of(b"one");
        let (written, contents) = (Change::Written(path.clone()), Change::Contents(path.clone()));
        let undo = |path: &Path| {
            let kept = path.with_extension("kept");
            fs::rename(path, &kept).unwrap();
            fs::write(path, "two").unwrap();
            fs::remove_file(path).unwrap();
            fs::rename(&kept, path).unwrap();
        };
        let cases: [(Act<'_>, Option<&Change>); 6] = [
            (&|_| (), None),
            (&|path| fs::write(path, "two").unwrap(), Some(&contents)),
            (&|path| fs::write(path, "longer").unwrap(), Some(&contents)),
            (&|path| fs::remove_file(path).unwrap(), Some(&contents)),
            // Another file in its place, of the same contents.
            (
                &|path| {
                    fs::write(path.with_extension("new"), "one").unwrap();
                    fs::rename(path.with_extension("new"), path).unwrap();
                },
                Some(&written),
            ),
            (&undo, Some(&written)),
        ];
        for (number, (act, expect)) in cases.into_iter().enumerate() {
            fs::write(&path, "one").unwrap();
            let watch = Watch::begin(&store, [(file, path.clone())].iter()).unwrap();
            act(&path);
            let found = watch.change(&store);
            // A file that is renamed away and back within a tick of the clock is the one that it was.
            assert!(found.as_ref() == expect || number == 5 && found.is_none(), "case {number}: {found:?}");
        }
        fs::write(&path, "two").unwrap();
        assert_eq!(Watch::begin(&store, [(file, path.clone())].iter()).err().unwrap().kind, ErrorKind::Changed);
    }
}
