//! Second moments on their way between stages.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use palinode_engine::{Artifact, Digest, Error, FileRef, Key, Kind, StageContext, artifact};
use palinode_math::{KeptPart, MathError, PartFactors, PreservationWeights, SecondMoment};
use serde::{Deserialize, Serialize};

use crate::artifacts::tensors::{Named, OneByOne, Streamed, Tensors, put_streamed, serialize};
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
    /// The first of them that is a mixture of experts, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixture: Option<usize>,
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
    /// Of a mixture of experts, the tokens that were routed to each, the shared one last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<Vec<u64>>,
}

/// How far what was measured on one half of the text is from what was measured on the other: even and odd units of documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Halves {
    /// `‖C₁ − C₂‖ / ‖C‖`, Frobenius: `C` is off by half of it. Of a mixture of experts, that of the expert where it is largest, among those that
    /// saw as many tokens as their keys have dimensions.
    pub moment: f64,
    /// The mean of `‖u₁ − u₂‖ / ‖u‖` over keys `k` of the text, with `u = C⁻¹k / kᵀC⁻¹k`, the direction of a change that writes that key's
    /// value; `None` where one half has no inverse. Of a mixture of experts, over the keys that are routed to experts which have one in both halves.
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
    /// As in [`LayerFacts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    experts: Option<Vec<u64>>,
}

impl Put {
    /// Puts a layer's sum into the store.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn new(cx: &StageContext, layer: usize, moment: &SecondMoment) -> Result<Self, Error> {
        let file = put_streamed(cx, sums(moment))?;
        let experts = by_expert(moment);
        Ok(Self { file, layer, tokens: moment.count(), trace: moment.trace().to_bits(), experts })
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
        let (layer, tokens) = (put.layer, put.tokens);
        self.layers.push(LayerFacts { layer, tokens, trace, held_out: None, halves: None, experts: put.experts });
    }

    /// What was put of each layer, in the order of putting: one in memory at a time, which a caller lets go of.
    pub fn layers(&self, cx: &StageContext) -> impl Iterator<Item = (usize, Result<SecondMoment, Error>)> {
        let parts = self.layers.iter().zip(&self.files);
        parts.map(|(facts, (_, file))| (facts.layer, of_file(cx, file, facts)))
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

/// The sum, or one for each expert.
fn sums(moment: &SecondMoment) -> Vec<Streamed<'_>> {
    let several = moment.parts() > 1;
    let of = |(part, range): (usize, Range<usize>)| {
        let [name, _] = names(several.then_some(part));
        Streamed { name, shape: vec![range.len(), range.len()], values: Box::new(moment.part_rows(part)) }
    };
    moment.ranges().enumerate().map(of).collect()
}

/// What the tensors of a sum are called, the sum and its odd units' diagonal: those of an expert, or of all.
fn names(part: Option<usize>) -> [String; 2] {
    ["sum", "odd"].map(|name| part.map_or_else(|| name.to_owned(), |part| format!("{name}.{part}")))
}

/// Of each part, what is known of its odd units, where it is known of all.
fn odd_parts(moment: &SecondMoment) -> Option<Vec<(&[f64], u64)>> {
    (0..moment.parts()).map(|part| moment.kept_odd(part)).collect()
}

/// Tokens of each expert, where there are several.
fn by_expert(moment: &SecondMoment) -> Option<Vec<u64>> {
    (moment.parts() > 1).then(|| moment.part_counts())
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
        let note = serde_json::from_str::<Vec<u64>>(&tensors.note("head")?).ok()?;
        let (from, units, tokens, experts) = match note[..] {
            [from, units, tokens] => (from, units, tokens, None),
            // Before sums had parts, all of them began with the corpus.
            [units, tokens] => (0, units, tokens, None),
            [from, units, tokens, ref experts @ ..] => (from, units, tokens, Some(experts)),
            _ => return None,
        };
        let moment = match tensors.note("odd") {
            Some(odd) => kept_with_halves(&tensors, tokens, experts, &odd)?,
            None => moment_of(&tensors, tokens, experts).ok()?,
        };
        Some(Self { from: from as usize, units: units as usize, moment })
    }

    /// Keeps it, in the place of what was kept before.
    pub fn put(&self, cx: &StageContext, key: &Key) -> Result<(), Error> {
        Self::put_sum(cx, key, self.from..self.units, &self.moment)
    }

    /// Keeps a layer's sum over some units, in the place of what was kept before.
    pub fn put_sum(cx: &StageContext, key: &Key, units: Range<usize>, moment: &SecondMoment) -> Result<(), Error> {
        let experts: String = by_expert(moment).into_iter().flatten().map(|tokens| format!(", {tokens}")).collect();
        let note = format!("[{}, {}, {}{experts}]", units.start, units.end, moment.count());
        let mut notes = HashMap::from([("head".to_owned(), note)]);
        let (Some(all), Some(odd)) = (moment.odd_count(), odd_parts(moment)) else {
            return cx.put_unit(
                key,
                &serialize(&sums(moment).into_iter().map(Streamed::named).collect::<Vec<_>>(), Some(notes))?,
            );
        };
        let several = moment.parts() > 1;
        let odd_by_expert: String = odd.iter().filter(|_| several).map(|(_, tokens)| format!(", {tokens}")).collect();
        notes.insert("odd".to_owned(), format!("{all}{odd_by_expert}"));
        // The odd units' sum takes the half of the square that a symmetric matrix has twice.
        let of = |(part, (diagonal, _)): (usize, &(&[f64], u64))| {
            let (f, [sum, odd]) = (diagonal.len(), names(several.then_some(part)));
            let rows = Named::values(sum, vec![f, f], moment.kept_rows(part));
            [rows, Named::values(odd, vec![f], diagonal.iter().copied())]
        };
        let all: Vec<Named> = odd.iter().enumerate().flat_map(of).collect();
        cx.put_unit(key, &serialize(&all, Some(notes))?)
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
    of_file(cx, crate::artifacts::model::file(artifact, &file_name(layer))?, facts)
}

fn of_file(cx: &StageContext, file: &FileRef, facts: &LayerFacts) -> Result<SecondMoment, Error> {
    moment_at(&cx.path(file)?, facts)
}

/// A layer's second moment, of the file that holds its sum, or the sums of its experts. One sum is read row by row into its place.
pub fn moment_at(path: &Path, facts: &LayerFacts) -> Result<SecondMoment, Error> {
    if facts.experts.is_some() {
        return moment_of(&Tensors::open(path)?, facts.tokens, facts.experts.as_deref());
    }
    let [name, _] = names(None);
    let mut file = OneByOne::open(path)?;
    let f = file.shape(&name)?.first().copied().unwrap_or_default();
    let mut values = file.stream(&name)?;
    let read = SecondMoment::from_rows(f, facts.tokens, |_, row| values.fill(row).map_err(Unusable));
    read.map_err(|Unusable(error)| error)
}

/// Why a stored matrix cannot be used.
pub struct Unusable(pub Error);

impl From<MathError> for Unusable {
    fn from(error: MathError) -> Self {
        Self(error.stage())
    }
}

/// A layer's second moment, of a file that holds its sum over so many tokens, or the sums of its experts.
fn moment_of(tensors: &Tensors, tokens: u64, experts: Option<&[u64]>) -> Result<SecondMoment, Error> {
    let read = |name: &str| -> Result<(Vec<f64>, usize), Error> {
        let (shape, sum) = tensors.values(name)?;
        Ok((sum, shape.first().copied().unwrap_or_default()))
    };
    let Some(experts) = experts else {
        let (sum, f) = read("sum")?;
        return SecondMoment::from_sum(&sum, f, tokens).map_err(StageFailure::stage);
    };
    let parts: Vec<_> = (0..experts.len()).map(|part| read(&names(Some(part))[0])).collect::<Result<_, _>>()?;
    let parts = parts.iter().zip(experts).map(|((sum, f), count)| (sum.as_slice(), *f, *count));
    SecondMoment::from_part_sums(parts, tokens).map_err(StageFailure::stage)
}

/// The metric of a mixture's second moment, of a file that holds the sums of its experts: each is read when an edit's keys are routed to the expert.
///
/// # Errors
/// When the file cannot be read; [`MathError::Parameter`] for weights out of range.
pub fn metric_by_expert(
    path: PathBuf,
    tokens: u64,
    experts: &[u64],
    weights: PreservationWeights,
) -> Result<PartFactors, Error> {
    let name = |part: usize| {
        let [name, _] = names(Some(part));
        name
    };
    let file = OneByOne::open(&path)?;
    let size = |part: usize| Ok(file.shape(&name(part))?.first().copied().unwrap_or_default());
    let sizes: Vec<usize> = (0..experts.len()).map(size).collect::<Result<_, Error>>()?;
    let parts: Vec<(usize, u64)> = sizes.iter().copied().zip(experts.iter().copied()).collect();
    let fetch = move |part: usize| {
        let unread = |error: Error| MathError::Unread { part, message: error.message };
        let mut file = OneByOne::open(&path).map_err(unread)?;
        let mut values = file.stream(&name(part)).map_err(unread)?;
        SecondMoment::from_rows(sizes[part], tokens, |_, row| values.fill(row).map_err(unread))
    };
    PartFactors::fetched(parts, weights, fetch).map_err(StageFailure::stage)
}

/// A sum with its halves, of a file that [`Head::put_sum`] has written: `odd` are the odd units' tokens, all of them and then those of each expert.
fn kept_with_halves(tensors: &Tensors, tokens: u64, experts: Option<&[u64]>, odd: &str) -> Option<SecondMoment> {
    let odd: Vec<u64> = odd.split(", ").map(|count| count.parse::<u64>().ok()).collect::<Option<_>>()?;
    let (&all, by_expert) = odd.split_first()?;
    let counts: Vec<(Option<usize>, u64, u64)> = match experts {
        None if by_expert.is_empty() => vec![(None, tokens, all)],
        Some(experts) if experts.len() == by_expert.len() => {
            experts.iter().zip(by_expert).enumerate().map(|(part, (&own, &odd))| (Some(part), own, odd)).collect()
        }
        _ => return None,
    };
    let read = |part: Option<usize>| {
        let [sum, odd] = names(part);
        Some((tensors.values(&sum).ok()?.1, tensors.values(&odd).ok()?.1))
    };
    let values: Vec<(Vec<f64>, Vec<f64>)> = counts.iter().map(|(part, ..)| read(*part)).collect::<Option<_>>()?;
    let parts = values.iter().zip(&counts).map(|((rows, diagonal), &(_, count, odd))| KeptPart {
        rows,
        count,
        odd: (diagonal.as_slice(), odd),
    });
    SecondMoment::from_kept(parts, (tokens, all)).ok()
}

/// What is known of a layer that second moments or factors must have.
pub fn known(layers: &[LayerFacts], layer: usize) -> Result<&LayerFacts, Error> {
    layers
        .iter()
        .find(|facts| facts.layer == layer)
        .ok_or_else(|| Error::input(format!("there is no second moment of layer {layer}")).hint(MISSING))
}
