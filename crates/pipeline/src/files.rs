//! The files around a pipeline, as the loader sees them: what it includes, and whether what its stages name is there.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::diagnostic::read_text;

/// What the loader asks of a file system. It knows no other way to a file, so that a pipeline can be checked against files that
/// lie in memory or elsewhere. What stages themselves look at is up to them.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// When it is not there, or is no text.
    fn text(&self, path: &Path) -> io::Result<String>;

    /// Whether there is a file here, `true`, or a folder, `false`.
    ///
    /// # Errors
    /// When there is neither, or it cannot be looked at.
    fn is_file(&self, path: &Path) -> io::Result<bool>;

    /// Which file it is, whatever it is called: one path for each file.
    fn identity(&self, path: &Path) -> PathBuf;

    /// Where a full path really leads, whether or not there is anything yet: links are followed as far as the path is there, and `..` is
    /// taken after them.
    fn place(&self, path: &Path) -> PathBuf {
        let mut place = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(place.pop()),
                Component::CurDir => {}
                part => {
                    place.push(part);
                    place = self.identity(&place);
                }
            }
        }
        place
    }

    /// The names of what lies in a folder; none where that cannot be looked at.
    fn names(&self, folder: &Path) -> Vec<String>;
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn text(&self, path: &Path) -> io::Result<String> {
        read_text(path)
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        fs::metadata(path).map(|metadata| !metadata.is_dir())
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn names(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}
