//! Stopping a run from outside its process, from any machine that sees the store.

use std::fs;
use std::path::Path;

use crate::executor::cancel_left;
use palinode_error::{Error, ErrorKind};

/// The file that says that a run is to stop.
const STOP: &str = "stop";

/// Has the run in this folder stop after the units that it is working on.
///
/// # Errors
/// When the folder cannot be written.
pub fn ask_to_stop(dir: &Path) -> Result<(), Error> {
    let path = dir.join(STOP);
    fs::write(&path, "").map_err(|error| Error::io(ErrorKind::Store, "write", &path, error))
}

/// Whether the run in this folder is to stop.
pub(crate) fn is_asked(dir: &Path) -> bool {
    dir.join(STOP).exists()
}

/// Cancels the jobs in a cluster that a run left, whose process is gone; how many they are.
///
/// # Errors
/// When the cluster does not answer.
pub fn cancel_jobs(store: &Path, run: &str) -> Result<usize, Error> {
    cancel_left(store, run)
}
