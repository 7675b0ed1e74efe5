//! `load_update`: an edit that was exported earlier, on the model that it was made for.

use std::path::{Path, PathBuf};

use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ExternalFile, FieldError, Port, StageContext, StageError, StageKind,
};
use palinode_math::{Mat, Update};
use palinode_model::Layout;
use safetensors::{Dtype, SafeTensors};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::{MODEL, UPDATE, base_digest, config, weights};
use crate::update::{Batch, BatchFacts, LayerFacts, artifact};

/// Parameters of `load_update`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadUpdateParams {
    /// An `update.safetensors` that `export` wrote. Its name is no part of the key: its contents are.
    path: PathBuf,
    /// Take it even if it was made for other weights than these; its shapes must fit all the same.
    #[serde(default)]
    force: bool,
}

/// What an update file says of itself.
#[derive(Deserialize)]
struct Provenance {
    format: String,
    #[serde(default)]
    model_files: std::collections::BTreeMap<String, Value>,
    #[serde(default)]
    objective: Value,
    #[serde(default)]
    plan: Value,
    #[serde(default)]
    requests: Value,
    layers: Vec<LayerFacts>,
}

/// See [`StageKind::DOC`].
pub struct LoadUpdate;

impl StageKind for LoadUpdate {
    type Params = LoadUpdateParams;
    const NAME: &'static str = "load_update";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads an exported update, to be used like one that was just solved.";
    const DOC: &'static str = "\
Puts the update.safetensors of an earlier `export` onto the model that it was made for. The result is an edited model, as \
`solve` yields: it can be evaluated on any requests, asked, or exported. An update that was made for other weights is refused, \
unless `force` is set and its shapes fit.";
    const OUTPUT: ArtifactKind = UPDATE;

    fn inputs() -> Vec<Port> {
        vec![Port { name: "model", accepts: &[MODEL], required: true, doc: "The unedited model." }]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["path"]
    }

    fn files(params: &LoadUpdateParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![ExternalFile::new("update", &params.path, "path")])
    }

    fn describe(_: &LoadUpdateParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        Ok(json!({ "model": cx.input("model")["model"], "batches": 1 }))
    }

    fn run(params: &LoadUpdateParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let base = cx.input("model")?;
        let path = &cx.file("update")?.1;
        let wrong = |what: String| StageError::input(format!("{}: {what}", path.display()));
        let bytes = std::fs::read(path)
            .map_err(|error| StageError::io(palinode_engine::ErrorKind::Input, "read", path, error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
        let said = provenance(&bytes).map_err(&wrong)?;
        for (name, file) in weights(base) {
            let other = said.model_files.get(name).is_some_and(|digest| *digest != json!(file.digest));
            if other && !params.force {
                return Err(wrong(format!("the update was made for another {name}"))
                    .hint("connect the model that it was made for, or set `force: true`"));
            }
        }
        let config = config(cx, base)?;
        let layout = Layout::of(&config);
        let mut updates = Vec::new();
        for layer in &said.layers {
            let layer = layer.layer;
            if layer >= config.layers {
                return Err(wrong(format!("the update changes layer {layer}, but the model has {}", config.layers)));
            }
            let weight = layout.edited_weight(layer);
            let left = matrix(&file, &format!("{weight}.left")).map_err(&wrong)?;
            let right = matrix(&file, &format!("{weight}.right")).map_err(&wrong)?;
            let found = (left.nrows(), left.ncols(), right.nrows(), right.ncols());
            if left.ncols() != right.nrows() || left.nrows() != config.hidden || right.ncols() != config.feed_forward {
                return Err(wrong(format!(
                    "the update of {weight} is [{}, {}] · [{}, {}], but the weight is [{}, {}]",
                    found.0, found.1, found.2, found.3, config.hidden, config.feed_forward
                )));
            }
            updates.push((layer, Update { left, right }));
        }
        let facts = BatchFacts { start: 0, end: 0, distance_before: 0.0, distance_after: 0.0, layers: said.layers };
        let norm = facts.layers.iter().map(|l| l.norm.powi(2)).sum::<f64>().sqrt();
        let mut made = artifact(cx, base, &[Batch { facts, updates }])?;
        made.meta = json!({
            "model": base.meta["model"],
            "base": base_digest(base),
            "requests": said.requests,
            "objective": said.objective,
            "plan": said.plan,
            "batches": 1,
            "metrics": { "norm": norm },
            "columns": [{ "name": "norm", "label": "‖Δ‖", "format": "number" }],
        });
        Ok(made)
    }
}

fn provenance(bytes: &[u8]) -> Result<Provenance, String> {
    let header = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?.1;
    let text = header.metadata().as_ref().and_then(|notes| notes.get("palinode"));
    let text = text.ok_or("its metadata has no entry `palinode`: it was not written by `export`")?;
    let said: Provenance = serde_json::from_str(text).map_err(|e| format!("its metadata does not read: {e}"))?;
    if said.format == "update.v1" {
        Ok(said)
    } else {
        Err(format!("its format is {:?}, not \"update.v1\"", said.format))
    }
}

fn matrix(file: &SafeTensors<'_>, name: &str) -> Result<Mat<f64>, String> {
    let view = file.tensor(name).map_err(|_| format!("there is no tensor {name}"))?;
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
