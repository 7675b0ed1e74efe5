//! Updates put onto model folders and taken off again, outside any pipeline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_engine::{Digest, Error, ErrorKind, FileRef, Hint, Maker, Output, Overwrite};
use palinode_model::{Checkpoint, Layout, is_gguf};

use crate::artifacts::model::{GGUF, read_config};
use crate::errors::StageFailure;
use crate::sinks::export::folder::{Direction, NOTE, Note, describe_gguf, write_weights};
use crate::sinks::export::update_file::{Provenance, UpdateFile};

/// How near a reverted model is to what it was before the edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The weights are those of the base that was given.
    FromBase,
    /// The change was subtracted, and what came out is bit for bit what the update was made for.
    Exactly,
    /// The change was subtracted: weights that it touched may differ from the original's in their last bits.
    WithinRounding,
}

/// Puts an update onto a model's folder: the edited model is written to `out`, the folder stays as it is.
///
/// # Errors
/// Of kind input: a folder or file that does not read; a model that the update was not made for, unless `force`; an `out` that is
/// there and was not written by this, unless `overwrite`. Nothing is left at `out` then.
pub fn apply(update: &Path, model: &Path, out: &Path, force: bool, overwrite: Overwrite) -> Result<(), Error> {
    let file = open(update, model)?;
    if !force {
        for (name, digest) in digests(model)? {
            if file.provenance.model_files.get(&name).is_some_and(|made_for| *made_for != digest) {
                let path = if is_gguf(model) { model.to_owned() } else { model.join(&name) };
                return Err(Error::input(format!("{} is not the {name} that the update was made for", path.display()))
                    .hint(Hint::ForceApply));
            }
        }
    }
    let layout = Layout::of(&read(model)?);
    let mut out = begin(out, model, "apply", overwrite)?;
    let weights = write_weights(&shards(model)?, &layout, &file.updates, Direction::On, &mut out, |_| Ok(()))?;
    companions(model, &mut out)?;
    let note = Note { update: Digest::of(&file.to_bytes()?), weights, provenance: file.provenance.clone() };
    out.finish(note.about()?).map(drop)
}

/// Takes an update off an edited model's folder: the unedited model is written to `out`. With the original at hand as `base`,
/// its weights are taken as they are.
///
/// # Errors
/// As [`apply`]; also for a folder that does not say that it holds this update, unless `force`, and a base that is another model's.
pub fn revert(
    update: &Path,
    model: &Path,
    base: Option<&Path>,
    out: &Path,
    force: bool,
    overwrite: Overwrite,
) -> Result<Restored, Error> {
    if is_gguf(model) {
        let message = format!("{} is a GGUF file, which an update is not taken off", model.display());
        return Err(Error::input(message).hint("the unedited file was not changed by the edit: use that one"));
    }
    let file = open(update, model)?;
    let layout = Layout::of(&read(model)?);
    if !force {
        holds(model, Digest::of(&file.to_bytes()?))?;
    }
    if let Some(base) = base {
        let found = digests(base)?;
        if found != file.provenance.model_files {
            return Err(Error::input(format!("{} is not the model that the update was made for", base.display()))
                .hint(Hint::RevertBySubtraction));
        }
    }
    if let Some(base) = base.filter(|base| is_gguf(base)) {
        let message = format!("{} is a GGUF file: it is the unedited model itself", base.display());
        return Err(Error::input(message).hint(Hint::RevertBySubtraction));
    }
    let mut out = begin(out, model, "revert", overwrite)?;
    let mut exact = false;
    if let Some(base) = base {
        for (name, path) in shards(base)? {
            out.copy(&name, &path)?;
        }
    } else {
        let written = write_weights(&shards(model)?, &layout, &file.updates, Direction::Off, &mut out, |_| Ok(()))?;
        exact = written == file.provenance.model_files;
    }
    companions(model, &mut out)?;
    out.finish_unmarked()?;
    Ok(match (base.is_some(), exact) {
        (true, _) => Restored::FromBase,
        (false, true) => Restored::Exactly,
        (false, false) => Restored::WithinRounding,
    })
}

/// Where an update file, an adapter, or an edited model's folder came from.
///
/// # Errors
/// Of kind input, for a path that says nothing of it.
pub fn provenance(path: &Path) -> Result<Provenance, Error> {
    let note = if path.is_dir() { path.join(NOTE) } else { path.to_owned() };
    if note.file_name().is_some_and(|name| name == NOTE) {
        return Ok(read_note(&note)?.provenance);
    }
    let bytes = std::fs::read(&note).map_err(|error| Error::io(ErrorKind::Input, "read", &note, error))?;
    let wrong = |what: String| Error::input(format!("{}: {what}", note.display()));
    let header = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?.1;
    let text = header.metadata().as_ref().and_then(|notes| notes.get("palinode"));
    let text = text.ok_or_else(|| wrong("its metadata has no entry `palinode`".into()))?;
    serde_json::from_str(text).map_err(|error| wrong(format!("its metadata does not read: {error}")))
}

fn open(update: &Path, model: &Path) -> Result<UpdateFile, Error> {
    let file = UpdateFile::read(update)?;
    let config = read(model)?;
    file.check(&config).map_err(|what| Error::input(format!("{}: {what}", update.display())))?;
    Ok(file)
}

fn read(model: &Path) -> Result<palinode_model::DecoderConfig, Error> {
    let path = if is_gguf(model) { model.to_owned() } else { model.join("config.json") };
    read_config(&path).map_err(StageFailure::stage)
}

fn shards(model: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    if is_gguf(model) {
        return Ok(vec![(GGUF.into(), model.to_owned())]);
    }
    let names = Checkpoint::files(model).map_err(StageFailure::stage)?;
    Ok(names.into_iter().map(|name| (name.clone(), model.join(name))).collect())
}

fn digests(model: &Path) -> Result<BTreeMap<String, Digest>, Error> {
    let digest = |(name, path): (String, PathBuf)| {
        let file = FileRef::of_file(&path).map_err(|error| Error::io(ErrorKind::Input, "read", &path, error))?;
        Ok((name, file.digest))
    };
    shards(model)?.into_iter().map(digest).collect()
}

/// Fails unless the folder's note says that it holds this update, in the weights that lie there.
fn holds(model: &Path, update: Digest) -> Result<(), Error> {
    let path = model.join(NOTE);
    if !path.is_file() {
        return Err(Error::input(format!("{} has no {NOTE}, so its update is unknown", model.display()))
            .hint(Hint::ForceRevert));
    }
    let note = read_note(&path)?;
    if note.update != update {
        return Err(
            Error::input(format!("{} was edited with another update", model.display())).hint(Hint::ShowProvenance)
        );
    }
    if note.weights != digests(model)? {
        return Err(Error::input(format!("the weights in {} were changed since the update", model.display()))
            .hint(Hint::ForceRevert));
    }
    Ok(())
}

fn read_note(path: &Path) -> Result<Note, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::input(format!("{}: {error}", path.display())))
}

/// Everything in a model's folder that is neither weights nor a note of ours.
fn companions(model: &Path, out: &mut Output) -> Result<(), Error> {
    if is_gguf(model) {
        return describe_gguf(model, out);
    }
    let io = |error| Error::io(ErrorKind::Input, "read", model, error);
    let weights: Vec<String> = shards(model)?.into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(model).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name == NOTE || name == crate::sinks::export::update_file::UPDATE_FILE;
        if entry.path().is_file() && !ours && !weights.contains(&name) {
            out.copy(&name, &entry.path())?;
        }
    }
    Ok(())
}

/// Begins to write a folder that is not the one that is read.
fn begin(out: &Path, model: &Path, command: &str, overwrite: Overwrite) -> Result<Output, Error> {
    let place = |path: &Path| path.canonicalize().ok();
    if place(out).is_some_and(|out| place(model).is_some_and(|model| model.starts_with(&out) || out.starts_with(model)))
    {
        let message = format!("{} is the folder that is read, or lies in it or around it", out.display());
        return Err(Error::input(message).hint("name another folder"));
    }
    let maker = Maker { stage: command.to_owned(), ..Maker::default() };
    Output::begin(out, maker, BTreeMap::new(), overwrite)
}
