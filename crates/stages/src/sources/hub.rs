//! `hf:` in parameters: files of the Hugging Face Hub, from its cache.
//!
//! A stage says which files it reads before anything runs, since their contents are in its key. It looks for them in the cache alone. What
//! is not there is reported as something to fetch, and [`fetch`] brings it: a phase of its own, between the check of a pipeline and its
//! keys, in programs that mean to run the pipeline.

use std::path::PathBuf;

use palinode_engine::{Error, ErrorKind, FieldError, Hint};
use palinode_hub::{FORBIDDEN, Hub, HubError, Kind, Progress, Reference, Shards, Snapshot, Web, is_address};

/// The folder of a model, if `path` refers to one of the Hub.
pub fn model(field: &str, path: &str) -> Result<Option<PathBuf>, FieldError> {
    Ok(snapshot(field, path)?.map(|snapshot| snapshot.folder))
}

/// The files of a data set, or so many of them, if `path` refers to one of the Hub.
pub fn data(field: &str, path: &str, shards: Option<Shards>) -> Result<Option<Vec<PathBuf>>, FieldError> {
    let few = shards.filter(|_| path.starts_with("hf:")).map(|shards| format!("{path}#{shards}"));
    match snapshot(field, few.as_deref().unwrap_or(path))? {
        Some(snapshot) => Ok(Some(snapshot.files)),
        None => Ok(None),
    }
}

/// The commit that a reference stands for in the cache: what a branch was when it was last fetched.
pub fn commit(path: &str) -> Option<String> {
    Hub::from_env().commit(&Reference::parse(path)?.ok()?)
}

/// What can be done where the environment forbids downloads (`HF_HUB_OFFLINE`); `None` where it does not.
pub fn downloads_forbidden() -> Option<Hint> {
    Hub::from_env().is_offline().then(|| Hint::Say(FORBIDDEN.to_owned()))
}

/// An `hf:` reference with the commit that it stands for in the cache, in the place of a branch; `None` for any other text.
pub fn pinned(path: &str) -> Option<String> {
    let reference = Reference::parse(path)?.ok()?;
    let commit = Hub::from_env().commit(&reference)?;
    let Reference { kind, repository, pattern, shards, .. } = reference;
    let kind = if kind == Kind::Dataset { "datasets/" } else { "" };
    let pattern = pattern.map(|pattern| format!("/{pattern}")).unwrap_or_default();
    let shards = shards.map(|shards| format!("#{shards}")).unwrap_or_default();
    Some(format!("hf:{kind}{repository}@{commit}{pattern}{shards}"))
}

/// The one file that a text names: of the Hub, by its address, or `None` for a path.
pub fn file(field: &str, path: &str) -> Result<Option<PathBuf>, FieldError> {
    if is_address(path) {
        let web = Web::from_env();
        return match web.cached(path) {
            Some(file) => Ok(Some(file)),
            None => Err(said(field, web.absent(path)).hint(Hint::Download).to_fetch(path)),
        };
    }
    let Some(files) = data(field, path, None)? else { return Ok(None) };
    match files.as_slice() {
        [file] => Ok(Some(file.clone())),
        several => {
            let message = format!("`{path}` stands for {} files", several.len());
            Err(FieldError::new(field, message).expected("one file"))
        }
    }
}

/// Brings what an `hf:` reference or an address stands for into the cache. `watch` hears of progress and says whether to go on.
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
    let mut stopped = false;
    let mut watch = |progress: Progress<'_>| {
        stopped |= !watch(progress);
        !stopped
    };
    let fetched = if is_address(reference) {
        Web::from_env().fetch(reference, &mut watch).map(drop)
    } else {
        let parsed = Reference::parse(reference).ok_or_else(none)?.map_err(told)?;
        Hub::from_env().fetch(&parsed, &mut watch).map(drop)
    };
    match fetched {
        Err(_) if stopped => Err(Error::interrupted()),
        fetched => fetched.map_err(told),
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
    let reference = reference.map_err(|error| said(field, error))?;
    let hub = Hub::from_env();
    match hub.cached(&reference) {
        Some(snapshot) => Ok(Some(snapshot)),
        None => Err(said(field, hub.absent(&reference)).hint(Hint::Download).to_fetch(path)),
    }
}

fn said(field: &str, error: HubError) -> FieldError {
    let mut made = FieldError::new(field, error.message);
    made.kind = ErrorKind::Input;
    made.hint = error.hint.map(Hint::Say);
    made
}
