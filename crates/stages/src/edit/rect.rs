//! `rect`: after-care by RECT, from an update to an update.

use std::collections::BTreeMap;

use palinode_engine::bounds::PositiveShare;
use palinode_engine::shown::{self, Column, Format, Shown};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind};
use palinode_math::{Delta, Mat, from_row_major, rect};
use palinode_model::{Decoder, WeightId, read};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::artifacts::model::{decides_nothing, open};
use crate::artifacts::update::{Batch, LayerFacts, PlannedUpdate, RoundFacts, UpdateFacts, UpdateKind, batches, put};
use crate::edit::solve::{EFFECTIVE_LAMBDA, averages, columns};
use crate::errors::StageFailure;

/// Parameters of `rect`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RectParams {
    /// The share of a weight's entries that may change: those whose change is largest relative to the entry itself. With 1,
    /// nothing is dropped.
    #[serde(default = "published")]
    keep: PositiveShare,
}

fn published() -> PositiveShare {
    const { PositiveShare::new(0.4) }
}

/// The update.
const UPDATE: PortOf<UpdateKind> = PortOf::required("update", "The update to treat.");

/// See [`StageKind::DOC`].
pub struct Rect;

impl StageKind for Rect {
    type Params = RectParams;
    const NAME: &'static str = "rect";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Keeps an update's largest relative changes and drops the others (RECT).";
    const DOC: &'static str = "\
After-care for an update: of each changed weight W, only the entries with the largest |Δ / W| keep their change, and all \
others go back to what they were (RECT, arXiv 2401.04700, which found that large edits damage a model's abilities through \
many small relative changes). The weights are those of the unedited model. The published share is 0.4.

The result is an update like that of `solve`, and can be evaluated, exported, applied and reverted. It is no longer low-rank: \
it is kept as the entries that changed, or as whole weights where that takes less space, and it cannot become a LoRA adapter. \
After a `sequence`, the sum of all rounds is treated once, at the end, and its rounds cannot be measured one by one.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(UPDATE.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn inputs() -> Vec<Port> {
        vec![UPDATE.port()]
    }

    fn describe(params: &RectParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        let update = cx.input(UPDATE);
        let low_rank = if params.keep.get() < 1.0 { Some(false) } else { update.low_rank };
        Ok(PlannedUpdate { low_rank, ..update })
    }

    fn run(params: &RectParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(UPDATE)?;
        let decoder = &open(cx, &given)?.decoder;
        let given_batches = batches(cx, &given)?;
        let weights: usize = given_batches.iter().map(|batch| batch.updates.len()).sum();
        let bar = cx.progress("weights", Some(weights as u64));
        let mut treated = Vec::with_capacity(given_batches.len());
        let mut shares = Vec::with_capacity(weights);
        for Batch { mut facts, updates } in given_batches {
            let mut kept = Vec::with_capacity(updates.len());
            for ((id, delta), facts) in updates.into_iter().zip(&mut facts.layers) {
                cx.check_interrupt()?;
                let weight = matrix(decoder, id)?;
                let rest = rect(&delta, weight.as_ref(), params.keep.get()).map_err(StageFailure::stage)?;
                if params.keep.get() < 1.0 {
                    restate(facts, &rest, &weight);
                }
                shares.push(changed(&rest));
                kept.push((id, rest));
                bar.inc(1);
            }
            if params.keep.get() < 1.0 {
                facts.distance_after = None;
            }
            treated.push(Batch { facts, updates: kept });
        }
        let mut metrics = averages(&treated);
        metrics.insert("changed".into(), shown::number(shares.iter().sum::<f64>() / shares.len().max(1) as f64));
        let known = given.facts.shown.metrics.as_ref();
        metrics
            .extend(known.and_then(|known| known.get_key_value(EFFECTIVE_LAMBDA)).map(|(n, v)| (n.clone(), v.clone())));
        let mut columns = columns();
        columns.push(Column::new("changed", "changed", Format::Percent));
        columns.retain(|column| metrics.contains_key(&column.name));
        let care = Map::from_iter([(Self::NAME.to_owned(), json!(params))]);
        let whole = |round: RoundFacts| {
            if params.keep.get() < 1.0 { RoundFacts { rank: BTreeMap::new(), ..round } } else { round }
        };
        let facts = given.facts.clone();
        let facts = UpdateFacts {
            care: Some(facts.care.into_iter().flatten().chain([care]).collect()),
            rounds: facts.rounds.map(|rounds| rounds.into_iter().map(whole).collect()),
            shown: Shown { metrics: Some(metrics), columns: Some(columns), ..facts.shown },
            ..facts
        };
        put(cx, &given, &treated, &facts)
    }
}

/// A weight of the unedited model, `[out, in]`.
fn matrix(decoder: &Decoder, id: WeightId) -> Result<Mat<f64>, Error> {
    let weight = decoder.weight(id).map_err(StageFailure::stage)?;
    let [input, out] = weight.dims();
    let values: Vec<f32> = read(weight).map_err(StageFailure::stage)?;
    let turned = from_row_major("weight", &values, input, out).map_err(StageFailure::stage)?;
    Ok(turned.transpose().to_owned())
}

/// What is known of a change that is no longer the one that was solved.
fn restate(facts: &mut LayerFacts, delta: &Delta, weight: &Mat<f64>) {
    let norm = delta.frobenius();
    *facts = LayerFacts {
        preservation: None,
        error_after: None,
        norm,
        spectral_norm: delta.spectral(),
        relative_norm: norm / weight.norm_l2(),
        ..facts.clone()
    };
}

/// The share of a weight's entries that a change changes.
fn changed(delta: &Delta) -> f64 {
    let [out, input] = delta.shape();
    let count = match delta {
        Delta::Sparse(sparse) => sparse.values().len(),
        other => {
            let dense = other.dense();
            (0..input).map(|j| (0..out).filter(|&i| dense[(i, j)] != 0.0).count()).sum()
        }
    };
    count as f64 / (out * input).max(1) as f64
}
