//! Model folders as commands read and write them: what lies in one, whose it is, and what goes along into another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_engine::{Digest, Error, ErrorKind, FileRef, Hint, Maker, Output, Overwrite};
use palinode_model::{Checkpoint, DecoderConfig, is_gguf};
use serde_json::Value;

use crate::artifacts::model::{GGUF, LEDGER_FILE, read_config};
use crate::errors::StageFailure;
use crate::sinks::export::folder::{NOTE, Note, describe_gguf};
use crate::sinks::export::rounding::Rounded;
use crate::sinks::export::update_file::{Provenance, UPDATE_FILE};

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

/// Fails unless a folder holds these weights, as safetensors.
pub fn base_is(base: &Path, weights: &BTreeMap<String, Digest>) -> Result<(), Error> {
    if digests(base)? != *weights {
        return Err(Error::input(format!("{} is not the model that the update was made for", base.display()))
            .hint(Hint::RevertBySubtraction));
    }
    if is_gguf(base) {
        let message = format!("{} is a GGUF file: it is the unedited model itself", base.display());
        return Err(Error::input(message).hint(Hint::RevertBySubtraction));
    }
    Ok(())
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

/// What the note of a model's folder says of rounding; nothing where there is no note.
pub fn rounded_in(model: &Path) -> Result<Vec<Rounded>, Error> {
    let note = model.join(NOTE);
    if model.is_dir() && note.is_file() { Ok(read_note(&note)?.rounding) } else { Ok(Vec::new()) }
}

/// A model's configuration.
pub fn read_model(model: &Path) -> Result<DecoderConfig, Error> {
    let path = if is_gguf(model) { model.to_owned() } else { model.join("config.json") };
    if model.exists() && !path.is_file() {
        return Err(Error::input(format!("{} is no model: it has no config.json", model.display())).hint(
            "a model folder holds config.json, tokenizer.json and model.safetensors; a GGUF file is given by its own name",
        ));
    }
    read_config(&path).map_err(StageFailure::stage)
}

/// The names and places of a model's weights.
pub fn shards(model: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    if is_gguf(model) {
        return Ok(vec![(GGUF.into(), model.to_owned())]);
    }
    let names = Checkpoint::files(model).map_err(StageFailure::stage)?;
    Ok(names.into_iter().map(|name| (name.clone(), model.join(name))).collect())
}

/// The contents of a model's weights.
pub fn digests(model: &Path) -> Result<BTreeMap<String, Digest>, Error> {
    let digest = |(name, path): (String, PathBuf)| {
        let file = FileRef::of_file(&path).map_err(|error| Error::io(ErrorKind::Input, "read", &path, error))?;
        Ok((name, file.digest))
    };
    shards(model)?.into_iter().map(digest).collect()
}

/// The note of an edited model's folder.
pub fn read_note(path: &Path) -> Result<Note, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::input(format!("{}: {error}", path.display())))
}

/// What an export says of its edits.
const README: &str = "README.md";

/// Copies everything in a model's folder that is neither weights nor a note of ours.
pub fn companions(model: &Path, out: &mut Output) -> Result<(), Error> {
    if is_gguf(model) {
        return describe_gguf(model, out);
    }
    let io = |error| Error::io(ErrorKind::Input, "read", model, error);
    let weights: Vec<String> = shards(model)?.into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(model).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that an export wrote speaks of other edits.
        let ours =
            [NOTE, UPDATE_FILE, LEDGER_FILE].contains(&name.as_str()) || (name == README && is_marked(model, README));
        if entry.path().is_file() && !ours && !weights.contains(&name) {
            out.copy(&name, &entry.path())?;
        }
    }
    Ok(())
}

/// Whether a folder's marker lists a file with what it holds.
fn is_marked(model: &Path, name: &str) -> bool {
    let marker = std::fs::read(model.join(NOTE)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let listed = marker.and_then(|marker| marker["files"][name].as_str().map(str::to_owned));
    listed.is_some_and(|digest| FileRef::of_file(&model.join(name)).is_ok_and(|file| file.digest.to_string() == digest))
}

/// Begins to write a folder that is not the one that is read.
pub fn begin(out: &Path, model: &Path, command: &str, overwrite: Overwrite) -> Result<Output, Error> {
    let place = |path: &Path| path.canonicalize().ok();
    if place(out).is_some_and(|out| place(model).is_some_and(|model| model.starts_with(&out) || out.starts_with(model)))
    {
        let message = format!("{} is the folder that is read, or lies in it or around it", out.display());
        return Err(Error::input(message).hint("name another folder"));
    }
    begin_new(out, command, overwrite)
}

/// Begins to write a folder.
pub fn begin_new(out: &Path, command: &str, overwrite: Overwrite) -> Result<Output, Error> {
    let maker = Maker { stage: command.to_owned(), ..Maker::default() };
    Output::begin(out, maker, BTreeMap::new(), overwrite)
}
