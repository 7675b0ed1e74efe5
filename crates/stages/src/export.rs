//! `export`: an edited model as files for other programs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ErrorKind, FieldError, Port, StageContext, StageError, StageKind,
};
use palinode_math::{Update, row_major};
use palinode_model::save::{Change, copy_with_changes};
use palinode_model::{Checkpoint, DecoderConfig, Layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::StageFailure;
use crate::model::{UPDATE, companions, config, weights};
use crate::tensors::{Named, make_folder, serialize};
use crate::update::{Batch, batches};

/// The update's file.
const UPDATE_FILE: &str = "update.safetensors";

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The whole edited model in Hugging Face's layout: names, shards and number type of the source; its other files copied.
    Model,
    /// The change alone, update.safetensors: `{weight}.left` [out, r] and `{weight}.right` [r, in], W += left · right.
    Update,
}

/// Parameters of `export`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportParams {
    /// The folder to write into; made where it is missing.
    path: PathBuf,
    /// What is written.
    #[serde(default = "both")]
    formats: Vec<Format>,
    /// Which batch, counted from 0; needed where there are several, since each is an edit of its own onto the unedited model.
    #[serde(default)]
    batch: Option<usize>,
}

fn both() -> Vec<Format> {
    vec![Format::Model, Format::Update]
}

/// See [`StageKind::DOC`].
pub struct Export;

impl StageKind for Export {
    type Params = ExportParams;
    const NAME: &'static str = "export";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes an edited model for transformers, and the update by itself.";
    const DOC: &'static str = "\
Writes the edited model as a folder that `transformers` loads with `from_pretrained`, and the change by itself as \
update.safetensors: for each edited weight `{name}.left` [out, r] and `{name}.right` [r, in], to be added as left · right in \
[out, in] orientation (transpose it for GPT-2's Conv1D). Where it came from (model digest, objective, plan, requests) is in \
that file's metadata, as JSON under `palinode`.

Files that were written are watched: when one is changed or deleted, the next run writes it again.";
    const OUTPUT: ArtifactKind = "export";

    fn inputs() -> Vec<Port> {
        vec![Port { name: "model", accepts: &[UPDATE], required: true, doc: "The edited model." }]
    }

    fn publishes(params: &ExportParams) -> Vec<(&'static str, PathBuf)> {
        vec![("path", params.path.clone())]
    }

    fn describe(params: &ExportParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.formats.is_empty() {
            errors.push(FieldError::new("formats", "`formats` is empty").expected("model, update, or both"));
        }
        if let Some(count) = cx.input("model")["batches"].as_u64()
            && let Err(error) = pick(params, count as usize)
        {
            errors.push(error);
        }
        if errors.is_empty() { Ok(Value::Null) } else { Err(errors) }
    }

    fn run(params: &ExportParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let artifact = cx.input("model")?;
        let mut edits = batches(cx, artifact)?;
        let batch = pick(params, edits.len()).map_err(|error| StageError::input(error.message))?;
        let batch = edits.swap_remove(batch);
        let config = config(cx, artifact)?;
        make_folder(&cx.base_dir().join(&params.path))?;
        let mut written = Vec::new();
        if params.formats.contains(&Format::Model) {
            written.extend(write_model(cx, params, artifact, &config, &batch)?);
        }
        if params.formats.contains(&Format::Update) {
            written.push(write_update(cx, params, artifact, &config, &batch)?);
        }
        let mut made = Artifact::new(Self::OUTPUT, json!({ "formats": params.formats, "files": written }));
        for path in written {
            made.published.push(cx.publish(&path)?);
        }
        Ok(made)
    }
}

fn pick(params: &ExportParams, count: usize) -> Result<usize, FieldError> {
    match params.batch {
        None if count == 1 => Ok(0),
        None => Err(FieldError::new("", format!("the update holds {count} batches, each an edit of its own"))
            .hint(format!("choose one with `batch`, from 0 to {}", count - 1))),
        Some(batch) if batch < count => Ok(batch),
        Some(batch) => Err(FieldError::new("batch", format!("there is no batch {batch}"))
            .expected(format!("a batch from 0 to {}", count - 1))),
    }
}

fn write_model(
    cx: &StageContext,
    params: &ExportParams,
    artifact: &Artifact,
    config: &DecoderConfig,
    batch: &Batch,
) -> Result<Vec<PathBuf>, StageError> {
    let layout = Layout::of(config);
    let shards: Vec<(&str, PathBuf)> =
        weights(artifact).map(|(name, file)| Ok((name, cx.path(file)?))).collect::<Result<_, StageError>>()?;
    let paths: Vec<PathBuf> = shards.iter().map(|(_, path)| path.clone()).collect();
    let checkpoint = Checkpoint::open(&paths).map_err(StageFailure::stage)?;
    let mut changes = Vec::new();
    for (layer, update) in &batch.updates {
        let name = layout.edited_weight(*layer);
        let Some(stored) = checkpoint.stored_name(&name) else {
            return Err(StageError::input(format!("the checkpoint has no tensor {name}")));
        };
        let dense = update.dense();
        changes.push(Change {
            name: stored.to_owned(),
            out: dense.nrows(),
            input: dense.ncols(),
            delta: row_major(dense.as_ref()).into_iter().map(|v| v as f32).collect(),
        });
    }
    let bar = cx.progress("files", Some(shards.len() as u64));
    let mut written = Vec::new();
    let mut changed = 0;
    for (name, source) in &shards {
        cx.check_interrupt()?;
        let path = params.path.join(name);
        let full = cx.base_dir().join(&path);
        replace(&full, |target| {
            let done = copy_with_changes(source, target, &changes, layout.orientation).map_err(StageFailure::stage)?;
            changed += done.len();
            Ok(())
        })?;
        written.push(path);
        bar.inc(1);
    }
    if changed != changes.len() {
        return Err(StageError::internal(format!("{changed} of {} weights were written", changes.len())));
    }
    for (name, file) in companions(artifact) {
        let path = params.path.join(name);
        let source = cx.path(file)?;
        replace(&cx.base_dir().join(&path), |target| {
            std::fs::copy(&source, target).map_err(|e| StageError::io(ErrorKind::Input, "write", target, e))?;
            Ok(())
        })?;
        written.push(path);
    }
    Ok(written)
}

fn write_update(
    cx: &StageContext,
    params: &ExportParams,
    artifact: &Artifact,
    config: &DecoderConfig,
    batch: &Batch,
) -> Result<PathBuf, StageError> {
    let layout = Layout::of(config);
    let single = |m: &palinode_math::Mat<f64>, name: String| {
        Named::f32(name, [m.nrows(), m.ncols()], row_major(m.as_ref()).into_iter().map(|v| v as f32))
    };
    let mut tensors = Vec::new();
    for (layer, Update { left, right }) in &batch.updates {
        let weight = layout.edited_weight(*layer);
        tensors.push(single(left, format!("{weight}.left")));
        tensors.push(single(right, format!("{weight}.right")));
    }
    let ids = artifact.meta["requests"].as_array().map_or(&[][..], Vec::as_slice);
    let provenance = json!({
        "format": "update.v1",
        "program": env!("CARGO_PKG_VERSION"),
        "model": artifact.meta["model"],
        "model_files": artifact.files.iter()
            .filter(|(name, _)| name.starts_with("weights/"))
            .map(|(name, file)| (name.trim_start_matches("weights/").to_owned(), json!(file.digest)))
            .collect::<serde_json::Map<_, _>>(),
        "objective": artifact.meta["objective"],
        "plan": artifact.meta["plan"],
        "requests": ids.get(batch.facts.start..batch.facts.end),
        "layers": batch.facts.layers,
    });
    // One entry: the order of several would differ from one writing to the next.
    let metadata = HashMap::from([("palinode".to_owned(), provenance.to_string())]);
    let bytes = serialize(&tensors, Some(metadata))?;
    let path = params.path.join(UPDATE_FILE);
    replace(&cx.base_dir().join(&path), |target| {
        std::fs::write(target, &bytes).map_err(|error| StageError::io(ErrorKind::Input, "write", target, error))
    })?;
    Ok(path)
}

/// Writes beside the file and moves it into place, so that nobody ever sees half of one.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<(), StageError>) -> Result<(), StageError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    write(&part).inspect_err(|_| {
        let _ = std::fs::remove_file(&part);
    })?;
    std::fs::rename(&part, path).map_err(|error| StageError::io(ErrorKind::Input, "write", path, error))
}
