//! Second moments on their way between stages.

use std::collections::HashMap;
use std::ops::Range;

use palinode_engine::{Artifact, Digest, FileRef, Key, StageContext, StageError};
use palinode_math::SecondMoment;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::tensors::{Named, Tensors, put, serialize};
use crate::errors::StageFailure;

/// The kind of the artifact.
pub const MOMENTS: &str = "moments";
/// What to do where a layer has no second moment.
pub const MISSING: &str = "add the layer to the stage that measures or loads them";

/// What the artifact records of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The layer.
    pub layer: usize,
    /// Tokens counted.
    pub tokens: u64,
    /// Trace of `C`: the mean squared norm of a key.
    pub trace: f64,
}

impl LayerFacts {
    fn of(layer: usize, moment: &SecondMoment) -> Self {
        Self { layer, tokens: moment.count(), trace: moment.trace() }
    }

    /// Before anything is measured.
    pub fn planned(layer: usize) -> Self {
        Self { layer, tokens: 0, trace: 0.0 }
    }
}

/// Second moments of a model, put together layer by layer.
pub struct Gathered {
    base: String,
    layers: Vec<LayerFacts>,
    files: Vec<(String, FileRef)>,
}

impl Gathered {
    /// Of no layer yet, of the model of this digest.
    pub fn new(base: String) -> Self {
        Self { base, layers: Vec::new(), files: Vec::new() }
    }

    /// Puts a layer's sum into the store.
    pub fn put(&mut self, cx: &StageContext, layer: usize, moment: &SecondMoment) -> Result<(), StageError> {
        self.files.push((file_name(layer), put(cx, &[sum(moment)])?));
        self.layers.push(LayerFacts::of(layer, moment));
        Ok(())
    }

    /// The artifact. `documents` is how many were read, where that is known; `sources` are the contents that sums were
    /// measured on or read from: what shares one of them must not be added up.
    pub fn artifact(self, documents: Option<u64>, mut sources: Vec<Digest>) -> Artifact {
        sources.sort_unstable();
        sources.dedup();
        let tokens = self.layers.iter().map(|layer| layer.tokens).max().unwrap_or(0);
        let meta = json!({
            "base": self.base,
            "documents": documents,
            "tokens": tokens,
            "layers": self.layers,
            "sources": sources,
        });
        let files = self.files.into_iter();
        files.fold(Artifact::new(MOMENTS, meta), |made, (name, file)| made.with_file(&name, file))
    }
}

fn sum(moment: &SecondMoment) -> Named {
    let f = moment.size();
    Named::values("sum", vec![f, f], (0..f).flat_map(|i| moment.row(i)))
}

/// The logical name of a layer's file.
pub fn file_name(layer: usize) -> String {
    format!("layer{layer}.safetensors")
}

/// What an artifact, or its description, records of its layers.
pub fn facts(meta: &Value) -> Option<Vec<LayerFacts>> {
    serde_json::from_value(meta["layers"].clone()).ok()
}

/// The layers that a `moments` or `factors` artifact, or the description of one, has.
pub fn layers(meta: &Value) -> Option<Vec<usize>> {
    Some(facts(meta)?.into_iter().map(|l| l.layer).collect())
}

/// The contents that sums were measured on or read from.
pub fn sources(artifact: &Artifact) -> Result<Vec<Digest>, StageError> {
    serde_json::from_value(artifact.meta["sources"].clone())
        .map_err(|error| StageError::internal(format!("stored second moments: {error}")))
}

/// A layer's sum over some units of a corpus, as it is kept: what a later run goes on from.
pub struct Head {
    /// The first unit that is counted.
    pub from: usize,
    /// The end of the units that are counted.
    pub units: usize,
    /// Their sum.
    pub moment: SecondMoment,
}

impl Head {
    /// What is kept under a key.
    pub fn get(cx: &StageContext, key: &Key) -> Option<Self> {
        let tensors = Tensors::new(cx.get_unit(key)?);
        let (from, units, tokens) = match serde_json::from_str::<Vec<u64>>(&tensors.note("head")?).ok()?[..] {
            [from, units, tokens] => (from, units, tokens),
            // Before sums had parts, all of them began with the corpus.
            [units, tokens] => (0, units, tokens),
            _ => return None,
        };
        let (shape, sum) = tensors.values("sum").ok()?;
        let moment = SecondMoment::from_sum(&sum, *shape.first()?, tokens).ok()?;
        Some(Self { from: from as usize, units: units as usize, moment })
    }

    /// Keeps it, in the place of what was kept before.
    pub fn put(&self, cx: &StageContext, key: &Key) -> Result<(), StageError> {
        Self::put_sum(cx, key, self.from..self.units, &self.moment)
    }

    /// Keeps a layer's sum over some units, in the place of what was kept before.
    pub fn put_sum(cx: &StageContext, key: &Key, units: Range<usize>, moment: &SecondMoment) -> Result<(), StageError> {
        let note = format!("[{}, {}, {}]", units.start, units.end, moment.count());
        let note = HashMap::from([("head".to_owned(), note)]);
        cx.put_unit(key, &serialize(&[sum(moment)], Some(note))?)
    }
}

/// The second moment of a layer.
pub fn read_layer(cx: &StageContext, artifact: &Artifact, layer: usize) -> Result<SecondMoment, StageError> {
    let facts = known(artifact, layer)?;
    let file = crate::artifacts::model::file(artifact, &file_name(layer))?;
    let (shape, sum) = Tensors::read(cx, file)?.values("sum")?;
    SecondMoment::from_sum(&sum, shape[0], facts.tokens).map_err(StageFailure::stage)
}

/// What is known of a layer that a `moments` or `factors` artifact must have.
pub fn known(artifact: &Artifact, layer: usize) -> Result<LayerFacts, StageError> {
    let known = facts(&artifact.meta)
        .ok_or_else(|| StageError::internal(format!("the {} tell nothing of their layers", artifact.kind)))?;
    known
        .into_iter()
        .find(|facts| facts.layer == layer)
        .ok_or_else(|| StageError::input(format!("there is no second moment of layer {layer}")).hint(MISSING))
}
