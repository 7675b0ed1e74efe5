//! `update.safetensors`: a change of a model by itself, with where it came from.
//!
//! For each edited weight `{name}.left` [out, r] and `{name}.right` [r, in] in single precision, `W += left · right` in
//! [out, in] orientation; under `palinode` in the metadata, [`Provenance`] as JSON.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use palinode_engine::{Artifact, Digest, ErrorKind, StageError};
use palinode_math::{Mat, Update, row_major};
use palinode_model::Layout;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::model::weights;
use crate::artifacts::tensors::{Named, serialize};
use crate::artifacts::update::{Batch, LayerFacts};

/// The file's usual name.
pub const UPDATE_FILE: &str = "update.safetensors";
/// What [`Provenance::format`] says.
const FORMAT: &str = "update.v1";

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
    /// What the solve reported of each layer.
    pub layers: Vec<LayerFacts>,
}

/// An update with its provenance.
pub struct UpdateFile {
    /// Where it came from.
    pub provenance: Provenance,
    /// Layer and change, rounded to single precision as the file has it.
    pub updates: Vec<(usize, Update)>,
    /// The weight of each change, as the file names it.
    names: Vec<String>,
}

impl UpdateFile {
    /// One batch of an edited model.
    pub fn of(artifact: &Artifact, layout: &Layout, batch: &Batch) -> Self {
        let ids = artifact.meta["requests"].as_array().map_or(&[][..], Vec::as_slice);
        let provenance = Provenance {
            format: FORMAT.into(),
            program: env!("CARGO_PKG_VERSION").into(),
            model: artifact.meta["model"].clone(),
            model_files: weights(artifact).map(|(name, file)| (name.to_owned(), file.digest)).collect(),
            objective: artifact.meta["objective"].clone(),
            plan: artifact.meta["plan"].clone(),
            requests: ids.get(batch.facts.start..batch.facts.end).map_or(Value::Null, |ids| ids.to_vec().into()),
            layers: batch.facts.layers.clone(),
        };
        let single = |m: &Mat<f64>| Mat::from_fn(m.nrows(), m.ncols(), |i, j| f64::from(m[(i, j)] as f32));
        let updates = batch
            .updates
            .iter()
            .map(|(layer, update)| (*layer, Update { left: single(&update.left), right: single(&update.right) }));
        let names = batch.updates.iter().map(|(layer, _)| layout.edited_weight(*layer)).collect();
        Self { provenance, updates: updates.collect(), names }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Of kind input, naming the file, for one that is damaged or was not written by `export`.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let bytes = std::fs::read(path).map_err(|error| StageError::io(ErrorKind::Input, "read", path, error))?;
        parse(&bytes).map_err(|what| StageError::input(format!("{}: {what}", path.display())))
    }

    /// The file's bytes: the same for the same update.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StageError> {
        let single = |m: &Mat<f64>, name: String| {
            Named::f32(name, [m.nrows(), m.ncols()], row_major(m.as_ref()).into_iter().map(|v| v as f32))
        };
        let mut tensors = Vec::new();
        for ((_, Update { left, right }), weight) in self.updates.iter().zip(&self.names) {
            tensors.push(single(left, format!("{weight}.left")));
            tensors.push(single(right, format!("{weight}.right")));
        }
        serialize(&tensors, Some(self.note()?))
    }

    /// The metadata. One entry: the order of several would differ from one writing to the next.
    pub fn note(&self) -> Result<HashMap<String, String>, StageError> {
        let text = serde_json::to_string(&self.provenance).map_err(|error| StageError::internal(error.to_string()))?;
        Ok(HashMap::from([("palinode".to_owned(), text)]))
    }

    /// Fails unless every change has the name and shape of the weight that it is for.
    ///
    /// # Errors
    /// In words that name the weight.
    pub fn check(&self, config: &palinode_model::DecoderConfig) -> Result<(), String> {
        let layout = Layout::of(config);
        for ((layer, Update { left, right }), name) in self.updates.iter().zip(&self.names) {
            let weight = layout.edited_weight(*layer);
            if *name != weight {
                return Err(format!(
                    "the update changes {name}, which the model does not have: it calls its weight {weight}"
                ));
            }
            if *layer >= config.layers {
                return Err(format!("the update changes layer {layer}, but the model has {} layers", config.layers));
            }
            if left.ncols() != right.nrows() || left.nrows() != config.hidden || right.ncols() != config.feed_forward {
                return Err(format!(
                    "the update of layer {layer} is [{}, {}] · [{}, {}], but the weight is [{}, {}]",
                    left.nrows(),
                    left.ncols(),
                    right.nrows(),
                    right.ncols(),
                    config.hidden,
                    config.feed_forward
                ));
            }
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<UpdateFile, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let header = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?.1;
    let text = header.metadata().as_ref().and_then(|notes| notes.get("palinode"));
    let text = text.ok_or("its metadata has no entry `palinode`: it was not written by `export`")?;
    let provenance: Provenance =
        serde_json::from_str(text).map_err(|error| format!("its metadata does not read: {error}"))?;
    if provenance.format != FORMAT {
        return Err(format!("its format is {:?}, not {FORMAT:?}", provenance.format));
    }
    let (mut updates, mut names) = (Vec::new(), Vec::new());
    for layer in provenance.layers.iter().map(|facts| facts.layer) {
        // Names are those of the family; the layer is the number in them.
        let number = format!(".{layer}.");
        let mut found = file.names().into_iter().filter(|name| name.contains(&number));
        let weight = found.find_map(|name| name.strip_suffix(".left")).map(str::to_owned);
        let weight = weight.ok_or_else(|| format!("there is no change of layer {layer}"))?;
        let side = |side: &str| read_matrix(&file, &format!("{weight}.{side}"));
        updates.push((layer, Update { left: side("left")?, right: side("right")? }));
        names.push(weight);
    }
    Ok(UpdateFile { provenance, updates, names })
}

fn read_matrix(file: &SafeTensors<'_>, name: &str) -> Result<Mat<f64>, String> {
    let view = file.tensor(name).map_err(|error| error.to_string())?;
    let &[rows, columns] = view.shape() else { return Err(format!("{name} is not a matrix")) };
    if view.dtype() != Dtype::F32 {
        return Err(format!("{name} is stored as {:?}, not F32", view.dtype()));
    }
    let bytes = view.data().chunks_exact(4);
    let values: Vec<f32> = bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(format!("{name} holds values that are not numbers"));
    }
    Ok(Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j])))
}
