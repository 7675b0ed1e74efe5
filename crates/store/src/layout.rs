//! Where things lie in the folder of a store.

use std::path::{Path, PathBuf};

/// The folders of a store.
pub const FOLDERS: [&str; 5] = ["blobs", "actions", "units", "runs", "tmp"];

/// `folder/ab/abcdef…` for a hexadecimal name: keeps folders small.
pub fn fan_out(folder: &Path, name: &str) -> PathBuf {
    folder.join(&name[..2]).join(name)
}
