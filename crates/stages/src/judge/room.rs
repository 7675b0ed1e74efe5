//! What a whole run takes of memory and disk, before it begins: from the sizes of models alone.
//!
//! Second moments are what is large: `f × f` numbers a layer, hundreds of megabytes to gigabytes. Estimates count them, the weights of models
//! and of exports; all else is small beside them. They are rounded down rather than up, since a run that would have fitted must not be held up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_edit::{Finding, Severity};
use palinode_engine::{Accept as _, Instance, Kind as _, Pipeline, size};
use palinode_model::{Checkpoint, Layout, Precision, memory};

use crate::artifacts::measurements::ExportFormat;
use crate::artifacts::model::{CONFIG, Facts, ModelKind, read_config};
use crate::artifacts::moments::MomentsKind;
use crate::sinks::export::ExportParams;

/// What stages take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes that they write to the store.
    pub store: u64,
    /// Bytes that they write elsewhere, by folder.
    pub outputs: BTreeMap<PathBuf, u64>,
    /// Bytes of the largest model in memory.
    pub weights: u64,
    /// Bytes that one stage takes beside the weights, at most, and which.
    pub stage: Option<(u64, String)>,
}

/// What there is; `None` where the system does not say.
#[derive(Clone, Copy)]
pub struct Free<'a> {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes that can be written in a folder's file system.
    pub disk: &'a dyn Fn(&Path) -> Option<u64>,
}

impl Needs {
    /// Of these instances of a pipeline.
    pub fn of(pipeline: &Pipeline, run: &[usize]) -> Self {
        let mut needs = Self::default();
        for &at in run {
            let instance = &pipeline.instances[at];
            let Some((model, files)) = model_of(pipeline, instance) else { continue };
            needs.weights = needs.weights.max(bytes_of(&model));
            let square = model.moment_bytes();
            let moments = |instance: &Instance| MomentsKind::planned(MomentsKind::NAME, &instance.facts).layers;
            let layers = moments(instance).map_or(0, |layers| layers.len() as u64);
            let given = instance.inputs.get("moments").map(|&at| &pipeline.instances[at]);
            let (store, stage) = match instance.kind.info().name {
                // The sums, which are kept while they grow, and the result. In memory, those of all layers beside the factor of a half; where
                // the sample ends by itself, beside those of a unit.
                "covariance" => (2 * layers, (layers + 4).max(2 * layers)),
                "load_moments" | "merge_moments" => (layers, 3),
                // Half of each matrix is stored.
                "factor" => (given.and_then(moments).map_or(0, |layers| layers.len() as u64) / 2, 4),
                "solve" | "sequence" if given.is_some() => (0, 0),
                "export" => {
                    if let Some(params) = instance.params.typed::<ExportParams>() {
                        let stored =
                            files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
                        let copies = params.formats(&[ExportFormat::Model, ExportFormat::Gguf]) as u64;
                        let folder = pipeline.base.join(params.path());
                        *needs.outputs.entry(folder).or_default() += copies.saturating_mul(stored);
                    }
                    (0, 0)
                }
                _ => (0, 0),
            };
            needs.store = needs.store.saturating_add(square.saturating_mul(store));
            let stage = match instance.kind.info().name {
                "solve" | "sequence" if given.is_some() => model.solve_bytes(),
                _ => square.saturating_mul(stage),
            };
            if needs.stage.as_ref().is_none_or(|(most, _)| stage > *most) && stage > 0 {
                needs.stage = Some((stage, instance.name.clone()));
            }
        }
        needs
    }

    /// What of it there is not. `store` is where the store lies.
    pub fn findings(&self, store: &Path, free: Free<'_>) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |kind: &str, words: String| {
            let kind = kind.to_owned();
            found.push(Finding { severity: Severity::Warning, kind, request: None, at: String::new(), words });
        };
        let places = std::iter::once((store, self.store, "the store"));
        let places = places.chain(self.outputs.iter().map(|(path, bytes)| (path.as_path(), *bytes, "exports")));
        for (path, bytes, what) in places {
            let there = (free.disk)(path);
            if let Some(there) = there.filter(|there| bytes > *there) {
                let (path, bytes, there) = (path.display(), size(bytes), size(there));
                add("disk", format!("{what} will take about {bytes} more in {path}, where {there} are free"));
            }
        }
        let (stage, name) = self.stage.clone().unwrap_or_default();
        let needed = self.weights.saturating_add(stage);
        if let Some(there) = free.memory.filter(|there| needed > *there) {
            let beside = if stage > 0 { format!(", and `{name}` {} beside it", size(stage)) } else { String::new() };
            let (weights, there) = (size(self.weights), size(there));
            add("memory", format!("the model takes about {weights} of memory{beside}, but {there} are free"));
        }
        found
    }
}

/// The sizes of the model that an instance is about, and its weight files.
fn model_of(pipeline: &Pipeline, instance: &Instance) -> Option<(Facts, Vec<PathBuf>)> {
    let (instance, model) = loaded_by(pipeline, instance)?;
    Some((model, weights_of(pipeline, instance)))
}

/// The instance that loads the model that an instance is about, and the model's sizes.
fn loaded_by<'a>(pipeline: &'a Pipeline, instance: &'a Instance) -> Option<(&'a Instance, Facts)> {
    if let Some(model) = ModelKind::planned(ModelKind::NAME, &instance.facts).model
        && instance.kind.info().name == "load_model"
    {
        return Some((instance, model));
    }
    instance.inputs.values().find_map(|&at| loaded_by(pipeline, &pipeline.instances[at]))
}

fn weights_of(pipeline: &Pipeline, instance: &Instance) -> Vec<PathBuf> {
    let weights = instance.files.iter().filter(|file| file.name.starts_with("weights/"));
    weights.map(|file| pipeline.base.join(&file.path)).collect()
}

/// What is to be said of where blocks would be, if `free` bytes of memory are free: a line for each model that these instances compute with
/// and that is larger.
pub fn said_of_blocks(pipeline: &Pipeline, run: &[usize], free: u64) -> Vec<String> {
    let models: BTreeMap<&str, (&Instance, Facts)> = run
        .iter()
        .filter_map(|&at| loaded_by(pipeline, &pipeline.instances[at]))
        .map(|(instance, model)| (instance.name.as_str(), (instance, model)))
        .collect();
    let said = |(name, (instance, model)): (&str, (&Instance, Facts))| {
        let weights = bytes_of(&model);
        if weights <= free {
            return None;
        }
        let files = weights_of(pipeline, instance);
        let folder = instance.files.iter().find(|file| file.name == CONFIG);
        let described = folder.map(|file| pipeline.base.join(&file.path)).or_else(|| files.first().cloned())?;
        let config = read_config(&described).ok()?;
        let pass = Checkpoint::open(&files).ok()?.bytes_of_blocks(&config, &Layout::of(&config));
        let (dtype, weights, free) = (model.dtype.name(), size(weights), size(free));
        let (held, pass) = (size(memory::needed_streamed(&config, model.dtype)), size(pass));
        Some(format!(
            "{name}: the weights take {weights} in {dtype}, and {free} of memory are free: blocks would be streamed. They then take {held} \
             of memory, and every pass over them reads {pass} of the model's files"
        ))
    };
    models.into_iter().filter_map(said).collect()
}

/// Bytes of the weights as they are held.
fn bytes_of(model: &Facts) -> u64 {
    let each = if model.dtype == Precision::F32 { 4 } else { 2 };
    (model.parameters as u64).saturating_mul(each)
}
