//! Models on their way between stages: what is known of them, and how they come into memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use palinode_engine::{Artifact, Error, FieldError, FileRef, Given, Kind, StageContext, size};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Experts, Layout, ModelError, Precision, Text, select_device};
use serde::{Deserialize, Serialize};

use crate::artifacts::streaming;
use crate::errors::StageFailure;

/// A plain model.
pub struct ModelKind;

impl Kind for ModelKind {
    const NAME: &'static str = "model";
    type Facts = ModelFacts;
    type Planned = PlannedModel;
}

/// What the artifact of a model says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Its sizes.
    pub model: Facts,
}

/// What is known of a model before it is opened.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedModel {
    /// Its sizes, if its configuration could be read.
    pub model: Option<Facts>,
}

/// Whatever has a model's files, with the model's facts.
pub trait HasModel {
    /// The files.
    fn artifact(&self) -> &Artifact;
    /// The model's sizes.
    fn model(&self) -> &Facts;
    /// The digest of the model without an update: what results that hang on the model alone are keyed by.
    fn base(&self) -> String;
}

impl HasModel for Given<'_, ModelKind> {
    fn artifact(&self) -> &Artifact {
        self.artifact
    }

    fn model(&self) -> &Facts {
        &self.facts.model
    }

    fn base(&self) -> String {
        self.artifact.digest().to_string()
    }
}

/// The setting of a run that says where a model's blocks are, `resident` or `streamed`. Where it is not given, they are resident if
/// the model fits into memory, and otherwise streamed, where work that needs blocks again and again holds those that have room. All give the
/// same bits.
pub const BLOCKS: &str = "blocks";

/// The configuration's logical name.
pub const CONFIG: &str = "config.json";
/// The tokenizer's logical name.
pub const TOKENIZER: &str = "tokenizer.json";
/// The logical name of the tokenizer's settings, which not every folder has.
pub const SETTINGS: &str = "other/tokenizer_config.json";

/// The logical name of a GGUF file among the weights: one file is the whole model, whatever it is called.
pub const GGUF: &str = "model.gguf";

/// The ledger of an edited model, beside its weights.
pub const LEDGER_FILE: &str = "ledger.safetensors";

/// The logical name of a chat template in a file of its own.
pub const CHAT_TEMPLATE: &str = "other/chat_template.jinja";

/// What is known of a model before its weights are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The family's name.
    pub family: String,
    /// Number of blocks.
    pub layers: usize,
    /// `d`.
    pub hidden: usize,
    /// `f`, the size of a key in layers with one feed-forward.
    pub feed_forward: usize,
    /// Context in tokens.
    pub context: usize,
    /// Vocabulary size.
    pub vocabulary: usize,
    /// Number of parameters.
    pub parameters: usize,
    /// The number type that weights are held in.
    #[serde(default)]
    pub dtype: Precision,
    /// Whether it comes from a GGUF file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gguf: bool,
    /// Whether a norm stands behind each feed-forward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub norms_behind: bool,
    /// The mixture of experts that layers have in place of one feed-forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<Experts>,
}

impl Facts {
    /// From a configuration.
    pub fn of(config: &DecoderConfig, dtype: Precision, gguf: bool) -> Self {
        Self {
            family: config.family.name().to_owned(),
            layers: config.layers,
            hidden: config.hidden,
            feed_forward: config.feed_forward,
            context: config.context,
            vocabulary: config.vocab,
            parameters: config.parameters(),
            dtype,
            gguf,
            norms_behind: config.norms_behind,
            experts: config.experts.clone(),
        }
    }

    /// Bytes of a layer's second moment, of the layer that has most: `f × f` numbers, or so many of each expert.
    pub fn moment_bytes(&self) -> u64 {
        let square = |f: usize| (f as u64).saturating_pow(2).saturating_mul(8);
        let Some(experts) = &self.experts else { return square(self.feed_forward) };
        let mixture = square(experts.size).saturating_mul(experts.count as u64);
        let mixture = mixture.saturating_add(experts.shared.map_or(0, square));
        if experts.dense_layers.is_empty() { mixture } else { mixture.max(square(self.feed_forward)) }
    }

    /// Bytes that a solve takes of a layer's second moment, at least: it, its factor, and two more while it is factored; of a mixture, the factors of
    /// the experts that one key is routed to.
    pub fn solve_bytes(&self) -> u64 {
        let square = |f: usize| (f as u64).saturating_pow(2).saturating_mul(8);
        let Some(experts) = &self.experts else { return square(self.feed_forward).saturating_mul(4) };
        let factors = square(experts.size).saturating_mul(experts.top as u64);
        let factors = factors.saturating_add(experts.shared.map_or(0, square));
        factors.saturating_add(square(experts.size.max(experts.shared.unwrap_or(0))).saturating_mul(3))
    }

    /// As [`Facts::check_layers`], also for every layer that is a mixture of experts, which `what` does not take.
    pub fn check_dense(&self, layers: &[usize], what: &str, field: impl Fn(usize) -> String) -> Vec<FieldError> {
        let mut errors = self.check_layers(layers, &field);
        let Some(experts) = &self.experts else { return errors };
        let mixed = layers.iter().enumerate().filter(|(_, layer)| experts.is_mixture(**layer, self.layers));
        errors.extend(mixed.map(|(i, layer)| {
            let (family, count) = (&self.family, experts.count);
            let message =
                format!("layer {layer} of {family} is a mixture of {count} experts, which {what} does not take");
            let error = FieldError::new(field(i), message);
            match &experts.dense_layers[..] {
                [] => error,
                dense => {
                    let named: Vec<String> = dense.iter().map(ToString::to_string).collect();
                    error.expected(format!("a layer with one feed-forward: {}", named.join(", ")))
                }
            }
        }));
        errors
    }

    /// The first of these layers that is a mixture of experts.
    pub fn first_mixture(&self, layers: &[usize]) -> Option<usize> {
        let experts = self.experts.as_ref()?;
        layers.iter().copied().find(|layer| experts.is_mixture(*layer, self.layers))
    }

    /// A mistake for every layer that the model lacks.
    pub fn check_layers(&self, layers: &[usize], field: impl Fn(usize) -> String) -> Vec<FieldError> {
        let missing = layers.iter().enumerate().filter(|(_, layer)| **layer >= self.layers);
        missing
            .map(|(i, layer)| {
                FieldError::new(field(i), format!("the model has no layer {layer}"))
                    .expected(format!("a layer from 0 to {}", self.layers - 1))
            })
            .collect()
    }
}

/// A model in memory.
pub struct Loaded {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub text: Text,
}

/// The unedited model of a `model` or an `update`, kept in memory between the stages of a run.
pub fn open(cx: &StageContext, given: &impl HasModel) -> Result<Arc<Loaded>, Error> {
    let artifact = given.artifact();
    let digits = if cx.strict() { "strict" } else { "portable" };
    let loaded = cx.shared(&format!("model:{}:{}:{digits}", given.base(), cx.device()), || {
        let device = select_device(cx.device()).map_err(StageFailure::stage)?;
        let config = config(cx, artifact)?;
        let paths = weights(artifact).map(|(_, file)| cx.path(file)).collect::<Result<Vec<PathBuf>, _>>()?;
        let checkpoint = Arc::new(Checkpoint::open(&paths).map_err(StageFailure::stage)?);
        let precision = given.model().dtype;
        let resident = || Decoder::load_as(&checkpoint, &config, &device, precision);
        let streamed = |holds| Decoder::stream(Arc::clone(&checkpoint), &config, &device, precision, holds);
        let pass = || size(checkpoint.bytes_of_blocks(&config, &Layout::of(&config)));
        let decoder = match cx.setting(BLOCKS) {
            Some("resident") => resident(),
            Some("streamed") => streamed(false).inspect(|decoder| {
                cx.say(format!(
                    "blocks are streamed: weights take {} of memory instead of {}, and a pass over the blocks reads {}",
                    size(decoder.weight_bytes()),
                    size(decoder.resident_bytes()),
                    pass()
                ));
            }),
            None => resident().or_else(|error| match error {
                ModelError::Memory { .. } => {
                    cx.warn(format!(
                        "{error}: its blocks are read from the files whenever they are needed, which is slower; a pass over them reads {}",
                        pass()
                    ));
                    streamed(true)
                }
                other => Err(other),
            }),
            Some(other) => return Err(Error::internal(format!("blocks cannot be `{other}`"))),
        };
        let decoder = decoder.map_err(StageFailure::stage)?;
        let decoder = if cx.strict() { decoder.with_fixed_batches() } else { decoder };
        let mut text = Text::open(&cx.path(described(artifact, TOKENIZER)?)?).map_err(StageFailure::stage)?;
        if let Some(settings) = artifact.file(SETTINGS) {
            text = text.with_settings(&cx.path(settings)?).map_err(StageFailure::stage)?;
        }
        if let Some(template) = artifact.file(CHAT_TEMPLATE) {
            text = text.with_template(&cx.path(template)?).map_err(StageFailure::stage)?;
        }
        let text = text.within(config.vocab);
        Ok(Loaded { decoder, text })
    })?;
    streaming::say_at_end(cx, &loaded.decoder);
    Ok(loaded)
}

/// The configuration of a `model` or an `update`.
pub fn config(cx: &StageContext, artifact: &Artifact) -> Result<DecoderConfig, Error> {
    let path = cx.path(described(artifact, CONFIG)?)?;
    read_config(&path).map_err(StageFailure::stage)
}

/// Reads a configuration.
pub fn read_config(path: &Path) -> Result<DecoderConfig, ModelError> {
    DecoderConfig::read(path)
}

/// The file that holds a description, of a model in one GGUF file that one.
fn described<'a>(artifact: &'a Artifact, name: &str) -> Result<&'a FileRef, Error> {
    match gguf(artifact) {
        Some(file) => Ok(file),
        None => file(artifact, name),
    }
}

/// The GGUF file of a model that is one.
pub fn gguf(artifact: &Artifact) -> Option<&FileRef> {
    weights(artifact).find(|(name, _)| *name == GGUF).map(|(_, file)| file)
}

/// The weight files.
pub fn weights(artifact: &Artifact) -> impl Iterator<Item = (&str, &FileRef)> {
    let prefix = "weights/";
    artifact.files.iter().filter_map(move |(name, file)| Some((name.strip_prefix(prefix)?, file)))
}

/// How the logical names of other files of a model's folder begin.
const OTHER: &str = "other/";

/// The logical name of another file of a model's folder.
pub fn other(name: &str) -> String {
    format!("{OTHER}{name}")
}

/// The name of a file in a model's folder, of one that is neither weights nor update.
pub fn folder_name(logical: &str) -> Option<&str> {
    match logical {
        CONFIG | TOKENIZER => Some(logical),
        other => other.strip_prefix(OTHER),
    }
}

/// Whether nothing is computed from a file of this logical name. Earlier versions had such files in models and in their keys.
pub fn decides_nothing(file: &str) -> bool {
    file.starts_with(OTHER) && file != SETTINGS && file != CHAT_TEMPLATE
}

/// The files of a model that something is computed from.
pub fn computing(artifact: &Artifact) -> impl Iterator<Item = (&str, &FileRef)> {
    let files = artifact.files.iter().map(|(name, file)| (name.as_str(), file));
    files.filter(|(name, _)| !decides_nothing(name))
}

/// A file that an artifact must have.
pub fn file<'a>(artifact: &'a Artifact, name: &str) -> Result<&'a FileRef, Error> {
    artifact.file(name).ok_or_else(|| Error::internal(format!("the {} has no file `{name}`", artifact.kind)))
}
