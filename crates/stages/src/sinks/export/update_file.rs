//! `update.safetensors`: a change of a model by itself, with where it came from.
//!
//! For each edited weight its change in single precision and [out, in] orientation, as `artifacts/deltas.rs` names its tensors: most often
//! `{name}.left` [out, r] and `{name}.right` [r, in], with `W += left · right`. Under `palinode` in the metadata, [`Provenance`] as JSON.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use palinode_engine::{Digest, Error, ErrorKind, Given};
use palinode_math::{Delta, LowRank};
use palinode_model::{Layout, WeightId};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::deltas::{self, Floats, named};
use crate::artifacts::model::weights;
use crate::artifacts::tensors::serialize;
use crate::artifacts::update::{Batch, LayerFacts, UpdateKind};

/// The file's usual name.
pub const UPDATE_FILE: &str = "update.safetensors";
/// The file of an update that was loaded, among what lies beside a model.
pub const LOADED_UPDATE: &str = "loaded/update";
/// The ledger beside it.
pub const LOADED_LEDGER: &str = "loaded/ledger";
/// What [`Provenance::format`] says where every change is of a down-projection, as two factors.
const FACTORS: &str = "update.v1";
/// What it says of all others, which a reader of the first would look for in vain.
const ANY: &str = "update.v2";

/// Why weights in another form are other weights: the update was made for a GGUF file and `model` is a folder of safetensors, or the other way round.
pub fn other_form(for_gguf: bool, model: &str) -> String {
    let forms = ["a GGUF file", "a folder of safetensors"];
    let (made_for, is) = if for_gguf { (forms[0], forms[1]) } else { (forms[1], forms[0]) };
    format!(
        "the update was made for {made_for}, and {model} is {is}: also where both hold one model, their numbers differ (GGUF files are most often quantized), \
         and with them the keys that the change was computed from. On the other form it is about the same edit, and not the one that was measured"
    )
}

/// Where an update came from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of this description.
    pub format: String,
    /// The program's version.
    #[serde(default)]
    pub program: String,
    /// The model's sizes.
    #[serde(default)]
    pub model: Value,
    /// The files of the unedited model's weights, by content.
    #[serde(default)]
    pub model_files: BTreeMap<String, Digest>,
    /// Parameters of the solve.
    #[serde(default)]
    pub objective: Value,
    /// Which layers absorbed which part.
    #[serde(default)]
    pub plan: Value,
    /// The requests' names.
    #[serde(default)]
    pub requests: Value,
    /// What was done to the changes after they were solved, one entry after the other.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub care: Value,
    /// Parameters of the targets, where the export was given them.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub targets: Value,
    /// The context templates, where the export was given them.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub templates: Value,
    /// The corpus of the second moments, by the contents of its files, where the export was given them.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub corpus: Value,
    /// What the solve reported of each layer.
    pub layers: Vec<LayerFacts>,
}

/// What an edit was made of, as far as it is known.
#[derive(Default)]
pub struct MadeOf {
    /// Parameters of the targets.
    pub targets: Value,
    /// The context templates.
    pub templates: Value,
    /// The corpus of the second moments.
    pub corpus: Value,
}

/// An update with its provenance.
pub struct UpdateFile {
    /// Where it came from.
    pub provenance: Provenance,
    /// Weight and change, rounded to single precision as the file has it.
    pub updates: Vec<(WeightId, Delta)>,
    /// The weight of each change, as the file names it.
    names: Vec<String>,
}

impl UpdateFile {
    /// One batch of an edited model.
    ///
    /// # Errors
    /// For a weight that the family has no name for.
    pub fn of(given: &Given<'_, UpdateKind>, layout: &Layout, batch: &Batch, of: MadeOf) -> Result<Self, Error> {
        let plain = |(weight, delta): &(WeightId, Delta)| {
            *weight == WeightId::down(weight.layer) && matches!(delta, Delta::LowRank(_))
        };
        let format = if batch.updates.iter().all(plain) { FACTORS } else { ANY };
        let facts = &given.facts;
        let provenance = Provenance {
            format: format.into(),
            program: env!("CARGO_PKG_VERSION").into(),
            model: json!(facts.model),
            model_files: weights(given).map(|(name, file)| (name.to_owned(), file.digest)).collect(),
            objective: facts.objective.clone(),
            plan: facts.plan.clone(),
            requests: facts.requests.as_ref().map_or(Value::Null, |ids| json!(batch.facts.names(ids))),
            care: facts.care.as_ref().map_or(Value::Null, |care| json!(care)),
            targets: of.targets,
            templates: of.templates,
            corpus: of.corpus,
            layers: batch.facts.layers.clone(),
        };
        let updates: Vec<_> = batch.updates.iter().map(|(weight, delta)| (*weight, delta.rounded())).collect();
        if let Some((weight, _)) = updates.iter().find(|(_, delta): &&(WeightId, Delta)| !delta.frobenius().is_finite())
        {
            let message = format!("the change of layer {weight} has values that single precision cannot hold");
            return Err(Error::numerical(message));
        }
        let names = batch.updates.iter().map(|(weight, _)| stored_name(layout, *weight)).collect::<Result<_, _>>()?;
        Ok(Self { provenance, updates, names })
    }

    /// Of changes of these weights, which are rounded.
    pub fn from_parts(provenance: Provenance, updates: &[(WeightId, Delta)], names: Vec<String>) -> Self {
        Self { provenance, updates: updates.iter().map(|(weight, delta)| (*weight, delta.rounded())).collect(), names }
    }

    /// The weight of each change, as the file names it.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The file that is meant by a path: itself, or the one in a folder that `export` wrote.
    ///
    /// # Errors
    /// Of kind input, for a folder without one.
    pub fn at(path: &Path) -> Result<PathBuf, Error> {
        if !path.is_dir() {
            return Ok(path.to_owned());
        }
        let file = path.join(UPDATE_FILE);
        if file.is_file() {
            return Ok(file);
        }
        Err(Error::input(format!("{} is a folder, and has no {UPDATE_FILE}", path.display()))
            .hint("name the file; a model that was edited several times has none, and each of its updates is a file elsewhere"))
    }

    /// Reads one.
    ///
    /// # Errors
    /// Of kind input, naming the file, for one that is damaged or was not written by `export`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
        parse(&bytes).map_err(|what| Error::input(format!("{}: {what}", path.display())))
    }

    /// The file's bytes: the same for the same update.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        for ((_, delta), weight) in self.updates.iter().zip(&self.names) {
            tensors.extend(named(weight, delta, Floats::Single));
        }
        serialize(&tensors, Some(self.note()?))
    }

    /// The metadata. One entry: the order of several would differ from one writing to the next.
    pub fn note(&self) -> Result<HashMap<String, String>, Error> {
        let text = serde_json::to_string(&self.provenance).map_err(|error| Error::internal(error.to_string()))?;
        Ok(HashMap::from([("palinode".to_owned(), text)]))
    }

    /// As [`check`], of its changes.
    ///
    /// # Errors
    /// In words that name the weight.
    pub fn check(&self, config: &palinode_model::DecoderConfig) -> Result<(), String> {
        check(&self.updates, &self.names, config)
    }
}

/// Fails unless every change has the name and shape of the weight that it is for.
///
/// # Errors
/// In words that name the weight.
pub fn check(
    updates: &[(WeightId, Delta)],
    names: &[String],
    config: &palinode_model::DecoderConfig,
) -> Result<(), String> {
    let layout = Layout::of(config);
    for ((id, delta), name) in updates.iter().zip(names) {
        let weight = layout.weight_name(*id).unwrap_or_default();
        if *name != weight {
            return Err(format!(
                "the update changes {name}, which the model does not have: it calls its weight {weight}"
            ));
        }
        if id.layer >= config.layers {
            let (layer, layers) = (id.layer, config.layers);
            return Err(format!("the update changes layer {layer}, but the model has {layers} layers"));
        }
        let shape = config.weight_shape(*id).ok_or_else(|| format!("the model has no weight {id}"))?;
        if delta.check_shape(shape).is_err() {
            let change = match delta {
                Delta::LowRank(LowRank { left, right }) => {
                    format!("[{}, {}] · [{}, {}]", left.nrows(), left.ncols(), right.nrows(), right.ncols())
                }
                other => format!("{:?}", other.shape()),
            };
            return Err(format!("the update of layer {id} is {change}, but the weight is {shape:?}"));
        }
    }
    Ok(())
}

/// The name of a weight in a family's checkpoints.
///
/// # Errors
/// Of kind input, for a weight that the family does not have.
pub fn stored_name(layout: &Layout, weight: WeightId) -> Result<String, Error> {
    layout.weight_name(weight).ok_or_else(|| Error::input(format!("the model has no weight {weight}")))
}

fn parse(bytes: &[u8]) -> Result<UpdateFile, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let header = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?.1;
    let text = header.metadata().as_ref().and_then(|notes| notes.get("palinode"));
    let text = text.ok_or("its metadata has no entry `palinode`: it is no update that `export` wrote")?;
    if serde_json::from_str::<Value>(text).is_ok_and(|said| said["updates"].is_array()) {
        return Err(format!("it is a ledger, which lists edits: the update itself is {UPDATE_FILE} beside it"));
    }
    let provenance: Provenance =
        serde_json::from_str(text).map_err(|error| format!("its metadata does not read: {error}"))?;
    if ![FACTORS, ANY].contains(&provenance.format.as_str()) {
        return Err(format!("its format is {:?}, not {FACTORS:?} or {ANY:?}", provenance.format));
    }
    let (mut updates, mut names) = (Vec::new(), Vec::new());
    for id in provenance.layers.iter().map(|facts| facts.weight) {
        // The names are those of the family, which the file does not tell: the first that it has.
        let known = Layout::ALL.iter().filter_map(|layout| layout.weight_name(id));
        let weight = known.into_iter().find(|name| deltas::has(&file, name));
        let weight = weight.ok_or_else(|| format!("there is no change of layer {id}"))?;
        updates.push((id, deltas::read(&file, &weight, Floats::Single)?));
        names.push(weight);
    }
    Ok(UpdateFile { provenance, updates, names })
}
