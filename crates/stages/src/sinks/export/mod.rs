//! `export`: an edited model as files for other programs.

mod adapter;
pub mod folder;
pub mod update_file;

use std::path::PathBuf;

use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, Digest, ErrorKind, FieldError, FileRef, Port, StageContext, StageError,
    StageKind,
};
use palinode_model::Layout;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::adapter::{ADAPTER_CONFIG, ADAPTER_FILE};
use self::folder::{Direction, NOTE, Note, write_weights};
use self::update_file::{UPDATE_FILE, UpdateFile};
use crate::artifacts::model::{UPDATE, companions, config, weights};
use crate::artifacts::tensors::make_folder;
use crate::artifacts::update::batches;

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The whole edited model in Hugging Face's layout: names, shards and number type of the source; its other files copied.
    Model,
    /// The change alone, update.safetensors: `{weight}.left` [out, r] and `{weight}.right` [r, in], W += left · right.
    Update,
    /// A LoRA adapter that `peft` puts onto the unedited model, in a folder `adapter`.
    Peft,
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
    /// What the adapter calls the unedited model; where it lies, if left out.
    #[serde(default)]
    base_model: Option<String>,
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
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Writes an edited model for transformers, the update by itself, an adapter for PEFT.";
    const DOC: &'static str = "\
Writes the edited model as a folder that `transformers` loads with `from_pretrained`, and the change by itself as \
update.safetensors: for each edited weight `{name}.left` [out, r] and `{name}.right` [r, in], to be added as left · right in \
[out, in] orientation (transpose it for GPT-2's Conv1D). Where it came from (model digest, objective, plan, requests) is in \
that file's metadata, as JSON under `palinode`, and in the model folder's palinode.json. With `peft` among the formats, the same \
change as a LoRA adapter: `lora_B` is left, `lora_A` is right, the scaling 1.

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
            errors.push(FieldError::new("formats", "`formats` is empty").expected("some of model, update and peft"));
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
        let layout = Layout::of(&config(cx, artifact)?);
        let update = UpdateFile::of(artifact, &layout, &batch);
        let out = cx.base_dir().join(&params.path);
        make_folder(&out)?;
        let mut written = Vec::new();
        if params.formats.contains(&Format::Model) {
            written.extend(write_model(cx, params, artifact, &layout, &update)?);
        }
        let mut write = |name: &str, bytes: &[u8]| {
            written.push(params.path.join(name));
            folder::write(&out.join(name), bytes)
        };
        if params.formats.contains(&Format::Update) {
            write(UPDATE_FILE, &update.to_bytes()?)?;
        }
        if params.formats.contains(&Format::Peft) {
            make_folder(&out.join("adapter"))?;
            let base = params.base_model.clone().or_else(|| model_folder(cx, artifact)).unwrap_or_default();
            write(&format!("adapter/{ADAPTER_FILE}"), &adapter::tensors(&update, &layout)?)?;
            write(&format!("adapter/{ADAPTER_CONFIG}"), adapter::config(&update, &layout, &base)?.as_bytes())?;
        }
        let mut made = Artifact::new(Self::OUTPUT, json!({ "formats": params.formats, "files": written }));
        for path in written {
            made.published.push(cx.publish(&path)?);
        }
        Ok(made)
    }
}

/// Where the unedited model lies.
fn model_folder(cx: &StageContext, artifact: &Artifact) -> Option<String> {
    let (_, file) = weights(artifact).next()?;
    Some(cx.path(file).ok()?.parent()?.display().to_string())
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

/// The edited model in Hugging Face's layout.
fn write_model(
    cx: &StageContext,
    params: &ExportParams,
    artifact: &Artifact,
    layout: &Layout,
    update: &UpdateFile,
) -> Result<Vec<PathBuf>, StageError> {
    let shards: Vec<(String, PathBuf)> = weights(artifact)
        .map(|(name, file)| Ok((name.to_owned(), cx.path(file)?)))
        .collect::<Result<_, StageError>>()?;
    let bar = cx.progress("files", Some(shards.len() as u64));
    let out = cx.base_dir().join(&params.path);
    write_weights(&shards, layout, &update.updates, Direction::On, &out, || {
        bar.inc(1);
        cx.check_interrupt()
    })?;
    let mut written: Vec<PathBuf> = shards.iter().map(|(name, _)| params.path.join(name)).collect();
    for (name, file) in companions(artifact) {
        folder::copy(&cx.path(file)?, &out.join(name))?;
        written.push(params.path.join(name));
    }
    let digest = |(name, _): &(String, PathBuf)| {
        let path = out.join(name);
        let file = FileRef::of_file(&path).map_err(|error| StageError::io(ErrorKind::Input, "read", &path, error))?;
        Ok((name.clone(), file.digest))
    };
    let note = Note {
        update: Digest::of(&update.to_bytes()?),
        weights: shards.iter().map(digest).collect::<Result<_, StageError>>()?,
        provenance: update.provenance.clone(),
    };
    let text = serde_json::to_vec_pretty(&note).map_err(|error| StageError::internal(error.to_string()))?;
    folder::write(&out.join(NOTE), &text)?;
    written.push(params.path.join(NOTE));
    Ok(written)
}
