//! Model folders with a change put on or taken off.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use palinode_engine::{Digest, Error, ErrorKind, FileRef, MARKER, Output};
use palinode_math::{Delta, row_major};
use palinode_model::save::{Change, ChangedType, Written, copy_with_changes};
use palinode_model::{
    Checkpoint, EditedType, Layout, WeightId, companions_of_gguf, copy_gguf_with_changes, is_gguf,
    write_gguf_as_safetensors,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rounding::Rounded;
use super::update_file::{Provenance, stored_name};
use crate::errors::StageFailure;

/// The note in an edited model's folder.
pub const NOTE: &str = MARKER;

/// What was done to a model's folder.
#[derive(Serialize, Deserialize)]
pub struct Note {
    /// The update's file, by content.
    pub update: Digest,
    /// The weights' files as they were written, by content.
    pub weights: BTreeMap<String, Digest>,
    /// What rounding did to edited weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounding: Vec<Rounded>,
    /// Where the update came from.
    pub provenance: Provenance,
}

/// Whether a change is added or subtracted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `W + Δ`.
    On,
    /// `W − Δ`.
    Off,
}

impl Note {
    /// As what a folder's marker says.
    pub fn about(&self) -> Result<Map<String, Value>, Error> {
        match serde_json::to_value(self) {
            Ok(Value::Object(about)) => Ok(about),
            other => Err(Error::internal(format!("a note is no mapping: {other:?}"))),
        }
    }
}

/// Writes a model's weight files with the updates put on or taken off; everything else in them stays byte for byte. `shards`
/// are names and places. A GGUF file becomes safetensors in f32. `kind` says what each changed weight is written as, by its name as stored.
/// `each` hears what was written into each file. Gives what was written.
///
/// # Errors
/// Where a weight is missing or has another shape, or a file cannot be read or written.
pub fn write_weights(
    shards: &[(String, PathBuf)],
    layout: &Layout,
    updates: &[(WeightId, Delta)],
    direction: Direction,
    kind: &dyn Fn(&str) -> ChangedType,
    out: &mut Output,
    mut each: impl FnMut(&[Written]) -> Result<(), Error>,
) -> Result<BTreeMap<String, Digest>, Error> {
    let changes = changes(shards, layout, updates, direction)?;
    let mut written = BTreeMap::new();
    let mut changed = 0;
    for (name, source) in shards {
        let gguf = is_gguf(source);
        let name = if gguf { FROM_GGUF } else { name };
        let target = out.file(name)?;
        let made = if gguf {
            write_gguf_as_safetensors(source, &target, &changes)
        } else {
            copy_with_changes(source, &target, &changes, layout.orientation, kind)
        };
        let done = made.map_err(StageFailure::stage)?;
        changed += done.len();
        let file = FileRef::of_file(&target).map_err(|error| Error::io(ErrorKind::Input, "read", &target, error))?;
        written.insert(name.to_owned(), file.digest);
        each(&done)?;
    }
    let tensors: BTreeSet<&str> = changes.iter().map(|change| change.name.as_str()).collect();
    if changed != tensors.len() {
        return Err(Error::internal(format!("{changed} of {} weights were written", tensors.len())));
    }
    Ok(written)
}

/// The weights of a GGUF file in Hugging Face's layout.
const FROM_GGUF: &str = "model.safetensors";

/// Writes what a folder in Hugging Face's layout has beside its weights, of a GGUF file.
///
/// # Errors
/// Where the file cannot be read, or the folder cannot be written.
pub fn describe_gguf(source: &Path, out: &mut Output) -> Result<(), Error> {
    let texts = companions_of_gguf(source).map_err(StageFailure::stage)?;
    texts.into_iter().try_for_each(|(name, text)| out.write(name, text.as_bytes()))
}

/// Writes a GGUF file with the updates put on.
///
/// # Errors
/// As [`write_weights`].
pub fn write_gguf(
    source: (String, PathBuf),
    layout: &Layout,
    updates: &[(WeightId, Delta)],
    kind: EditedType,
    path: &Path,
) -> Result<Vec<Written>, Error> {
    let shards = [source];
    let changes = changes(&shards, layout, updates, Direction::On)?;
    copy_gguf_with_changes(&shards[0].1, path, &changes, kind).map_err(StageFailure::stage)
}

/// The names under which weights are stored.
///
/// # Errors
/// Where a file cannot be read, or the model lacks such a weight.
pub fn stored_names(
    shards: &[(String, PathBuf)],
    layout: &Layout,
    weights: impl IntoIterator<Item = WeightId>,
) -> Result<BTreeSet<String>, Error> {
    let paths: Vec<PathBuf> = shards.iter().map(|(_, path)| path.clone()).collect();
    let checkpoint = Checkpoint::open(&paths).map_err(StageFailure::stage)?;
    weights.into_iter().map(|weight| stored_in(&checkpoint, layout, weight)).collect()
}

fn stored_in(checkpoint: &Checkpoint, layout: &Layout, weight: WeightId) -> Result<String, Error> {
    let name = stored_name(layout, weight)?;
    let stored = checkpoint.stored_name(&name);
    stored.map(str::to_owned).ok_or_else(|| Error::input(format!("the checkpoint has no tensor {name}")))
}

/// The changes by the names under which the weights are stored.
fn changes(
    shards: &[(String, PathBuf)],
    layout: &Layout,
    updates: &[(WeightId, Delta)],
    direction: Direction,
) -> Result<Vec<Change>, Error> {
    let paths: Vec<PathBuf> = shards.iter().map(|(_, path)| path.clone()).collect();
    let checkpoint = Checkpoint::open(&paths).map_err(StageFailure::stage)?;
    let mut changes = Vec::new();
    for (weight, delta) in updates {
        let part = checkpoint.slice_of(&stored_name(layout, *weight)?);
        let name = stored_in(&checkpoint, layout, *weight)?;
        let dense = delta.dense();
        let sign = if direction == Direction::On { 1.0 } else { -1.0 };
        changes.push(Change {
            name,
            part,
            out: dense.nrows(),
            input: dense.ncols(),
            delta: row_major(dense.as_ref()).into_iter().map(|v| (sign * v) as f32).collect(),
        });
    }
    Ok(changes)
}
