//! What an index would remember, for those who have none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stat::Known;

/// What is known of files where there is no index to remember it.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<PathBuf, Known>>);

impl Memory {
    pub fn get(&self, path: &Path) -> Option<Known> {
        self.all().get(path).copied()
    }

    pub fn put(&self, path: &Path, known: Known) {
        self.all().insert(path.to_owned(), known);
    }

    pub fn all(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
