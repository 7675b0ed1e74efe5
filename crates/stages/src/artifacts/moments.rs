//! Second moments on their way between stages.

use std::collections::HashMap;
use std::ops::Range;

use palinode_engine::{Artifact, Digest, Error, FileRef, Key, Kind, StageContext, artifact};
use palinode_math::SecondMoment;
use serde::{Deserialize, Serialize};

use crate::artifacts::tensors::{Named, Tensors, put, serialize};
use crate::errors::StageFailure;

/// Second moments of keys.
pub struct MomentsKind;

impl Kind for MomentsKind {
    const NAME: &'static str = "moments";
    type Facts = MomentsFacts;
    type Planned = PlannedMoments;
}

/// What second moments say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct MomentsFacts {
    /// The model that they were measured on, by its digest.
    pub base: String,
    /// How many documents were read, where that is known.
    pub documents: Option<u64>,
    /// The most tokens that a layer counts.
    #[serde(default)]
    pub tokens: u64,
    /// The layers.
    pub layers: Vec<LayerFacts>,
    /// The contents that sums were measured on or read from. What was stored before this was recorded cannot be merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Digest>>,
}

/// What is known of second moments before they are measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedMoments {
    /// The layers.
    pub layers: Option<Vec<usize>>,
}
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
    /// The mean of `kᵀC⁻¹k/f` over a sample of its own corpus, each document by the `C` of all others; `None` where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// How far the halves of the text are from each other; `None` where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halves: Option<Halves>,
}

/// How far what was measured on one half of the text is from what was measured on the other: even and odd units of documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Halves {
    /// `‖C₁ − C₂‖ / ‖C‖`, Frobenius: `C` is off by half of it.
    pub moment: f64,
    /// The mean of `‖u₁ − u₂‖ / ‖u‖` over keys `k` of the text, with `u = C⁻¹k / kᵀC⁻¹k`, the direction of a change that writes that key's
    /// value; `None` where one half has no inverse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<f64>,
}

/// A layer's sum in the store.
#[derive(Serialize, Deserialize)]
pub struct Put {
    /// The sum.
    pub file: FileRef,
    layer: usize,
    tokens: u64,
    /// The bits of a floating-point number, of which JSON does not keep the last.
    trace: u64,
}

impl Put {
    /// Puts a layer's sum into the store.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn new(cx: &StageContext, layer: usize, moment: &SecondMoment) -> Result<Self, Error> {
        let file = put(cx, &[sum(moment)])?;
        Ok(Self { file, layer, tokens: moment.count(), trace: moment.trace().to_bits() })
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
    pub fn put(&mut self, cx: &StageContext, layer: usize, moment: &SecondMoment) -> Result<(), Error> {
        self.add(Put::new(cx, layer, moment)?);
        Ok(())
    }

    /// Takes in a layer whose sum is in the store.
    pub fn add(&mut self, put: Put) {
        let trace = f64::from_bits(put.trace);
        self.files.push((file_name(put.layer), put.file));
        self.layers.push(LayerFacts { layer: put.layer, tokens: put.tokens, trace, held_out: None, halves: None });
    }

    /// What was put of each layer, in the order of putting: one in memory at a time, which a caller lets go of.
    pub fn layers(&self, cx: &StageContext) -> impl Iterator<Item = (usize, Result<SecondMoment, Error>)> {
        let parts = self.layers.iter().zip(&self.files);
        parts.map(|(facts, (_, file))| (facts.layer, of_file(cx, file, facts.tokens)))
    }

    /// Records how the layers fit their own corpus, in the order of putting.
    pub fn held_out(&mut self, found: Vec<Option<f64>>) {
        self.layers.iter_mut().zip(found).for_each(|(layer, found)| layer.held_out = found);
    }

    /// Records how far the halves of the layer that was put last are from each other.
    pub fn halves(&mut self, halves: Option<Halves>) {
        if let Some(layer) = self.layers.last_mut() {
            layer.halves = halves;
        }
    }

    /// What is known of the layers, in the order of putting.
    pub fn facts(&self) -> &[LayerFacts] {
        &self.layers
    }

    /// The artifact. `documents` is how many were read, where that is known; `sources` are the contents that sums were
    /// measured on or read from: what shares one of them must not be added up.
    pub fn artifact(self, documents: Option<u64>, mut sources: Vec<Digest>) -> Result<Artifact, Error> {
        sources.sort_unstable();
        sources.dedup();
        let tokens = self.layers.iter().map(|layer| layer.tokens).max().unwrap_or(0);
        let facts = MomentsFacts { base: self.base, documents, tokens, layers: self.layers, sources: Some(sources) };
        let made = artifact::<MomentsKind>(&facts)?;
        Ok(self.files.into_iter().fold(made, |made, (name, file)| made.with_file(&name, file)))
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

impl MomentsFacts {
    /// The numbers of the layers.
    pub fn numbers(&self) -> Vec<usize> {
        self.layers.iter().map(|facts| facts.layer).collect()
    }
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
        let moment = match tensors.note("odd") {
            Some(odd) => SecondMoment::from_kept(&sum, tokens, (&tensors.values("odd").ok()?.1, odd.parse().ok()?)),
            None => SecondMoment::from_sum(&sum, *shape.first()?, tokens),
        };
        let moment = moment.ok()?;
        Some(Self { from: from as usize, units: units as usize, moment })
    }

    /// Keeps it, in the place of what was kept before.
    pub fn put(&self, cx: &StageContext, key: &Key) -> Result<(), Error> {
        Self::put_sum(cx, key, self.from..self.units, &self.moment)
    }

    /// Keeps a layer's sum over some units, in the place of what was kept before.
    pub fn put_sum(cx: &StageContext, key: &Key, units: Range<usize>, moment: &SecondMoment) -> Result<(), Error> {
        let note = format!("[{}, {}, {}]", units.start, units.end, moment.count());
        let mut notes = HashMap::from([("head".to_owned(), note)]);
        let Some((odd, tokens)) = moment.kept_odd() else {
            return cx.put_unit(key, &serialize(&[sum(moment)], Some(notes))?);
        };
        // The odd units' sum takes the half of the square that a symmetric matrix has twice.
        notes.insert("odd".to_owned(), tokens.to_string());
        let f = moment.size();
        let rows = Named::values("sum", vec![f, f], (0..f).flat_map(|i| moment.kept_row(i)));
        let odd = Named::values("odd", vec![f], odd.iter().copied());
        cx.put_unit(key, &serialize(&[rows, odd], Some(notes))?)
    }
}

/// The second moment of a layer.
///
/// `layers` are the facts of `artifact`, which is one of second moments.
pub fn read_layer(
    cx: &StageContext,
    artifact: &Artifact,
    layers: &[LayerFacts],
    layer: usize,
) -> Result<SecondMoment, Error> {
    let facts = known(layers, layer)?;
    of_file(cx, crate::artifacts::model::file(artifact, &file_name(layer))?, facts.tokens)
}

fn of_file(cx: &StageContext, file: &FileRef, tokens: u64) -> Result<SecondMoment, Error> {
    moment_of(&Tensors::read(cx, file)?, tokens)
}

/// A layer's second moment, of a file that holds its sum over so many tokens.
pub fn moment_of(tensors: &Tensors, tokens: u64) -> Result<SecondMoment, Error> {
    let (shape, sum) = tensors.values("sum")?;
    let f = shape.first().copied().unwrap_or_default();
    SecondMoment::from_sum(&sum, f, tokens).map_err(StageFailure::stage)
}

/// What is known of a layer that second moments or factors must have.
pub fn known(layers: &[LayerFacts], layer: usize) -> Result<&LayerFacts, Error> {
    layers
        .iter()
        .find(|facts| facts.layer == layer)
        .ok_or_else(|| Error::input(format!("there is no second moment of layer {layer}")).hint(MISSING))
}
