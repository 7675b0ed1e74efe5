//! What a solve leaves so that one of its edits can be taken off: in an update's artifact, beside its changes.
//!
//! The system of each weight is a tensor `{batch}.{weight}.system` [B, B], or `{batch}.{weight}.keys` [f, B] where the primal form was solved
//! (`palinode_math::without`). Over several layers a later one saw what the earlier ones wrote, so that all of them are solved again:
//! `{batch}.targets` [requests × d], row-major, and the note have what that takes beside the model and the second moments, which the note names by their contents.

use std::collections::HashMap;

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::Applied;
use palinode_engine::{Artifact, Error, FileRef, StageContext};
use palinode_math::{Mat, System, from_row_major, row_major};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::chat::Chat;
use crate::artifacts::tensors::{Named, Tensors, serialize};

/// The logical name.
const FILE: &str = "solved.safetensors";
/// The note.
const NOTE: &str = "solved";

/// What a solve leaves of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// Whose the columns of the systems are.
    pub columns: Columns,
    /// The system of each weight, in the order of the batch's changes.
    pub systems: Vec<System>,
    /// `z`, `[requests, d]` row-major; none where it will not be solved again.
    pub targets: Vec<f32>,
}

/// Whose the columns of a batch's systems are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    /// The requests of each column, counted from the batch's first one. Several where they share a key and a target, or say the same.
    pub requests: Vec<Vec<usize>>,
    /// `μ` of each column.
    pub mu: Vec<f64>,
    /// Whether several requests of a column share a target that was found for all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
}

/// What a solve was made of, beside the model and its parameters, which an update says itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeFrom {
    /// The facts, without what only judges them.
    pub requests: Vec<EditRequest>,
    /// The contexts.
    pub templates: ContextTemplates,
    /// Parameters of the targets.
    pub targets: Value,
    /// The chat that the prompts are messages of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Chat>,
    /// The artifact of second moments, or of their factors: facts, and files by content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moments: Option<Artifact>,
}

/// A request without the prompts that judge it.
pub fn bare(request: &EditRequest) -> EditRequest {
    EditRequest {
        paraphrases: Vec::new(),
        neighbors: Vec::new(),
        attributes: Vec::new(),
        generation: Vec::new(),
        portability: std::collections::BTreeMap::new(),
        locality: std::collections::BTreeMap::new(),
        references: Vec::new(),
        ..request.clone()
    }
}

impl Solved {
    /// Of an edit. `chains` are the pieces of each request's answer where answers are cut: columns are then pieces. The first request is the
    /// `first` of its batch.
    pub fn of(
        applied: &Applied,
        chains: Option<&[Vec<EditRequest>]>,
        first: usize,
        merged: bool,
        targets: &[f32],
    ) -> Self {
        let owners: Option<Vec<usize>> = chains
            .map(|chains| chains.iter().enumerate().flat_map(|(i, pieces)| pieces.iter().map(move |_| i)).collect());
        let owner = |i: &usize| first + owners.as_ref().map_or(*i, |owners| owners[*i]);
        let requests = applied.columns.iter().map(|of| of.iter().map(owner).collect()).collect();
        let systems = applied.layers.iter().map(|edit| edit.system.clone()).collect();
        Self { columns: Columns { requests, mu: applied.mu.clone(), merged }, systems, targets: targets.to_vec() }
    }

    /// Its tensors, whose names begin with `name`.
    pub fn named(&self, name: &str) -> Vec<Named> {
        let mut tensors = Vec::new();
        for (i, system) in self.systems.iter().enumerate() {
            let (part, matrix) = match system {
                System::Dual(system) => ("system", system),
                System::Primal(keys) => ("keys", keys),
            };
            let shape = vec![matrix.nrows(), matrix.ncols()];
            tensors.push(Named::values(format!("{name}.{i}.{part}"), shape, row_major(matrix.as_ref()).into_iter()));
        }
        if !self.targets.is_empty() {
            tensors.push(Named::f32(format!("{name}.targets"), [self.targets.len()], self.targets.iter().copied()));
        }
        tensors
    }

    /// Reads them again, of so many weights; `None` where one is missing or is no such matrix.
    pub fn read(tensors: &Tensors, name: &str, columns: Columns, weights: usize) -> Option<Self> {
        let matrix = |part: &str, i: usize| -> Option<Mat<f64>> {
            let (shape, values) = tensors.values(&format!("{name}.{i}.{part}")).ok()?;
            let [rows, columns] = shape[..] else { return None };
            from_row_major("system", &values, rows, columns).ok()
        };
        let system = |i| matrix("system", i).map(System::Dual).or_else(|| matrix("keys", i).map(System::Primal));
        let systems = (0..weights).map(system).collect::<Option<Vec<_>>>()?;
        let edits = columns.requests.len();
        let fits = columns.mu.len() == edits && systems.iter().all(|system| system.edits() == edits);
        let targets = tensors.values(&format!("{name}.targets")).map_or_else(|_| Vec::new(), |(_, values)| values);
        let targets = targets.into_iter().map(|value| value as f32).collect();
        fits.then_some(Self { columns, systems, targets })
    }
}

/// What is kept beside the changes of an update.
#[derive(Serialize, Deserialize)]
struct Note {
    from: MadeFrom,
    batches: Vec<Option<(Columns, usize)>>,
}

/// Adds what a solve left to an update's artifact.
pub fn add<'a>(
    cx: &StageContext,
    made: Artifact,
    from: MadeFrom,
    batches: impl IntoIterator<Item = Option<&'a Solved>>,
) -> Result<Artifact, Error> {
    let (mut tensors, mut columns) = (Vec::new(), Vec::new());
    for (b, solved) in batches.into_iter().enumerate() {
        tensors.extend(solved.map(|solved| solved.named(&b.to_string())).unwrap_or_default());
        columns.push(solved.map(|solved| (solved.columns.clone(), solved.systems.len())));
    }
    let note = serde_json::to_string(&Note { from, batches: columns });
    let note = note.map_err(|error| Error::internal(error.to_string()))?;
    let bytes = serialize(&tensors, Some(HashMap::from([(NOTE.to_owned(), note)])))?;
    let file = cx.put_bytes(&bytes)?;
    Ok(made.with_file(FILE, file))
}

/// Whether a logical name is that of what a solve left, which holds for its own changes alone.
pub fn is_solved(name: &str) -> bool {
    name == FILE
}

/// What a solve left of one batch of an update; `None` of one that no solve made, or one of an earlier version.
pub fn of_batch(
    cx: &StageContext,
    artifact: &Artifact,
    batch: usize,
) -> Result<Option<(MadeFrom, Option<Solved>)>, Error> {
    let Some(file) = artifact.file(FILE) else { return Ok(None) };
    let file: &FileRef = file;
    let tensors = Tensors::read(cx, file)?;
    let Some(text) = tensors.note(NOTE) else { return Ok(None) };
    let Note { from, batches } =
        serde_json::from_str(&text).map_err(|error| Error::internal(format!("stored solve: {error}")))?;
    let columns = batches.into_iter().nth(batch).flatten();
    let solved = columns.and_then(|(columns, weights)| Solved::read(&tensors, &batch.to_string(), columns, weights));
    Ok(Some((from, solved)))
}
