//! Model folders with a change put on or taken off.

use std::collections::BTreeMap;
use std::path::PathBuf;

use palinode_engine::{Digest, Error, ErrorKind, FileRef, MARKER, Output};
use palinode_math::{Delta, row_major};
use palinode_model::save::{Change, copy_with_changes};
use palinode_model::{Checkpoint, Layout, WeightId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
/// are names and places. Gives what was written.
///
/// # Errors
/// Where a weight is missing or has another shape, or a file cannot be read or written.
pub fn write_weights(
    shards: &[(String, PathBuf)],
    layout: &Layout,
    updates: &[(WeightId, Delta)],
    direction: Direction,
    out: &mut Output,
    mut each: impl FnMut() -> Result<(), Error>,
) -> Result<BTreeMap<String, Digest>, Error> {
    let paths: Vec<PathBuf> = shards.iter().map(|(_, path)| path.clone()).collect();
    let checkpoint = Checkpoint::open(&paths).map_err(StageFailure::stage)?;
    let mut changes = Vec::new();
    for (weight, delta) in updates {
        let name = stored_name(layout, *weight)?;
        let Some(stored) = checkpoint.stored_name(&name) else {
            return Err(Error::input(format!("the checkpoint has no tensor {name}")));
        };
        let dense = delta.dense();
        let sign = if direction == Direction::On { 1.0 } else { -1.0 };
        changes.push(Change {
            name: stored.to_owned(),
            out: dense.nrows(),
            input: dense.ncols(),
            delta: row_major(dense.as_ref()).into_iter().map(|v| (sign * v) as f32).collect(),
        });
    }
    let mut written = BTreeMap::new();
    let mut changed = 0;
    for (name, source) in shards {
        let target = out.file(name)?;
        let done = copy_with_changes(source, &target, &changes, layout.orientation).map_err(StageFailure::stage)?;
        changed += done.len();
        let file = FileRef::of_file(&target).map_err(|error| Error::io(ErrorKind::Input, "read", &target, error))?;
        written.insert(name.clone(), file.digest);
        each()?;
    }
    if changed != changes.len() {
        return Err(Error::internal(format!("{changed} of {} weights were written", changes.len())));
    }
    Ok(written)
}
