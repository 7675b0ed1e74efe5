//! Edited models on their way between stages: the plain model's files, and the change of every batch as low-rank factors.

use palinode_edit::LayerEdit;
use palinode_engine::{Artifact, FileRef, StageContext, StageError};
use palinode_math::Update;
use serde::{Deserialize, Serialize};

use crate::model::{UPDATE, file};
use crate::tensors::{Named, Tensors, put};

/// The logical name of the factors.
const FACTORS: &str = "factors.safetensors";
/// The logical name of the batches' facts.
const BATCHES: &str = "batches.json";

/// One batch of requests, edited onto the unedited model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchFacts {
    /// Its first request, by index.
    pub start: usize,
    /// One past its last request.
    pub end: usize,
    /// Its layers, in the order they were changed.
    pub layers: Vec<LayerFacts>,
}

/// What a solve told of one layer.
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
    /// From the result of an edit of requests `start..end`; `fractions` are the plan's.
    pub fn of(start: usize, end: usize, edits: Vec<LayerEdit>, fractions: &[f64]) -> Self {
        let facts = edits.iter().zip(fractions).map(|(edit, &fraction)| LayerFacts {
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
            facts: BatchFacts { start, end, layers: facts.collect() },
            updates: edits.into_iter().map(|edit| (edit.layer, edit.update)).collect(),
        }
    }
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
