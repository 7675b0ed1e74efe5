//! Rounds of edits by gradient, each on the model that the one before left.

use palinode_data::{EditRequest, batches};
use palinode_edit::with_edits;
use palinode_engine::shown::{self, Column, Format, Shown, Values};
use palinode_engine::{Artifact, Error, Given, StageContext, UnitPlan};
use palinode_math::{Delta, Diagnostics};
use palinode_model::{Decoder, Text, WeightId, read};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::artifacts::chat::in_chat;
use crate::artifacts::model::{HasModel, ModelKind, open};
use crate::artifacts::requests::{RequestsKind, contents, requests};
use crate::artifacts::update::{Batch, BatchFacts, LayerFacts, Rounds, UpdateFacts, from_bytes, put, to_bytes};
use crate::edit::solve::{averages, columns};
use crate::errors::StageFailure;
use crate::units;

/// What a round makes.
pub struct Made {
    /// Weight, change, and the values of a solve where there was one.
    pub changes: Vec<(WeightId, Delta, Option<Diagnostics>)>,
    /// The loss that it ended with, where it has one.
    pub loss: Option<f64>,
}

/// Each round is a unit.
pub fn rounds_of(edits: usize, size: usize) -> UnitPlan {
    UnitPlan::new("edits", edits, size).in_one_part()
}

/// Edits requests in rounds of `size`; `with` is all else that a change depends on. `state` goes from round to round, and is kept with each.
pub fn in_rounds<S: Clone + Default + Serialize + DeserializeOwned>(
    cx: &StageContext,
    base: &Given<'_, ModelKind>,
    asked: &Given<'_, RequestsKind>,
    size: Option<usize>,
    with: &Value,
    mut edit: impl FnMut(&Decoder, &Text, &[EditRequest], &mut S) -> Result<Made, Error>,
) -> Result<Artifact, Error> {
    let requests = requests(cx, asked)?;
    let model = in_chat(open(cx, base)?, asked.facts.chat.as_ref())?;
    let size = size.unwrap_or(requests.len()).max(1);
    let plan = rounds_of(requests.len(), size);
    let bar = cx.progress(plan.what, Some(plan.items as u64));
    let mut rounds = Rounds::new();
    let mut done = Vec::new();
    let mut state = S::default();
    let mut losses = Vec::new();
    let mut key = cx.unit_key(&json!({ "base": base.base(), "with": with, "chat": asked.facts.chat }));
    for range in batches(&requests, size) {
        let block = &requests[range];
        cx.check_interrupt()?;
        key = units::key(cx, &json!({ "after": key.to_string(), "block": block }), &Value::Null);
        let beside = cx.unit_key(&json!({ "state": key.to_string() }));
        let known = cx.get_unit(&key).and_then(|bytes| from_bytes(bytes).ok());
        let left = cx.get_unit(&beside).and_then(|bytes| serde_json::from_slice::<(S, Option<f64>)>(&bytes).ok());
        let batch = if let (Some(batch), Some((after, loss))) = (known, left) {
            bar.keep(block.len() as u64);
            state = after;
            losses.extend(loss);
            batch
        } else {
            let now = with_edits(&model.decoder, rounds.sums()).map_err(StageFailure::stage)?;
            let made = edit(&now, &model.text, block, &mut state)?;
            let start = rounds.edits();
            let layers = made.changes.iter().map(|change| facts(&now, change)).collect::<Result<Vec<_>, _>>()?;
            let end = start + block.len();
            let facts = BatchFacts { start, end, distance_before: None, distance_after: None, layers };
            let updates = made.changes.into_iter().map(|(weight, delta, _)| (weight, delta)).collect();
            let batch = Batch::new(facts, updates);
            let kept = serde_json::to_vec(&(&state, made.loss)).map_err(|error| Error::internal(error.to_string()))?;
            // The state first: a round counts as kept when both are.
            cx.put_unit(&beside, &kept)?;
            cx.put_unit(&key, &to_bytes(&batch)?)?;
            losses.extend(made.loss);
            bar.inc(block.len() as u64);
            batch
        };
        rounds.push(&batch)?;
        if let Some(loss) = losses.last() {
            cx.measured("loss after the round", ("edits", rounds.edits()), *loss);
        }
        cx.measured("‖Δ‖ of the round", ("edits", rounds.edits()), batch.norm());
        done.push(batch);
    }
    let mut metrics: Values = averages(&done);
    metrics.insert("total_norm".into(), shown::number(rounds.norm()));
    if !losses.is_empty() {
        metrics.insert("loss".into(), shown::number(losses.iter().sum::<f64>() / losses.len() as f64));
    }
    let mut columns = columns();
    columns.push(Column::new("total_norm", "‖ΣΔ‖", Format::Number));
    columns.push(Column::new("loss", "final loss", Format::Number));
    columns.retain(|column| metrics.contains_key(&column.name));
    let facts = UpdateFacts {
        model: base.facts.model.clone(),
        base: base.base(),
        asked: Some(contents(asked)?),
        requests: Some(requests.iter().map(|request| request.id.clone()).collect()),
        objective: with.clone(),
        plan: Value::Null,
        batches: 1,
        rounds: Some(rounds.facts().to_vec()),
        projectors: None,
        care: None,
        shown: Shown::table(metrics, columns),
    };
    put(cx, base, &[rounds.whole()], &facts)
}

/// What is known of a change of a weight of `model`.
fn facts(model: &Decoder, change: &(WeightId, Delta, Option<Diagnostics>)) -> Result<LayerFacts, Error> {
    let (weight, delta, diagnostics) = change;
    let before = model.weight(*weight).map_err(StageFailure::stage)?;
    let squares: Vec<f32> = read((before.clone() * before).sum_dim(1)).map_err(StageFailure::stage)?;
    let norm = delta.frobenius();
    let unedited = squares.into_iter().map(f64::from).sum::<f64>().sqrt();
    Ok(LayerFacts {
        weight: *weight,
        fraction: 1.0,
        preservation: diagnostics.as_ref().map(|solve| solve.preservation),
        error_before: diagnostics.as_ref().map(|solve| solve.error_before),
        error_after: diagnostics.as_ref().map(|solve| solve.error_after),
        norm,
        spectral_norm: delta.spectral(),
        // A bias may be 0, and nothing is a share of that.
        relative_norm: if unedited > 0.0 { norm / unedited } else { 0.0 },
        condition: diagnostics.as_ref().map(|solve| solve.condition),
    })
}
