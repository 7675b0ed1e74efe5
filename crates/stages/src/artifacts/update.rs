//! Edited models on their way between stages: the plain model's files, and what every batch changes.

use std::collections::{BTreeMap, HashMap};

use palinode_edit::Applied;
use palinode_engine::shown::Shown;
use palinode_engine::{Accept, Artifact, ArtifactKind, Digest, Error, FileRef, Given, Kind, StageContext, artifact};
use palinode_math::Delta;
use palinode_model::WeightId;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::artifacts::deltas::{Floats, named, read};
use crate::artifacts::model::{Facts, HasModel, ModelKind, computing, file};
use crate::artifacts::solved::{Columns, Solved, is_solved};
use crate::artifacts::tensors::{Tensors, put as put_tensors, serialize};
use crate::errors::StageFailure;

/// The logical name of the changes, which were all factors when it was given.
const FACTORS: &str = "factors.safetensors";
/// The logical name of the batches' facts.
pub const BATCHES: &str = "batches.json";

/// Edited models.
pub struct UpdateKind;

impl Kind for UpdateKind {
    const NAME: &'static str = "update";
    type Facts = UpdateFacts;
    type Planned = PlannedUpdate;
}

/// What an edited model says of itself. What is kept as JSON is provenance: it is handed on and not read here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpdateFacts {
    /// The unedited model's sizes.
    pub model: Facts,
    /// The unedited model, by its digest.
    pub base: String,
    /// The requests that were written, by contents; `None` of an update that was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Digest>,
    /// The names of the requests, where they are known.
    pub requests: Option<Vec<String>>,
    /// Parameters of the solve.
    pub objective: Value,
    /// Which layers absorbed which part.
    pub plan: Value,
    /// Number of batches, each an edit of its own.
    pub batches: usize,
    /// Where the rounds of a sequence end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Vec<RoundFacts>>,
    /// The stages that treated the changes since, in order: each one's name with its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub care: Option<Vec<Map<String, Value>>>,
    /// Where a projector cut the second moments' spectra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projectors: Option<Vec<ProjectorFacts>>,
    /// Values of the objective.
    #[serde(flatten)]
    pub shown: Shown,
}

/// Where a projector cut the spectrum of a layer's second moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProjectorFacts {
    /// The layer.
    pub layer: usize,
    /// Dimensions of a key.
    pub dimensions: usize,
    /// Directions that a change may use.
    pub kept: usize,
    /// The largest eigenvalue that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// The smallest eigenvalue that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// The smallest eigenvalue.
    pub smallest: f64,
    /// The largest eigenvalue.
    pub largest: f64,
    /// The share of the trace that the kept eigenvalues hold.
    pub trace: f64,
}

/// What is known of an edited model before it is edited.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedUpdate {
    /// The unedited model's sizes.
    pub model: Option<Facts>,
    /// Number of batches.
    pub batches: Option<usize>,
    /// Whether every change is low-rank.
    pub low_rank: Option<bool>,
}

impl HasModel for Given<'_, UpdateKind> {
    fn artifact(&self) -> &Artifact {
        self.artifact
    }

    fn model(&self) -> &Facts {
        &self.facts.model
    }

    fn base(&self) -> String {
        self.facts.base.clone()
    }
}

/// What a port takes that wants a model, edited or not.
pub struct AnyModel;

/// A model, and its edit if it is an edited one.
#[derive(Debug)]
pub struct AnyModelFacts {
    /// The unedited model's sizes.
    pub model: Facts,
    /// What is known of the edit.
    pub update: Option<UpdateFacts>,
}

impl AnyModelFacts {
    /// Where the rounds of a sequence end; nothing for any other model.
    pub fn rounds(&self) -> &[RoundFacts] {
        self.update.as_ref().and_then(|update| update.rounds.as_deref()).unwrap_or_default()
    }

    /// The requests that were written into it, by contents.
    pub fn asked(&self) -> Option<Digest> {
        self.update.as_ref()?.asked
    }
}

impl Accept for AnyModel {
    const KINDS: &'static [ArtifactKind] = &[ModelKind::NAME, UpdateKind::NAME];
    type Facts = AnyModelFacts;
    type Planned = PlannedUpdate;

    fn facts(kind: &str, meta: &Value) -> serde_json::Result<AnyModelFacts> {
        Ok(if kind == UpdateKind::NAME {
            let update = UpdateKind::facts(kind, meta)?;
            AnyModelFacts { model: update.model.clone(), update: Some(update) }
        } else {
            AnyModelFacts { model: ModelKind::facts(kind, meta)?.model, update: None }
        })
    }

    fn planned(kind: &str, said: &Value) -> PlannedUpdate {
        if kind == UpdateKind::NAME {
            UpdateKind::planned(kind, said)
        } else {
            PlannedUpdate { model: ModelKind::planned(kind, said).model, ..PlannedUpdate::default() }
        }
    }
}

impl HasModel for Given<'_, AnyModel> {
    fn artifact(&self) -> &Artifact {
        self.artifact
    }

    fn model(&self) -> &Facts {
        &self.facts.model
    }

    fn base(&self) -> String {
        self.facts.update.as_ref().map_or_else(|| self.artifact.digest().to_string(), |update| update.base.clone())
    }
}

/// One batch of requests, edited onto the unedited model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchFacts {
    /// Its first request, by index.
    pub start: usize,
    /// One past its last request.
    pub end: usize,
    /// Mean `‖z − h‖` over the batch, at the bare prompts, before the first change; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_before: Option<f64>,
    /// The same after the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_after: Option<f64>,
    /// Its weights, in the order they were changed.
    pub layers: Vec<LayerFacts>,
}

/// What is known of one weight's change. What only the solve could tell is left out where the change is no longer the one that was solved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The weight.
    #[serde(flatten)]
    pub weight: WeightId,
    /// Its part of the residual that stood.
    pub fraction: f64,
    /// `tr(Δ C Δᵀ)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preservation: Option<f64>,
    /// Mean `‖R‖` over the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_before: Option<f64>,
    /// Mean `‖ΔK − R‖` over the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_after: Option<f64>,
    /// `‖Δ‖_F`.
    pub norm: f64,
    /// Largest singular value of `Δ`.
    pub spectral_norm: f64,
    /// `‖Δ‖_F / ‖W‖_F`.
    pub relative_norm: f64,
    /// Condition number of the system solved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<f64>,
}

/// A batch with its changes.
pub struct Batch {
    /// What is known of it.
    pub facts: BatchFacts,
    /// Weight and change, in the order to be applied.
    pub updates: Vec<(WeightId, Delta)>,
    /// What the solve left, of a change that is as it was solved.
    pub solved: Option<Solved>,
}

impl BatchFacts {
    /// The names of its requests, of those of the whole update. Of an update that was loaded, no place among them is known: all are its own.
    pub fn names<'a>(&self, all: &'a [String]) -> &'a [String] {
        all.get(self.start..self.end).filter(|names| !names.is_empty()).unwrap_or(all)
    }
}

impl Batch {
    /// Of a change that no solve made, or that was treated since.
    pub fn new(facts: BatchFacts, updates: Vec<(WeightId, Delta)>) -> Self {
        Self { facts, updates, solved: None }
    }

    /// Of an edit of requests `start..end`.
    pub fn of(start: usize, end: usize, applied: Applied) -> Self {
        let facts = applied.layers.iter().map(|edit| LayerFacts {
            weight: edit.weight,
            fraction: edit.fraction,
            preservation: Some(edit.diagnostics.preservation),
            error_before: Some(edit.diagnostics.error_before),
            error_after: Some(edit.diagnostics.error_after),
            norm: edit.diagnostics.frobenius,
            spectral_norm: edit.diagnostics.spectral,
            relative_norm: edit.diagnostics.frobenius / edit.weight_norm,
            condition: Some(edit.diagnostics.condition),
        });
        Self {
            facts: BatchFacts {
                start,
                end,
                distance_before: Some(applied.distance_before),
                distance_after: Some(applied.distance_after),
                layers: facts.collect(),
            },
            updates: applied.layers.into_iter().map(|edit| (edit.weight, edit.delta)).collect(),
            solved: None,
        }
    }
}

/// Rounds of a sequence, as one change of each weight: the factors of all rounds side by side.
pub struct Rounds {
    edits: usize,
    weights: Vec<WeightId>,
    /// Of each weight its last round's facts, and the norm of the unedited weight.
    last: BTreeMap<WeightId, (LayerFacts, f64)>,
    sums: BTreeMap<WeightId, Delta>,
    ends: Vec<RoundFacts>,
}

/// Where a round ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundFacts {
    /// Edits made by then.
    pub edits: usize,
    /// Columns of each left factor that are filled by then, by the weight as it is written. A weight whose change is not low-rank is not in
    /// it: what sums up cannot be taken apart again.
    pub rank: BTreeMap<String, usize>,
}

impl Rounds {
    /// Of no round yet.
    pub fn new() -> Self {
        Self { edits: 0, weights: Vec::new(), last: BTreeMap::new(), sums: BTreeMap::new(), ends: Vec::new() }
    }

    /// Adds what a round changed.
    ///
    /// # Errors
    /// Where a weight's changes differ in shape.
    pub fn push(&mut self, batch: &Batch) -> Result<(), Error> {
        self.edits = batch.facts.end;
        for facts in &batch.facts.layers {
            // The first round that changed it met the unedited weight: of a change by nothing, the ratio is 0 / 0.
            let known = self.last.get(&facts.weight).map(|(_, norm)| *norm).filter(|norm| norm.is_finite());
            let unedited = known.unwrap_or(facts.norm / facts.relative_norm);
            self.last.insert(facts.weight, (facts.clone(), unedited));
        }
        for (weight, delta) in &batch.updates {
            if !self.weights.contains(weight) {
                self.weights.push(*weight);
            }
            let sum = match self.sums.remove(weight) {
                None => delta.clone(),
                Some(sum) => sum.plus(delta).map_err(StageFailure::stage)?,
            };
            self.sums.insert(*weight, sum);
        }
        let rank = self.sums.iter().filter_map(|(weight, sum)| Some((weight.to_string(), sum.rank()?))).collect();
        self.ends.push(RoundFacts { edits: self.edits, rank });
        Ok(())
    }

    /// Edits made so far.
    pub fn edits(&self) -> usize {
        self.edits
    }

    /// Where each round ends.
    pub fn facts(&self) -> &[RoundFacts] {
        &self.ends
    }

    /// What the rounds so far changed, weight by weight in the order of changing.
    pub fn sums(&self) -> impl Iterator<Item = (WeightId, &Delta)> {
        self.weights.iter().map(|weight| (*weight, &self.sums[weight]))
    }

    /// Everything as one change onto the unedited model. What only the solve of a round knows of its own part is left out.
    pub fn whole(&self) -> Batch {
        let layers = self.weights.iter().filter_map(|weight| {
            let (sum, (facts, unedited)) = (&self.sums[weight], self.last.get(weight)?);
            let norm = sum.frobenius();
            Some(LayerFacts {
                weight: *weight,
                fraction: facts.fraction,
                preservation: None,
                error_before: None,
                error_after: None,
                norm,
                spectral_norm: sum.spectral(),
                relative_norm: if norm > 0.0 { norm / unedited } else { 0.0 },
                condition: None,
            })
        });
        let facts = BatchFacts {
            start: 0,
            end: self.edits,
            distance_before: None,
            distance_after: None,
            layers: layers.collect(),
        };
        Batch::new(facts, self.sums().map(|(weight, sum)| (weight, sum.clone())).collect())
    }

    /// Root of the sum of squares of the weights' `‖Δ‖_F`.
    pub fn norm(&self) -> f64 {
        self.weights.iter().map(|weight| self.sums[weight].frobenius().powi(2)).sum::<f64>().sqrt()
    }
}

impl Batch {
    /// The Frobenius norm of its changes of all weights.
    pub fn norm(&self) -> f64 {
        self.facts.layers.iter().map(|layer| layer.norm.powi(2)).sum::<f64>().sqrt()
    }

    /// The change as it was after a round of a sequence.
    ///
    /// # Errors
    /// Of kind input, where a change that is not the last round's is not low-rank.
    pub fn at(&self, round: &RoundFacts) -> Result<Self, Error> {
        let last = round.edits == self.facts.end;
        let cut = |(weight, delta): &(WeightId, Delta)| {
            match (delta, round.rank.get(&weight.to_string())) {
            (Delta::LowRank(low), Some(rank)) => Ok((*weight, Delta::LowRank(low.first(*rank)))),
            (Delta::LowRank(low), None) if !last && !round.rank.is_empty() => Ok((*weight, low.first(0).into())),
            (whole, _) if last => Ok((*weight, whole.clone())),
            _ => Err(Error::input(format!(
                "the model after {} edits cannot be measured: the change of layer {weight} is kept as a whole, and not round by round",
                round.edits
            ))
            .hint("measure the rounds of the sequence itself, or leave `every` out")),
        }
        };
        let facts = BatchFacts { end: round.edits, ..self.facts.clone() };
        Ok(Self::new(facts, self.updates.iter().map(cut).collect::<Result<_, _>>()?))
    }
}

/// A batch by itself, as the result of a unit of work.
pub fn to_bytes(batch: &Batch) -> Result<Vec<u8>, Error> {
    let mut tensors = Vec::new();
    for (i, (_, delta)) in batch.updates.iter().enumerate() {
        tensors.extend(named(&i.to_string(), delta, Floats::Double));
    }
    let failed = |error: serde_json::Error| Error::internal(error.to_string());
    // One entry: the order of several would differ from one writing to the next.
    let facts = match &batch.solved {
        None => serde_json::to_string(&batch.facts).map_err(failed)?,
        Some(solved) => {
            tensors.extend(solved.named(SOLVED));
            serde_json::to_string(&WithSolve { facts: &batch.facts, solved: &solved.columns }).map_err(failed)?
        }
    };
    serialize(&tensors, Some(HashMap::from([("facts".to_owned(), facts)])))
}

/// How the names of what a solve left begin in a unit.
const SOLVED: &str = "solved";

/// The facts of a unit with those of its solve.
#[derive(Serialize)]
struct WithSolve<'a> {
    #[serde(flatten)]
    facts: &'a BatchFacts,
    solved: &'a Columns,
}

/// The same as it is read; what was kept by an earlier version has no solve.
#[derive(Deserialize)]
struct SolveFacts {
    #[serde(default)]
    solved: Option<Columns>,
}

/// The inverse of [`to_bytes`].
pub fn from_bytes(bytes: Vec<u8>) -> Result<Batch, Error> {
    let tensors = Tensors::new(bytes);
    let text = tensors.note("facts").unwrap_or_default();
    let damaged = |error: serde_json::Error| Error::internal(format!("stored batch: {error}"));
    let facts: BatchFacts = serde_json::from_str(&text).map_err(damaged)?;
    let SolveFacts { solved } = serde_json::from_str(&text).map_err(damaged)?;
    let file = tensors.file()?;
    let update = |(i, layer): (usize, &LayerFacts)| Ok((layer.weight, stored(&file, &i.to_string())?));
    let updates = facts.layers.iter().enumerate().map(update).collect::<Result<_, Error>>()?;
    let solved = solved.and_then(|columns| Solved::read(&tensors, SOLVED, columns, facts.layers.len()));
    Ok(Batch { facts, updates, solved })
}

/// An edited model: the files of `model`, or of an update of it, with the batches added.
pub fn put(cx: &StageContext, model: &Artifact, batches: &[Batch], said: &UpdateFacts) -> Result<Artifact, Error> {
    let mut tensors = Vec::new();
    for (b, batch) in batches.iter().enumerate() {
        for (weight, delta) in &batch.updates {
            tensors.extend(named(&name(b, *weight), delta, Floats::Double));
        }
    }
    let facts: Vec<_> = batches.iter().map(|batch| &batch.facts).collect();
    let facts = serde_json::to_vec(&facts).map_err(|error| Error::internal(error.to_string()))?;
    let mut made = artifact::<UpdateKind>(said)?;
    for (name, file) in computing(model).filter(|(name, _)| !is_solved(name)) {
        made = made.with_file(name, *file);
    }
    // Last, so that what is made of an update has its own.
    Ok(made.with_file(FACTORS, put_tensors(cx, &tensors)?).with_file(BATCHES, cx.put_bytes(&facts)?))
}

/// A change as it was stored. Contents of the store are checked by digest: what does not read is a mistake of ours.
fn stored(file: &SafeTensors<'_>, name: &str) -> Result<Delta, Error> {
    read(file, name, Floats::Double).map_err(|what| Error::internal(format!("stored change: {what}")))
}

/// What a batch's change of a weight is called among the tensors: the layer alone for a down-projection.
fn name(batch: usize, weight: WeightId) -> String {
    format!("batch{batch}.layer{weight}")
}

/// The changes of an edited model, by content.
pub fn factors_file(artifact: &Artifact) -> Result<&FileRef, Error> {
    file(artifact, FACTORS)
}

/// What was edited onto a model: the batches of an edited one, none of an unedited one.
pub fn edits(cx: &StageContext, given: &Given<'_, AnyModel>) -> Result<Vec<Batch>, Error> {
    if given.facts.update.is_some() { batches(cx, given) } else { Ok(Vec::new()) }
}

/// The batches of an edited model.
pub fn batches(cx: &StageContext, artifact: &Artifact) -> Result<Vec<Batch>, Error> {
    let facts: Vec<BatchFacts> = serde_json::from_slice(&cx.read(file(artifact, BATCHES)?)?)
        .map_err(|error| Error::internal(format!("stored batches: {error}")))?;
    let tensors = Tensors::read(cx, factors_file(artifact)?)?;
    let file = tensors.file()?;
    let change = |b: usize, weight: WeightId| Ok((weight, stored(&file, &name(b, weight))?));
    facts
        .into_iter()
        .enumerate()
        .map(|(b, facts)| {
            let updates = facts.layers.iter().map(|facts| change(b, facts.weight)).collect::<Result<_, Error>>()?;
            Ok(Batch::new(facts, updates))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use palinode_math::{LowRank, Mat};

    use super::*;

    /// A round at a weight of norm 10.
    fn round(end: usize, scale: f64) -> Batch {
        let weight = WeightId::down(1);
        let left = Mat::from_fn(2, 1, |i, _| scale * (i + 1) as f64);
        let delta = Delta::from(LowRank { left, right: Mat::from_fn(1, 3, |_, j| (j + 1) as f64) });
        let norm = delta.frobenius();
        let layer = LayerFacts {
            weight,
            fraction: 1.0,
            preservation: None,
            error_before: None,
            error_after: None,
            norm,
            spectral_norm: delta.spectral(),
            relative_norm: norm / 10.0,
            condition: None,
        };
        let facts =
            BatchFacts { start: end - 1, end, distance_before: None, distance_after: None, layers: vec![layer] };
        Batch::new(facts, vec![(weight, delta)])
    }

    /// Where the first round changes a weight by nothing, the next one tells the norm that the weight has.
    #[test]
    fn a_round_that_changes_nothing_hides_no_norm() {
        let mut rounds = Rounds::new();
        rounds.push(&round(1, 0.0)).unwrap();
        assert_eq!(rounds.whole().facts.layers[0].relative_norm, 0.0);
        rounds.push(&round(2, 1.0)).unwrap();
        let layer = &rounds.whole().facts.layers[0];
        assert!((layer.relative_norm - layer.norm / 10.0).abs() < 1e-12 && layer.norm > 1.0, "{layer:?}");
    }
}
