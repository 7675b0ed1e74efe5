//! Model folders with a change put on or taken off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_engine::{Digest, Error, ErrorKind, inside};
use palinode_math::{Delta, row_major};
use palinode_model::save::{Change, copy_with_changes};
use palinode_model::{Checkpoint, Layout, WeightId};
use serde::{Deserialize, Serialize};

use super::update_file::{Provenance, stored_name};
use crate::errors::StageFailure;

/// The note in an edited model's folder.
pub const NOTE: &str = "palinode.json";

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

/// Writes a model's weight files with the updates put on or taken off; everything else in them stays byte for byte. `shards`
/// are names and places. Returns the files written.
///
/// # Errors
/// Where a weight is missing or has another shape, or a file cannot be read or written.
pub fn write_weights(
    shards: &[(String, PathBuf)],
    layout: &Layout,
    updates: &[(WeightId, Delta)],
    direction: Direction,
    out: &Path,
    mut each: impl FnMut() -> Result<(), Error>,
) -> Result<Vec<PathBuf>, Error> {
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
    let mut written = Vec::new();
    let mut changed = 0;
    for (name, source) in shards {
        let path = inside(out, name)?;
        replace(&path, |target| {
            let done = copy_with_changes(source, target, &changes, layout.orientation).map_err(StageFailure::stage)?;
            changed += done.len();
            Ok(())
        })?;
        written.push(path);
        each()?;
    }
    if changed != changes.len() {
        return Err(Error::internal(format!("{changed} of {} weights were written", changes.len())));
    }
    Ok(written)
}

/// Copies a file into place.
pub fn copy(source: &Path, path: &Path) -> Result<(), Error> {
    replace(path, |target| {
        std::fs::copy(source, target).map_err(|error| Error::io(ErrorKind::Input, "write", target, error))?;
        Ok(())
    })
}

/// Writes bytes into place.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, |target| {
        std::fs::write(target, bytes).map_err(|error| Error::io(ErrorKind::Input, "write", target, error))
    })
}

/// Writes beside the file and renames it, so that no reader ever sees half of one.
pub fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    write(&part).inspect_err(|_| {
        let _ = std::fs::remove_file(&part);
    })?;
    std::fs::rename(&part, path).map_err(|error| Error::io(ErrorKind::Input, "write", path, error))
}
