//! Damaged files, moved aside.
//!
//! What was read whole and is not what its name says is damaged, and nothing else is: a file that cannot be read, since a permission is
//! lacking or a disk failed for a moment, may be as good as ever. A damaged file is moved to `damaged/`, where nothing looks for it, so that
//! what needs it is made again and a person can still look at it. `cache gc` removes what lies there.

use std::fs;
use std::path::{Path, PathBuf};

use super::Store;
use super::index::Table;
use palinode_error::now_ms;

/// The folder's name in the store's.
pub const FOLDER: &str = "damaged";

impl Store {
    /// Moves a damaged file aside; it stays where it is when that cannot be done.
    pub(super) fn set_aside(&self, path: &Path) {
        let folder = self.root.join(FOLDER);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let free = |at: u64| folder.join(format!("{name}.{at}"));
        let now = now_ms();
        let to = (now..now + 1000).map(free).find(|to| !to.exists());
        let moved = self.shared.folder(&folder).and_then(|()| to.map_or(Ok(()), |to| fs::rename(path, to)));
        if let Err(error) = moved
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot move a damaged file aside");
        }
        if let Some(index) = &self.index {
            index.remove(Table::Stats, path.as_os_str().as_encoded_bytes());
        }
    }

    /// What was moved aside.
    pub(super) fn damaged_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(FOLDER)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }
}
