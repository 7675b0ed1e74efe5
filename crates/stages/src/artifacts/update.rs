//! Edited models on their way between stages: the plain model's files, and the change of every batch as low-rank factors.

use std::collections::{BTreeMap, HashMap};

use palinode_edit::Applied;
use palinode_engine::{Artifact, FileRef, StageContext, StageError};
use palinode_math::{Mat, Update};
use serde::{Deserialize, Serialize};

use crate::artifacts::model::{UPDATE, file};
use crate::artifacts::tensors::{Named, Tensors, put, serialize};

/// The logical name of the factors.
const FACTORS: &str = "factors.safetensors";
/// The logical name of the batches' facts.
pub const BATCHES: &str = "batches.json";

/// One batch of requests, edited onto the unedited model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchFacts {
    /// Its first request, by index.
    pub start: usize,
    /// One past its last request.
    pub end: usize,
    /// Mean `‖z − h‖` over the batch, at the bare prompts, before the first change.
    pub distance_before: f64,
    /// The same after the last change.
    pub distance_after: f64,
    /// Its layers, in the order they were changed.
    pub layers: Vec<LayerFacts>,
}

/// What a solve reported of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The layer.
    pub layer: usize,
    /// Its part of the residual that stood.
    pub fraction: f64,
    /// `tr(Δ C Δᵀ)`.
    pub preservation: f64,
    /// Mean `‖R‖` over the batch.
    pub error_before: f64,
    /// Mean `‖ΔK − R‖` over the batch.
    pub error_after: f64,
    /// `‖Δ‖_F`.
    pub norm: f64,
    /// Largest singular value of `Δ`.
    pub spectral_norm: f64,
    /// `‖Δ‖_F / ‖W‖_F`.
    pub relative_norm: f64,
    /// Condition number of the system solved.
    pub condition: f64,
}

/// A batch with its factors.
pub struct Batch {
    /// What is known of it.
    pub facts: BatchFacts,
    /// Layer and change, in the order to be applied.
    pub updates: Vec<(usize, Update)>,
}

impl Batch {
    /// Of an edit of requests `start..end`; `fractions` are the plan's.
    pub fn of(start: usize, end: usize, applied: Applied, fractions: &[f64]) -> Self {
        let facts = applied.layers.iter().zip(fractions).map(|(edit, &fraction)| LayerFacts {
            layer: edit.layer,
            fraction,
            preservation: edit.diagnostics.preservation,
            error_before: edit.diagnostics.error_before,
            error_after: edit.diagnostics.error_after,
            norm: edit.diagnostics.frobenius,
            spectral_norm: edit.diagnostics.spectral,
            relative_norm: edit.diagnostics.frobenius / edit.weight_norm,
            condition: edit.diagnostics.condition,
        });
        Self {
            facts: BatchFacts {
                start,
                end,
                distance_before: applied.distance_before,
                distance_after: applied.distance_after,
                layers: facts.collect(),
            },
            updates: applied.layers.into_iter().map(|edit| (edit.layer, edit.update)).collect(),
        }
    }
}

/// Rounds of a sequence, as one change for each layer: the factors of all rounds side by side.
pub struct Rounds {
    edits: usize,
    layers: Vec<usize>,
    facts: Option<BatchFacts>,
    left: BTreeMap<usize, Mat<f64>>,
    right: BTreeMap<usize, Mat<f64>>,
    ends: Vec<RoundFacts>,
}

/// Where a round ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundFacts {
    /// Edits made by then.
    pub edits: usize,
    /// Columns of each layer's left factor that are filled by then.
    pub rank: BTreeMap<usize, usize>,
}

impl Rounds {
    /// Of no round yet.
    pub fn new() -> Self {
        Self {
            edits: 0,
            layers: Vec::new(),
            facts: None,
            left: BTreeMap::new(),
            right: BTreeMap::new(),
            ends: Vec::new(),
        }
    }

    /// Adds what a round changed.
    pub fn push(&mut self, batch: &Batch) {
        self.edits = batch.facts.end;
        self.facts = Some(batch.facts.clone());
        for (layer, update) in &batch.updates {
            if !self.layers.contains(layer) {
                self.layers.push(*layer);
            }
            let left = self.left.remove(layer).map_or_else(|| update.left.clone(), |l| beside(&l, &update.left));
            let right = self.right.remove(layer).map_or_else(|| update.right.clone(), |r| above(&r, &update.right));
            self.left.insert(*layer, left);
            self.right.insert(*layer, right);
        }
        let rank = self.left.iter().map(|(&layer, left)| (layer, left.ncols())).collect();
        self.ends.push(RoundFacts { edits: self.edits, rank });
    }

    /// Edits made so far.
    pub fn edits(&self) -> usize {
        self.edits
    }

    /// Where each round ends.
    pub fn facts(&self) -> &[RoundFacts] {
        &self.ends
    }

    /// Everything as one change onto the unedited model, with the last round's facts.
    pub fn whole(&self) -> Batch {
        let none = BatchFacts { start: 0, end: 0, distance_before: 0.0, distance_after: 0.0, layers: Vec::new() };
        let facts = BatchFacts { start: 0, end: self.edits, ..self.facts.clone().unwrap_or(none) };
        let update = |layer: &usize| Update { left: self.left[layer].clone(), right: self.right[layer].clone() };
        Batch { facts, updates: self.layers.iter().map(|layer| (*layer, update(layer))).collect() }
    }

    /// Root of the sum of squares of the layers' `‖Δ‖_F`.
    pub fn norm(&self) -> f64 {
        self.whole().updates.iter().map(|(_, update)| update.frobenius().powi(2)).sum::<f64>().sqrt()
    }
}

impl Batch {
    /// The change as it was after a round of a sequence.
    pub fn at(&self, round: &RoundFacts) -> Self {
        let cut = |(layer, update): &(usize, Update)| {
            let rank = round.rank.get(layer).copied().unwrap_or(0);
            let left = update.left.subcols(0, rank).to_owned();
            (*layer, Update { left, right: update.right.subrows(0, rank).to_owned() })
        };
        let facts = BatchFacts { end: round.edits, ..self.facts.clone() };
        Self { facts, updates: self.updates.iter().map(cut).collect() }
    }
}

fn beside(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols() + b.ncols(), |i, j| if j < a.ncols() { a[(i, j)] } else { b[(i, j - a.ncols())] })
}

fn above(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows() + b.nrows(), a.ncols(), |i, j| if i < a.nrows() { a[(i, j)] } else { b[(i - a.nrows(), j)] })
}

/// A batch by itself, as the result of a unit of work.
pub fn to_bytes(batch: &Batch) -> Result<Vec<u8>, StageError> {
    let mut tensors = Vec::new();
    for (i, (_, update)) in batch.updates.iter().enumerate() {
        tensors.push(Named::f64(format!("{i}.left"), &update.left));
        tensors.push(Named::f64(format!("{i}.right"), &update.right));
    }
    let facts = serde_json::to_string(&batch.facts).map_err(|error| StageError::internal(error.to_string()))?;
    serialize(&tensors, Some(HashMap::from([("facts".to_owned(), facts)])))
}

/// The inverse of [`to_bytes`].
pub fn from_bytes(bytes: Vec<u8>) -> Result<Batch, StageError> {
    let tensors = Tensors::new(bytes);
    let facts = tensors.note("facts").unwrap_or_default();
    let facts: BatchFacts =
        serde_json::from_str(&facts).map_err(|error| StageError::internal(format!("stored batch: {error}")))?;
    let update = |(i, layer): (usize, &LayerFacts)| {
        let matrix = |side: &str| tensors.matrix(&format!("{i}.{side}"));
        Ok((layer.layer, Update { left: matrix("left")?, right: matrix("right")? }))
    };
    let updates = facts.layers.iter().enumerate().map(update).collect::<Result<_, StageError>>()?;
    Ok(Batch { facts, updates })
}

/// An edited model: the files of `model` with the batches added. Its facts are for the stage to fill in.
pub fn artifact(cx: &StageContext, model: &Artifact, batches: &[Batch]) -> Result<Artifact, StageError> {
    let mut tensors = Vec::new();
    for (b, batch) in batches.iter().enumerate() {
        for (layer, update) in &batch.updates {
            tensors.push(Named::f64(format!("batch{b}.layer{layer}.left"), &update.left));
            tensors.push(Named::f64(format!("batch{b}.layer{layer}.right"), &update.right));
        }
    }
    let facts: Vec<_> = batches.iter().map(|batch| &batch.facts).collect();
    let facts = serde_json::to_vec(&facts).map_err(|error| StageError::internal(error.to_string()))?;
    let mut made = Artifact::new(UPDATE, serde_json::Value::Null)
        .with_file(FACTORS, put(cx, &tensors)?)
        .with_file(BATCHES, cx.put_bytes(&facts)?);
    for (name, file) in &model.files {
        made = made.with_file(name, *file);
    }
    Ok(made)
}

/// The factors of an edited model, by content.
pub fn factors_file(artifact: &Artifact) -> Result<&FileRef, StageError> {
    file(artifact, FACTORS)
}

/// The batches of an edited model.
pub fn batches(cx: &StageContext, artifact: &Artifact) -> Result<Vec<Batch>, StageError> {
    let facts: Vec<BatchFacts> = serde_json::from_slice(&cx.read(file(artifact, BATCHES)?)?)
        .map_err(|error| StageError::internal(format!("stored batches: {error}")))?;
    let tensors = Tensors::read(cx, factors_file(artifact)?)?;
    let read = |b: usize, layer: usize| -> Result<(usize, Update), StageError> {
        let matrix = |side: &str| tensors.matrix(&format!("batch{b}.layer{layer}.{side}"));
        Ok((layer, Update { left: matrix("left")?, right: matrix("right")? }))
    };
    facts
        .into_iter()
        .enumerate()
        .map(|(b, facts)| {
            let updates = facts.layers.iter().map(|l| read(b, l.layer)).collect::<Result<_, _>>()?;
            Ok(Batch { facts, updates })
        })
        .collect()
}
