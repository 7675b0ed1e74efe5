//! Cholesky factors on their way between stages: from the store, or made of second moments and kept for a run.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use palinode_edit::Preservations;
use palinode_engine::{Artifact, FieldError, FileRef, StageContext, StageError};
use palinode_math::{Factor, MathError, Preservation, PreservationWeights, SecondMoment};
use palinode_model::WeightId;
use serde_json::{Map, Value, json};

use crate::artifacts::moments::{file_name, known, read_layer};
use crate::artifacts::tensors::{Named, Tensors, put};
use crate::errors::StageFailure;

/// The kind of the artifact.
pub const FACTORS: &str = "factors";

/// The weights that are factored for. Without a ridge λ only scales `P`: one factorisation, with λ = 1, serves a whole sweep.
pub fn factored(weights: PreservationWeights) -> PreservationWeights {
    PreservationWeights { lambda: if weights.rho == 0.0 { 1.0 } else { weights.lambda }, ..weights }
}

/// What a `factors` artifact and its description record of their weights.
pub fn weights(of: PreservationWeights) -> Map<String, Value> {
    Map::from_iter([("lambda".to_owned(), json!(of.lambda)), ("update_norm_lambda".to_owned(), json!(of.rho))])
}

/// The weights of a `factors` artifact, or of the description of one; `None` for second moments, of which a factor with any
/// weights can be made.
fn fixed(meta: &Value) -> Option<PreservationWeights> {
    Some(PreservationWeights { lambda: meta["lambda"].as_f64()?, rho: meta["update_norm_lambda"].as_f64()? })
}

/// Why factors cannot serve other weights, where that is so.
pub fn mismatch(meta: &Value, weights: PreservationWeights) -> Option<FieldError> {
    let have = fixed(meta)?;
    let hint = "let `factor` and what takes from it have the same weights, or take the second moments themselves";
    if have.rho != weights.rho {
        let message = format!("`update_norm_lambda` is {}, but the factors are of {}", weights.rho, have.rho);
        return Some(FieldError::new("update_norm_lambda", message).hint(hint));
    }
    if have != factored(weights) {
        let message = format!("`lambda` is {}, but the factors are of {} with a ridge", weights.lambda, have.lambda);
        return Some(FieldError::new("lambda", message).hint(hint));
    }
    None
}

/// Factors a layer's metric.
pub fn factor(layer: usize, moment: &SecondMoment, weights: PreservationWeights) -> Result<Factor, StageError> {
    Factor::new(moment, weights).map_err(|error| {
        let error = error.stage();
        StageError { message: format!("layer {layer}: {}", error.message), ..error }
    })
}

/// Puts a layer's factor into the store: the rows of `L` up to the diagonal, one after the other.
pub fn put_layer(cx: &StageContext, factor: &Factor) -> Result<FileRef, StageError> {
    let f = factor.size();
    let rows = (0..f).flat_map(|i| factor.row(i));
    put(cx, &[Named::values("lower", vec![f * (f + 1) / 2], rows)])
}

fn get_layer(
    cx: &StageContext,
    artifact: &Artifact,
    layer: usize,
    weights: PreservationWeights,
) -> Result<Factor, StageError> {
    known(artifact, layer)?;
    let file = crate::artifacts::model::file(artifact, &file_name(layer))?;
    let (_, values) = Tensors::read(cx, file)?.values("lower")?;
    // Of n values f (f + 1) / 2 = n, so f ≤ √(2n) < f + 1.
    let mut rows = values.as_slice();
    Factor::from_rows((2 * values.len()).isqrt(), weights, |i, row| {
        let (these, rest) = rows.split_at_checked(i + 1).ok_or(MathError::Dimension {
            what: "stored factor",
            found: values.len(),
            expected: values.len() + i + 1 - rows.len(),
        })?;
        row.copy_from_slice(these);
        rows = rest;
        Ok(())
    })
    .map_err(|error: MathError| StageError::internal(format!("stored factor of layer {layer}: {error}")))
}

/// Preservations `P = λC + ρI` of some layers, from factors or of second moments.
pub fn metrics(
    cx: &StageContext,
    artifact: &Artifact,
    layers: &[usize],
    weights: PreservationWeights,
) -> Result<Preservations, StageError> {
    let stored = fixed(&artifact.meta);
    if let Some(error) = mismatch(&artifact.meta, weights) {
        let made = StageError::input(error.message);
        return Err(error.hint.into_iter().fold(made, StageError::hint));
    }
    let unit = factored(weights);
    let name = format!("factors:{}:{}:{}", artifact.digest(), unit.lambda, unit.rho);
    let cache: Arc<Mutex<BTreeMap<usize, Factor>>> = cx.shared(&name, || Ok(Mutex::default()))?;
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Preservations::new();
    for &layer in layers {
        let factor = match cache.entry(layer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(missing) => missing.insert(match stored {
                Some(_) => get_layer(cx, artifact, layer, unit)?,
                None => factor(layer, &read_layer(cx, artifact, layer)?, unit)?,
            }),
        };
        found
            .insert(WeightId::down(layer), Arc::new(factor.rescaled(weights.lambda).unwrap_or_else(|| factor.clone())));
    }
    Ok(found)
}
