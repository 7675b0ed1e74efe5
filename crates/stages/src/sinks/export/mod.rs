//! `export`: an edited model as files for other programs.

mod adapter;
pub mod folder;
pub mod update_file;

use std::path::PathBuf;

use palinode_engine::{
    Artifact, DescribeCx, Digest, Error, ErrorKind, FieldError, FileRef, Port, PortOf, StageContext, StageKind,
    artifact, inside,
};
use palinode_model::save::Written;
use palinode_model::{EditedType, Layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::adapter::{ADAPTER_CONFIG, ADAPTER_FILE};
use self::folder::{Direction, NOTE, Note, describe_gguf, write_gguf, write_weights};
use self::update_file::{UPDATE_FILE, UpdateFile};
use crate::artifacts::measurements::{ExportFacts, ExportFormat, ExportKind};
use crate::artifacts::model::{GGUF, companions, config, gguf, weights};
use crate::artifacts::tensors::make_folder;
use crate::artifacts::update::{UpdateKind, batches};

/// A share of a change that is worth a word when rounding loses it.
const LARGE_SHARE: f64 = 0.05;

/// Parameters of `export`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportParams {
    /// The folder to write to. It is created if it does not exist.
    path: PathBuf,
    /// What to write.
    #[serde(default = "both")]
    #[schemars(length(min = 1))]
    formats: Vec<ExportFormat>,
    /// The name of the unedited model in the adapter. The default is its path.
    #[serde(default)]
    base_model: Option<String>,
    /// The batch to write, counted from 0. Required if there are several, because each batch is a separate edit of the
    /// unedited model.
    #[serde(default)]
    batch: Option<usize>,
    /// The type of edited tensors in `model.gguf` that were quantized: `f16` (the default), or `q8_0`, which takes half of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gguf_type: Option<GgufType>,
}

/// What edited tensors of a GGUF file are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GgufType {
    /// Half precision.
    F16,
    /// Eight bits, and a scale for 32 values.
    Q8_0,
}

fn both() -> Vec<ExportFormat> {
    vec![ExportFormat::Model, ExportFormat::Update]
}

/// The edited model.
const MODEL: PortOf<UpdateKind> = PortOf::required("model", "The edited model.");

/// See [`StageKind::DOC`].
pub struct Export;

impl StageKind for Export {
    type Params = ExportParams;
    const NAME: &'static str = "export";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Writes an edited model for transformers, the update alone, or an adapter for PEFT.";
    const DOC: &'static str = "\
Writes the edited model as a folder that `transformers` loads with `from_pretrained`, and the change alone as \
update.safetensors: for each edited weight `{name}.left` [out, r] and `{name}.right` [r, in]. Their product left · right is \
added in [out, in] orientation (transpose it for GPT-2's Conv1D). The metadata of that file, as JSON under `palinode`, and \
palinode.json in the model's folder record the source: model digest, objective, plan, requests. With `peft` among the \
formats, writes the same change as a LoRA adapter: `lora_B` is left, `lora_A` is right, the scaling is 1.

Of a model that is a GGUF file, the folder for `transformers` holds every weight in f32, and `gguf` among the formats writes the edited \
model as a GGUF file for llama.cpp: tensors that the edit does not touch, and the metadata, stay byte for byte as they were.

When an exported file is changed or deleted, the next run writes it again.";
    type Output = ExportKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn publishes(params: &ExportParams) -> Vec<(&'static str, PathBuf)> {
        vec![("path", params.path.clone())]
    }

    fn describe(params: &ExportParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.formats.is_empty() {
            errors.push(
                FieldError::new("formats", "`formats` is empty").expected("some of model, update, gguf and peft"),
            );
        }
        let planned = cx.input(MODEL);
        if let Some(count) = planned.batches
            && let Err(error) = pick(params, count)
        {
            errors.push(error);
        }
        if params.formats.contains(&ExportFormat::Peft) && planned.low_rank == Some(false) {
            let message = "an adapter holds low-rank changes, and those of this update are not";
            errors.push(FieldError::new("formats", message).hint("leave `peft` out of `formats`"));
        }
        let is_gguf = planned.model.as_ref().map(|model| model.gguf);
        let wants_gguf = params.formats.contains(&ExportFormat::Gguf);
        if wants_gguf && is_gguf == Some(false) {
            let message = "a GGUF file is written of a model that is one, and this one is a folder";
            errors.push(FieldError::new("formats", message).hint("leave `gguf` out of `formats`"));
        }
        if params.gguf_type.is_some() && !wants_gguf {
            let message = "`gguf_type` is the type of edited tensors in model.gguf, which is not written";
            errors.push(FieldError::new("gguf_type", message).hint("add `gguf` to `formats`, or leave it out"));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &ExportParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(MODEL)?;
        let mut edits = batches(cx, &given)?;
        let batch = pick(params, edits.len()).map_err(|error| Error::input(error.message))?;
        let batch = edits.swap_remove(batch);
        let layout = Layout::of(&config(cx, &given)?);
        let update = UpdateFile::of(&given, &layout, &batch)?;
        let out = cx.base_dir().join(&params.path);
        make_folder(&out)?;
        let mut written = Vec::new();
        if params.formats.contains(&ExportFormat::Model) {
            written.extend(write_model(cx, params, &given, &layout, &update)?);
        }
        if params.formats.contains(&ExportFormat::Gguf) {
            let file = gguf(&given).ok_or_else(|| Error::input("the model is not a GGUF file"))?;
            let kind = match params.gguf_type {
                None | Some(GgufType::F16) => EditedType::F16,
                Some(GgufType::Q8_0) => EditedType::Q8,
            };
            let done = write_gguf((GGUF.into(), cx.path(file)?), &layout, &update.updates, kind, &out.join(GGUF))?;
            warn_of_rounding(cx, GGUF, &done);
            written.push(params.path.join(GGUF));
        }
        let mut write = |name: &str, bytes: &[u8]| {
            written.push(params.path.join(name));
            folder::write(&out.join(name), bytes)
        };
        if params.formats.contains(&ExportFormat::Update) {
            write(UPDATE_FILE, &update.to_bytes()?)?;
        }
        if params.formats.contains(&ExportFormat::Peft) {
            make_folder(&out.join("adapter"))?;
            let base = params.base_model.clone().or_else(|| model_folder(cx, &given)).unwrap_or_default();
            write(&format!("adapter/{ADAPTER_FILE}"), &adapter::tensors(&update, &layout)?)?;
            write(&format!("adapter/{ADAPTER_CONFIG}"), adapter::config(&update, &layout, &base)?.as_bytes())?;
        }
        let published = written.iter().map(|path| cx.publish(path)).collect::<Result<_, _>>()?;
        let facts = ExportFacts { formats: Some(params.formats.clone()), files: written };
        Ok(Artifact { published, ..artifact::<ExportKind>(&facts)? })
    }
}

/// Says where rounding to the stored type took a large share of the change: the exported model is then another one than was evaluated.
fn warn_of_rounding(cx: &StageContext, place: &str, written: &[Written]) {
    let lost = written.iter().filter(|weight| weight.lost > LARGE_SHARE);
    for weight in lost {
        let share = 100.0 * weight.lost;
        cx.warn(format!(
            "in {place}, rounding {} to its stored type loses {share:.0} % of the change: update.safetensors has it whole",
            weight.name
        ));
    }
}

/// Where the unedited model lies.
fn model_folder(cx: &StageContext, artifact: &Artifact) -> Option<String> {
    let (_, file) = weights(artifact).next()?;
    let path = cx.path(file).ok()?;
    let folder = if gguf(artifact).is_some() { &path } else { path.parent()? };
    Some(folder.display().to_string())
}

fn pick(params: &ExportParams, count: usize) -> Result<usize, FieldError> {
    match params.batch {
        None if count == 1 => Ok(0),
        None => Err(FieldError::new("", format!("the update holds {count} batches, each an edit of its own"))
            .hint(format!("choose one with `batch`, from 0 to {}", count - 1))),
        Some(batch) if batch < count => Ok(batch),
        Some(batch) => {
            let expected =
                if count == 1 { "0, the only batch".to_owned() } else { format!("a batch from 0 to {}", count - 1) };
            Err(FieldError::new("batch", format!("there is no batch {batch}")).expected(expected))
        }
    }
}

/// The edited model in Hugging Face's layout.
fn write_model(
    cx: &StageContext,
    params: &ExportParams,
    artifact: &Artifact,
    layout: &Layout,
    update: &UpdateFile,
) -> Result<Vec<PathBuf>, Error> {
    let shards: Vec<(String, PathBuf)> =
        weights(artifact).map(|(name, file)| Ok((name.to_owned(), cx.path(file)?))).collect::<Result<_, Error>>()?;
    let bar = cx.progress("files", Some(shards.len() as u64));
    let out = cx.base_dir().join(&params.path);
    let names = write_weights(&shards, layout, &update.updates, Direction::On, &out, |done| {
        warn_of_rounding(cx, "the model's folder", done);
        bar.inc(1);
        cx.check_interrupt()
    })?;
    let mut written: Vec<PathBuf> = names.iter().map(|name| params.path.join(name)).collect();
    if let Some(file) = gguf(artifact) {
        written.extend(describe_gguf(&cx.path(file)?, &out)?.into_iter().map(|name| params.path.join(name)));
    }
    for (name, file) in companions(artifact) {
        folder::copy(&cx.path(file)?, &inside(&out, name)?)?;
        written.push(params.path.join(name));
    }
    let digest = |name: &String| {
        let path = out.join(name);
        let file = FileRef::of_file(&path).map_err(|error| Error::io(ErrorKind::Input, "read", &path, error))?;
        Ok((name.clone(), file.digest))
    };
    let note = Note {
        update: Digest::of(&update.to_bytes()?),
        weights: names.iter().map(digest).collect::<Result<_, Error>>()?,
        provenance: update.provenance.clone(),
    };
    let text = serde_json::to_vec_pretty(&note).map_err(|error| Error::internal(error.to_string()))?;
    folder::write(&out.join(NOTE), &text)?;
    written.push(params.path.join(NOTE));
    Ok(written)
}
