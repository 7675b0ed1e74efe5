//! `hf:` in parameters: files of the Hugging Face Hub, from its cache, and fetched into it where that is allowed.
//!
//! A stage says which files it reads before anything runs, since their contents are in its key. So downloads happen there,
//! and only in a command that means to run the pipeline.

use std::path::PathBuf;
use std::sync::OnceLock;

use palinode_engine::{ErrorKind, FieldError};
use palinode_hub::{Hub, HubError, Progress, Reference, Snapshot};

/// Hears how a download goes, by the reference that is fetched, and says whether to go on.
pub type Watch = dyn Fn(&Reference, Progress<'_>) -> bool + Send + Sync;

/// Whether files may be fetched, and who hears of it: one answer for the whole process, as the network is.
static DOWNLOADS: OnceLock<Box<Watch>> = OnceLock::new();

/// Allows downloads from now on in this process.
pub fn allow_downloads(watch: Box<Watch>) {
    // A second answer would be the same one.
    let _ = DOWNLOADS.set(watch);
}

/// The folder of a model, if `path` refers to one of the Hub.
pub fn model(field: &str, path: &str) -> Result<Option<PathBuf>, FieldError> {
    Ok(snapshot(field, path)?.map(|snapshot| snapshot.folder))
}

/// The files of a data set, if `path` refers to one of the Hub.
pub fn data(field: &str, path: &str) -> Result<Option<Vec<PathBuf>>, FieldError> {
    match snapshot(field, path)? {
        Some(snapshot) => Ok(Some(snapshot.files)),
        None => Ok(None),
    }
}

/// The commit that a reference stands for in the cache: what a branch was when it was last fetched.
pub fn commit(path: &str) -> Option<String> {
    let reference = Reference::parse(path)?.ok()?;
    Some(Hub::from_env().cached(&reference)?.commit)
}

fn snapshot(field: &str, path: &str) -> Result<Option<Snapshot>, FieldError> {
    let Some(reference) = Reference::parse(path) else { return Ok(None) };
    let told = |error: HubError| {
        let mut made = FieldError::new(field, error.message);
        made.kind = ErrorKind::Input;
        made.hint = error.hint;
        made
    };
    let reference = reference.map_err(told)?;
    let hub = Hub::from_env();
    if let Some(snapshot) = hub.cached(&reference) {
        return Ok(Some(snapshot));
    }
    match DOWNLOADS.get() {
        Some(watch) => hub.fetch(&reference, &mut |progress| watch(&reference, progress)).map(Some).map_err(told),
        None => Err(told(hub.absent(&reference)).hint("`palinode run` downloads it").absent()),
    }
}
