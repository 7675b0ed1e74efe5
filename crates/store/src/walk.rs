//! Files that lie two levels down, `folder/ab/name`, folder by folder and by several threads.
//!
//! A store of a lab's size has a hundred thousand results. Nearly all of the time goes into the system's calls for each file, which threads
//! make side by side; and what is made of a file is small, so that a listing never has all files in memory.

use std::fs;
use std::io;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Threads at the same time, at most.
const MOST_THREADS: usize = 8;

/// Folders that are worth a thread.
const LEAST_FOLDERS: usize = 48;

/// What was made of files, in the order of their paths.
pub(super) struct Walked<T> {
    pub found: Vec<T>,
    /// Folders that cannot be read, and why.
    pub unread: Vec<(PathBuf, String)>,
}

impl<T> Default for Walked<T> {
    fn default() -> Self {
        Self { found: Vec::new(), unread: Vec::new() }
    }
}

/// What `make` makes of every file in the folders of `folder`.
pub(super) fn walk<T: Send>(folder: &Path, make: impl Fn(PathBuf) -> T + Sync) -> Walked<T> {
    let mut walked = Walked::default();
    let mut folders = entries(folder, &mut walked.unread);
    folders.retain(|path| path.is_dir());
    let next = AtomicUsize::new(0);
    // Each thread takes the next folder, so that one that the system does not start leaves nothing undone.
    let work = || {
        let mut done = Vec::new();
        while let Some((at, folder)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            folders.get(at).map(|folder| (at, folder))
        } {
            let mut one = Walked::default();
            one.found = entries(folder, &mut one.unread).into_iter().map(&make).collect();
            done.push((at, one));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let threads = threads.min(folders.len() / LEAST_FOLDERS);
    let mut done = thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut done = work();
        done.extend(others.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))));
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    for (_, one) in done {
        walked.found.extend(one.found);
        walked.unread.extend(one.unread);
    }
    walked
}

/// What is in a folder, sorted. One that is not there is empty.
fn entries(folder: &Path, unread: &mut Vec<(PathBuf, String)>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => found.push(entry.path()),
                    Err(error) => unread.push((folder.to_owned(), error.to_string())),
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => unread.push((folder.to_owned(), error.to_string())),
    }
    found.sort_unstable();
    found
}

/// Bytes of a file, or of all files in a folder and below.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::metadata(path) else { return 0 };
    if metadata.is_dir() { bytes_in(path) } else { metadata.len() }
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
            // A link counts as what it leads to.
            Ok(kind) if kind.is_symlink() => bytes_below(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut expect = Vec::new();
        for number in 0..4 * LEAST_FOLDERS {
            let inner = folder.path().join(format!("{number:03}"));
            fs::create_dir(&inner).unwrap();
            for name in ["a", "b"].iter().take(number % 3) {
                fs::write(inner.join(name), [0; 3]).unwrap();
                expect.push(inner.join(name));
            }
        }
        fs::write(folder.path().join("beside"), [0; 5]).unwrap();
        let walked = walk(folder.path(), |path| path);
        assert_eq!((walked.found, walked.unread), (expect.clone(), Vec::new()));
        assert_eq!(bytes_below(folder.path()), 3 * expect.len() as u64 + 5);
        assert_eq!(bytes_below(&expect[0]), 3);
        let missing = walk(&folder.path().join("c"), |path| path);
        assert!(missing.found.is_empty() && missing.unread.is_empty());
    }
}
