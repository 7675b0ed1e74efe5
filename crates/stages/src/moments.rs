//! Second moments on their way between stages.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use palinode_engine::{Artifact, FileRef, Key, StageContext, StageError};
use palinode_math::{Factor, Mat, Preservation, SecondMoment};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::StageFailure;
use crate::tensors::{Named, Tensors, put, serialize};

/// The kind of the artifact.
pub const MOMENTS: &str = "moments";

/// What the artifact tells of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The layer.
    pub layer: usize,
    /// Tokens counted.
    pub tokens: u64,
    /// Trace of `C`: the mean squared norm of a key.
    pub trace: f64,
}

/// Puts a layer's sum into the store.
pub fn put_layer(cx: &StageContext, moment: &SecondMoment) -> Result<FileRef, StageError> {
    let f = moment.size();
    let sum = moment.sum();
    put(cx, &[Named::f64("sum", &Mat::from_fn(f, f, |i, j| sum[i * f + j]))])
}

/// The logical name of a layer's file.
pub fn file_name(layer: usize) -> String {
    format!("layer{layer}.safetensors")
}

/// The layers that a `moments` artifact, or the description of one, has.
pub fn layers(meta: &Value) -> Option<Vec<usize>> {
    let layers: Vec<LayerFacts> = serde_json::from_value(meta["layers"].clone()).ok()?;
    Some(layers.into_iter().map(|l| l.layer).collect())
}

/// How far a layer's sum has come over a corpus: what a later run goes on from.
pub struct Head {
    /// Blocks of documents counted.
    pub blocks: usize,
    /// Their sum.
    pub moment: SecondMoment,
}

impl Head {
    /// The furthest one kept under a key, if it is of no more than `most` blocks.
    pub fn get(cx: &StageContext, key: &Key, most: usize) -> Option<Self> {
        let tensors = Tensors::new(cx.get_unit(key)?);
        let [blocks, tokens] = serde_json::from_str::<[u64; 2]>(&tensors.note("head")?).ok()?;
        let (shape, sum) = tensors.values("sum").ok()?;
        let moment = SecondMoment::from_sum(&sum, *shape.first()?, tokens).ok()?;
        (blocks as usize <= most).then_some(Self { blocks: blocks as usize, moment })
    }

    /// Keeps a layer's sum after so many blocks, in the place of what was kept before.
    pub fn put(cx: &StageContext, key: &Key, blocks: usize, moment: &SecondMoment) -> Result<(), StageError> {
        let f = moment.size();
        let sum = moment.sum();
        let note = HashMap::from([("head".to_owned(), format!("[{blocks}, {}]", moment.count()))]);
        let sum = Named::f64("sum", &Mat::from_fn(f, f, |i, j| sum[i * f + j]));
        cx.put_unit(key, &serialize(&[sum], Some(note))?)
    }
}

fn read_layer(cx: &StageContext, artifact: &Artifact, layer: usize) -> Result<SecondMoment, StageError> {
    let known: Vec<LayerFacts> = serde_json::from_value(artifact.meta["layers"].clone())
        .map_err(|error| StageError::internal(format!("stored second moments: {error}")))?;
    let Some(facts) = known.iter().find(|facts| facts.layer == layer) else {
        return Err(StageError::input(format!("there is no second moment of layer {layer}"))
            .hint("add the layer to `layers` of the covariance stage"));
    };
    let file = crate::model::file(artifact, &file_name(layer))?;
    let (shape, sum) = Tensors::read(cx, file)?.values("sum")?;
    SecondMoment::from_sum(&sum, shape[0], facts.tokens).map_err(StageFailure::stage)
}

/// Factors of `P = λC + ρI` for some layers. Without a ridge λ only scales `P`: one factorisation serves a whole sweep.
pub fn factors(
    cx: &StageContext,
    artifact: &Artifact,
    layers: &[usize],
    weights: Preservation,
) -> Result<BTreeMap<usize, Factor>, StageError> {
    let unit = Preservation { lambda: if weights.rho == 0.0 { 1.0 } else { weights.lambda }, ..weights };
    let name = format!("factors:{}:{}:{}", artifact.digest(), unit.lambda, unit.rho);
    let cache: Arc<Mutex<BTreeMap<usize, Factor>>> = cx.shared(&name, || Ok(Mutex::default()))?;
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = BTreeMap::new();
    for &layer in layers {
        let factor = match cache.entry(layer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(missing) => {
                let moment = read_layer(cx, artifact, layer)?;
                let factor = Factor::new(&moment, unit).map_err(|error| {
                    let error = error.stage();
                    StageError { message: format!("layer {layer}: {}", error.message), ..error }
                })?;
                missing.insert(factor)
            }
        };
        found.insert(layer, factor.rescaled(weights.lambda).unwrap_or_else(|| factor.clone()));
    }
    Ok(found)
}
