//! What all after-care has in common: every change of an update is treated for its weight, and what is known of it is said anew.

use std::collections::BTreeMap;

use palinode_engine::shown::{self, Column, Format, Shown};
use palinode_engine::{Artifact, Error, PortOf, StageContext};
use palinode_math::{Delta, Mat, MathError, from_row_major};
use palinode_model::{Decoder, MlpModule, WeightId, read};
use serde::Serialize;
use serde_json::{Map, json};

use crate::artifacts::model::open;
use crate::artifacts::update::{Batch, LayerFacts, RoundFacts, UpdateFacts, UpdateKind, batches, put};
use crate::edit::solve::{EFFECTIVE_LAMBDA, averages, columns};
use crate::errors::StageFailure;

/// How a stage treats updates.
#[derive(Clone, Copy)]
pub struct Care {
    /// The stage.
    pub name: &'static str,
    /// Whether its parameters leave every update as it is.
    pub nothing: bool,
    /// Whether the columns of a treated factor are still those of the rounds of a sequence.
    pub by_round: bool,
    /// Whether the share of entries that changed is worth telling.
    pub entries: bool,
}

/// Treats every change of the update at a port, given with its weight of the unedited model, `[out, in]`.
pub fn treat(
    care: Care,
    params: &impl Serialize,
    cx: &StageContext,
    port: PortOf<UpdateKind>,
    treatment: impl Fn(&Decoder, &Delta, &Mat<f64>) -> Result<Delta, MathError>,
) -> Result<Artifact, Error> {
    let given = cx.input(port)?;
    let decoder = &open(cx, &given)?.decoder;
    let given_batches = batches(cx, &given)?;
    let weights: usize = given_batches.iter().map(|batch| batch.updates.len()).sum();
    let bar = cx.progress("weights", Some(weights as u64));
    let mut treated = Vec::with_capacity(given_batches.len());
    let mut shares = Vec::with_capacity(weights);
    for Batch { mut facts, updates, .. } in given_batches {
        let mut kept = Vec::with_capacity(updates.len());
        for ((id, delta), facts) in updates.into_iter().zip(&mut facts.layers) {
            cx.check_interrupt()?;
            bar.inc(1);
            if id.module == MlpModule::Bias {
                // What these methods treat is a matrix.
                kept.push((id, delta));
                continue;
            }
            let weight = matrix(decoder, id)?;
            let rest = treatment(decoder, &delta, &weight).map_err(StageFailure::stage)?;
            if !care.nothing {
                restate(facts, &rest, &weight);
            }
            if care.entries {
                shares.push(changed(&rest));
            }
            kept.push((id, rest));
        }
        if !care.nothing {
            facts.distance_after = None;
        }
        treated.push(Batch::new(facts, kept));
    }
    let mut metrics = averages(&treated);
    if care.entries {
        metrics.insert("changed".into(), shown::number(shares.iter().sum::<f64>() / shares.len().max(1) as f64));
    }
    let known = given.facts.shown.metrics.as_ref();
    metrics.extend(known.and_then(|known| known.get_key_value(EFFECTIVE_LAMBDA)).map(|(n, v)| (n.clone(), v.clone())));
    let mut columns = columns();
    columns.push(Column::new("changed", "changed", Format::Percent));
    columns.retain(|column| metrics.contains_key(&column.name));
    let said = Map::from_iter([(care.name.to_owned(), json!(params))]);
    let whole = |round: RoundFacts| {
        if care.nothing || care.by_round { round } else { RoundFacts { rank: BTreeMap::new(), ..round } }
    };
    let facts = given.facts.clone();
    let facts = UpdateFacts {
        care: Some(facts.care.into_iter().flatten().chain([said]).collect()),
        rounds: facts.rounds.map(|rounds| rounds.into_iter().map(whole).collect()),
        shown: Shown { metrics: Some(metrics), columns: Some(columns), ..facts.shown },
        ..facts
    };
    put(cx, &given, &treated, &facts)
}

/// A weight of a model, `[out, in]`.
pub fn matrix(decoder: &Decoder, id: WeightId) -> Result<Mat<f64>, Error> {
    let weight = decoder.weight(id).map_err(StageFailure::stage)?;
    let [input, out] = weight.dims();
    let values: Vec<f32> = read(weight).map_err(StageFailure::stage)?;
    let turned = from_row_major("weight", &values, input, out).map_err(StageFailure::stage)?;
    Ok(turned.transpose().to_owned())
}

/// What is known of a change that is no longer the one that was solved.
pub fn restate(facts: &mut LayerFacts, delta: &Delta, weight: &Mat<f64>) {
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
