//! `hf:` in parameters: files of the Hugging Face Hub, from its cache.
//!
//! A stage says which files it reads before anything runs, since their contents are in its key. It looks for them in the cache alone. What
//! is not there is reported as something to fetch, and [`fetch`] brings it: a phase of its own, between the check of a pipeline and its
//! keys, in programs that mean to run the pipeline.

use std::path::PathBuf;

use palinode_engine::{Error, ErrorKind, FieldError, Hint};
use palinode_hub::{FORBIDDEN, Hub, HubError, Kind, Progress, Reference, Snapshot};

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

/// What can be done where the environment forbids downloads (`HF_HUB_OFFLINE`); `None` where it does not.
pub fn downloads_forbidden() -> Option<Hint> {
    Hub::from_env().is_offline().then(|| Hint::Say(FORBIDDEN.to_owned()))
}

/// An `hf:` reference with the commit that it stands for in the cache, in the place of a branch; `None` for any other text.
pub fn pinned(path: &str) -> Option<String> {
    let reference = Reference::parse(path)?.ok()?;
    let commit = Hub::from_env().cached(&reference)?.commit;
    let Reference { kind, repository, pattern, .. } = reference;
    let kind = if kind == Kind::Dataset { "datasets/" } else { "" };
    let pattern = pattern.map(|pattern| format!("/{pattern}")).unwrap_or_default();
    Some(format!("hf:{kind}{repository}@{commit}{pattern}"))
}

/// Brings what an `hf:` reference stands for into the cache. `watch` hears of progress and says whether to go on.
///
/// # Errors
/// Of kind input, where `HF_HUB_OFFLINE` forbids it, the Hub cannot be reached or does not give the files, or the cache cannot be written;
/// of kind interrupted, where `watch` says so.
pub fn fetch(reference: &str, watch: &mut dyn FnMut(Progress<'_>) -> bool) -> Result<(), Error> {
    let told = |error: HubError| {
        let made = Error::input(error.message);
        error.hint.into_iter().fold(made, Error::hint)
    };
    let none = || Error::input(format!("`{reference}` is not a valid Hub reference"));
    let parsed = Reference::parse(reference).ok_or_else(none)?.map_err(told)?;
    let mut stopped = false;
    let fetched = Hub::from_env().fetch(&parsed, &mut |progress| {
        stopped |= !watch(progress);
        !stopped
    });
    match fetched {
        Err(_) if stopped => Err(Error::interrupted()),
        fetched => fetched.map(drop).map_err(told),
    }
}

/// The folder of a model that is given by its folder or as `hf:owner/name`; `None` where it would have to be fetched first.
///
/// # Errors
/// Of kind input, for a text that begins with `hf:` and goes on wrong.
pub fn model_folder(path: &str) -> Result<Option<PathBuf>, Error> {
    match model("path", path) {
        Ok(folder) => Ok(Some(folder.unwrap_or_else(|| path.into()))),
        Err(error) if error.fetch.is_some() => Ok(None),
        Err(error) => {
            let made = Error::new(error.kind, error.message);
            Err(error.hint.into_iter().fold(made, Error::hint))
        }
    }
}

fn snapshot(field: &str, path: &str) -> Result<Option<Snapshot>, FieldError> {
    let Some(reference) = Reference::parse(path) else { return Ok(None) };
    let told = |error: HubError| {
        let mut made = FieldError::new(field, error.message);
        made.kind = ErrorKind::Input;
        made.hint = error.hint.map(Hint::Say);
        made
    };
    let reference = reference.map_err(told)?;
    let hub = Hub::from_env();
    match hub.cached(&reference) {
        Some(snapshot) => Ok(Some(snapshot)),
        None => Err(told(hub.absent(&reference)).hint(Hint::Download).to_fetch(path)),
    }
}
