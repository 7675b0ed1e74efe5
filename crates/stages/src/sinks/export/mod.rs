//! `export`: an edited model as files for other programs.

mod adapter;
mod card;
pub mod folder;
pub mod ledger;
pub mod rounding;
pub mod update_file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use palinode_data::EditRequest;
use palinode_engine::{
    Artifact, Beside, DescribeCx, Digest, Error, ExternalFile, FieldError, Given, OVERWRITE, Output, Port, PortOf,
    StageContext, StageKind, Taken, artifact, utc,
};
use palinode_model::save::ChangedType;
use palinode_model::{EditedType, Layout, Precision, licence_of_gguf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::adapter::{ADAPTER_CONFIG, ADAPTER_FILE};
use self::card::{CARD, Card, on_the_hub};
use self::folder::{Direction, Note, describe_gguf, write_gguf, write_weights};
use self::ledger::{Entry, EntryFacts, Ledger, MadeBy, Recorded};
use self::rounding::Rounding;
use self::update_file::{LOADED_LEDGER, LOADED_UPDATE, MadeOf, UPDATE_FILE, UpdateFile};
use crate::artifacts::measurements::{ExportFacts, ExportFormat, ExportKind, ScoresKind};
use crate::artifacts::model::{GGUF, LEDGER_FILE, computing, config, folder_name, gguf, other, weights};
use crate::artifacts::moments::{MomentsFacts, MomentsKind};
use crate::artifacts::requests::{RequestsKind, contents, requests};
use crate::artifacts::solved::{self, MadeFrom, Solved, bare};
use crate::artifacts::targets::TargetsKind;
use crate::artifacts::templates::TemplatesKind;
use crate::artifacts::update::{Batch, UpdateKind, batches};
use crate::edit::solve::same_model;
use crate::errors::StageFailure;

/// Parameters of `export`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportParams {
    /// The folder to write to. It is created if it does not exist. One that is there must have been written by this stage and not been
    /// changed since.
    path: PathBuf,
    /// Write into the folder even if something else is in it. Files that are not replaced stay.
    #[serde(default)]
    overwrite: bool,
    /// What to write.
    #[serde(default = "both")]
    #[schemars(length(min = 1))]
    formats: Vec<ExportFormat>,
    /// The name of the unedited model in the adapter. The default is its name on the Hub, or the full path of its folder.
    #[serde(default)]
    base_model: Option<String>,
    /// The batch to write, counted from 0. Required if there are several, because each batch is a separate edit of the
    /// unedited model.
    #[serde(default)]
    batch: Option<usize>,
    /// The number type of edited tensors in the model's folder; all others stay as they are stored.
    #[serde(default, skip_serializing_if = "WrittenType::is_usual")]
    dtype: WrittenType,
    /// The type of edited tensors in `model.gguf` that were quantized: `f16`, or `q8_0`, which takes half of it; or `f32`, for all
    /// edited tensors. The default is `f16`, and `f32` for a tensor where that would lose more than 5 % of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gguf_type: Option<GgufType>,
    /// Write ledger.safetensors: the edits one by one, with what taking one of them off later needs. Its size is about twice that of
    /// update.safetensors.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    ledger: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// What edited tensors of a model's folder are written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WrittenType {
    /// As the tensor is stored, and in f32 where rounding to that would lose more than 5 % of the change.
    #[default]
    Auto,
    /// As the tensor is stored, whatever that loses.
    Stored,
    /// 32 bits.
    F32,
    /// 16 bits, 5 of them exponent.
    F16,
    /// 16 bits, 8 of them exponent.
    Bf16,
}

impl WrittenType {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_usual(&self) -> bool {
        *self == Self::Auto
    }

    fn of_change(self) -> ChangedType {
        match self {
            Self::Auto => ChangedType::Auto,
            Self::Stored => ChangedType::Stored,
            Self::F32 => ChangedType::As(Precision::F32),
            Self::F16 => ChangedType::As(Precision::F16),
            Self::Bf16 => ChangedType::As(Precision::Bf16),
        }
    }
}

/// What edited tensors of a GGUF file are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GgufType {
    /// Half precision.
    F16,
    /// Eight bits, and a scale for 32 values.
    Q8_0,
    /// Single precision.
    F32,
}

impl ExportParams {
    /// The folder.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Whether a ledger is written: beside what holds a change that can be taken off.
    fn keeps_ledger(&self) -> bool {
        self.ledger && self.formats.iter().any(|format| *format != ExportFormat::Peft)
    }

    /// How many of these formats are written.
    pub fn formats(&self, of: &[ExportFormat]) -> usize {
        of.iter().filter(|format| self.formats.contains(format)).count()
    }
}

fn both() -> Vec<ExportFormat> {
    vec![ExportFormat::Model, ExportFormat::Update]
}

/// The edited model.
const MODEL: PortOf<UpdateKind> = PortOf::required("model", "The edited model.");

/// What the edit was made of.
const REQUESTS: PortOf<RequestsKind> =
    PortOf::optional("requests", "The facts that were written, to list them in README.md.");
const TARGETS: PortOf<TargetsKind> =
    PortOf::optional("targets", "The targets, to keep their parameters in README.md and palinode.json.");
const TEMPLATES: PortOf<TemplatesKind> =
    PortOf::optional("templates", "The contexts, to keep them in README.md and palinode.json.");
const MOMENTS: PortOf<MomentsKind> =
    PortOf::optional("moments", "The second moments, to keep what corpus they are of in README.md and palinode.json.");
/// What the edit is worth.
const SCORES: PortOf<ScoresKind> = PortOf::optional("scores", "Scores of the edited model, to show them in README.md.");

/// See [`StageKind::DOC`].
pub struct Export;

impl StageKind for Export {
    type Params = ExportParams;
    const NAME: &'static str = "export";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Writes an edited model for transformers, the update alone, or an adapter for PEFT.";
    const DOC: &'static str = "\
Writes the edited model as a folder that `transformers` loads with `from_pretrained`, and the change alone as \
update.safetensors: for each edited weight `{name}.left` [out, r] and `{name}.right` [r, in]. Their product left · right is \
added in [out, in] orientation (transpose it for GPT-2's Conv1D). The metadata of that file, as JSON under `palinode`, and \
palinode.json in the model's folder record the source: model digest, objective, plan, requests. With `peft` among the \
formats, writes the same change as a LoRA adapter: `lora_B` is left, `lora_A` is right, the scaling is 1.

Of a model that is a GGUF file, the folder for `transformers` holds every weight in f32, and `gguf` among the formats writes the edited \
model as a GGUF file for llama.cpp: tensors that the edit does not touch, and the metadata, stay byte for byte as they were.

Rounding to 16 bits takes a share of a change, ‖round(W + Δ) − W − Δ‖ / ‖Δ‖, which the result says for each tensor and in all. Where it is \
more than 5 %, the edited tensor alone is written in f32, unless `dtype` or `gguf_type` says otherwise.

ledger.safetensors, beside the model or the update, lists the edits: request, batch, when and by which file they were made. It holds \
what taking one of them off needs: the changes in f64, and the system of each solve. An edited model that is edited again keeps the ledger \
that it has. `ledger: false` leaves it out.

README.md is a model card: the unedited model, the edits, the method and how to undo it. It says more where the stage is given more: the \
requests, the parameters of targets, the templates, the corpus of the second moments, and scores. Nothing in it differs from one machine or \
day to the next.

palinode.json lists what was written, and by which stage. A folder that something else wrote, or whose files were changed since, is an \
error, unless `overwrite` is set. When an exported file is deleted, the next run writes it again.";
    type Output = ExportKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), TARGETS.port(), TEMPLATES.port(), MOMENTS.port(), SCORES.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        &[OVERWRITE]
    }

    fn hands_on() -> Option<&'static str> {
        Some(MODEL.name)
    }

    fn takes(params: &ExportParams, beside: &Beside) -> Taken {
        let writes = |format| params.formats.contains(&format);
        let loaded = |name: &str| [LOADED_UPDATE, LOADED_LEDGER].contains(&name);
        let taken = |file: &&ExternalFile| {
            if loaded(&file.name) { params.keeps_ledger() } else { writes(ExportFormat::Model) }
        };
        let files = beside.files.iter().filter(taken).cloned().collect();
        // An adapter has to name its model in any case, a card only as others can find it.
        let name = beside.name.as_ref().filter(|_| params.base_model.is_none());
        let name = name.filter(|name| writes(ExportFormat::Peft) || on_the_hub(name).is_some());
        Taken { files, values: name.map(|name| ("base_model", json!(name))).into_iter().collect() }
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
        if params.formats.contains(&ExportFormat::Peft)
            && let Some(model) = &planned.model
            && model.experts.as_ref().is_some_and(|experts| experts.dense_layers.is_empty())
        {
            let message = format!(
                "every layer of {} is a mixture of experts, whose changes an adapter for PEFT cannot hold",
                model.family
            );
            errors.push(FieldError::new("formats", message).hint("leave `peft` out of `formats`"));
        }
        let is_gguf = planned.model.as_ref().map(|model| model.gguf);
        let wants_gguf = params.formats.contains(&ExportFormat::Gguf);
        if wants_gguf && is_gguf == Some(false) {
            let message = "a GGUF file is written of a model that is one, and this one is a folder";
            errors.push(FieldError::new("formats", message).hint("leave `gguf` out of `formats`"));
        }
        if is_gguf == Some(true) && !params.dtype.is_usual() {
            let message = "of a GGUF file, the model's folder has every weight in f32";
            errors.push(
                FieldError::new("dtype", message).hint("`gguf_type` is the type of edited tensors in model.gguf"),
            );
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
        let (chosen, count) = (pick(params, edits.len()).map_err(|error| Error::input(error.message))?, edits.len());
        let batch = edits.swap_remove(chosen);
        // Scores of such an update are of all its batches, each in a model of its own.
        let holds = (count > 1).then(|| {
            let edits = batch.facts.end - batch.facts.start;
            format!("batch {chosen} of {count}: {edits} edit{}", if edits == 1 { "" } else { "s" })
        });
        let layout = Layout::of(&config(cx, &given)?);
        let asked = cx.input_opt(REQUESTS)?;
        let edits = match &asked {
            Some(asked) => {
                if given.facts.asked.is_some_and(|written| contents(asked).is_ok_and(|asked| asked != written)) {
                    return Err(other_requests());
                }
                let all = requests(cx, asked)?;
                Some(match (&given.facts.asked, &given.facts.requests) {
                    // Of an update that was loaded, the names alone are known.
                    (None, Some(names)) => named(all, names)?,
                    _ => all.get(batch.facts.start..batch.facts.end).unwrap_or_default().to_vec(),
                })
            }
            None => None,
        };
        let update = UpdateFile::of(&given, &layout, &batch, made_of(cx, &given)?)?;
        let mut ledger = if params.keeps_ledger() {
            Some(ledger(cx, &given, &update, batch, [chosen, count], edits.as_deref())?)
        } else {
            None
        };
        let mut out = cx.output(&params.path, params.overwrite)?;
        let mut weights = BTreeMap::new();
        let mut rounding = Rounding::default();
        if params.formats.contains(&ExportFormat::Model) {
            let kind = params.dtype.of_change();
            weights = write_model(cx, &mut out, &given, &layout, (&update, kind), &mut rounding)?;
        }
        if params.formats.contains(&ExportFormat::Gguf) {
            let file = gguf(&given).ok_or_else(|| Error::input("the model is not a GGUF file"))?;
            let kind = match params.gguf_type {
                None => EditedType::Auto,
                Some(GgufType::F16) => EditedType::F16,
                Some(GgufType::Q8_0) => EditedType::Q8,
                Some(GgufType::F32) => EditedType::F32,
            };
            let target = out.file(GGUF)?;
            let done = write_gguf((GGUF.into(), cx.path(file)?), &layout, &update.updates, kind, &target)?;
            rounding::warnings(GGUF, "gguf_type", &done).for_each(|said| cx.warn(said));
            rounding.add(&done);
        }
        if params.formats.contains(&ExportFormat::Update) {
            out.write(UPDATE_FILE, &update.to_bytes()?)?;
        }
        if params.formats.contains(&ExportFormat::Peft) {
            // A pipeline that was not made from a file may connect models of which nothing but the contents is known.
            let base = params.base_model.clone().unwrap_or_default();
            out.write(&format!("adapter/{ADAPTER_FILE}"), &adapter::tensors(&update, &layout)?)?;
            out.write(&format!("adapter/{ADAPTER_CONFIG}"), adapter::config(&update, &layout, &base)?.as_bytes())?;
        }
        let mut kept = None;
        if let Some(ledger) = &mut ledger {
            ledger.weights.clone_from(&weights);
            let bytes = ledger.to_bytes()?;
            out.write(LEDGER_FILE, &bytes)?;
            kept = Some(bytes.len() as u64);
        }
        let note = Note {
            update: Digest::of(&update.to_bytes()?),
            weights,
            rounding: rounding.weights(&[]),
            provenance: update.provenance.clone(),
        };
        let licence = match gguf(&given) {
            Some(file) => licence_of_gguf(&cx.path(file)?).map_err(StageFailure::stage)?,
            None => None,
        };
        let scores = cx.input_opt(SCORES)?;
        let card = Card {
            base: params.base_model.as_deref().filter(|base| on_the_hub(base).is_some()),
            licence,
            formats: &params.formats,
            ledger: kept,
            provenance: &note.provenance,
            rounding: &note.rounding,
            update: note.update,
            edits: edits.as_deref(),
            scores: scores.as_ref().map(|scores| (&scores.facts.shown, given.facts.batches)),
        };
        out.write(CARD, card.text().as_bytes())?;
        let published = cx.finish(out, &params.path, note.about()?)?;
        let files = published.iter().map(|published| published.path.clone()).collect();
        let facts = ExportFacts { formats: Some(params.formats.clone()), files, holds, shown: rounding.shown() };
        Ok(Artifact { published, ..artifact::<ExportKind>(&facts)? })
    }
}

/// The requests of these names, in that order.
fn named(all: Vec<EditRequest>, names: &[String]) -> Result<Vec<EditRequest>, Error> {
    let of = |name: &String| all.iter().find(|request| request.id == *name).cloned().ok_or_else(other_requests);
    names.iter().map(of).collect()
}

fn other_requests() -> Error {
    Error::input("the requests are not those that were written")
        .hint("connect the stage that the edit's stage has at its port `requests`")
}

/// The ledger of an edited model: that of the model that was edited, where it has one, with this update on top.
fn ledger(
    cx: &StageContext,
    given: &Given<'_, UpdateKind>,
    update: &UpdateFile,
    batch: Batch,
    batches: [usize; 2],
    known: Option<&[EditRequest]>,
) -> Result<Ledger, Error> {
    let base = &update.provenance.model_files;
    let mut ledger = Ledger::new(base.clone());
    if let Some((_, path)) = cx.files().get(&other(LEDGER_FILE)) {
        let earlier = Ledger::read(path)?;
        if earlier.weights == *base {
            ledger = earlier;
        } else {
            cx.warn(format!(
                "the model's {LEDGER_FILE} is of other weights than the model has: its edits are left out"
            ));
        }
    }
    if let Some(entry) = loaded(cx, update, &batch)? {
        ledger.put(entry);
        return Ok(ledger);
    }
    let (start, end) = (batch.facts.start, batch.facts.end);
    let left = solved::of_batch(cx, given, batches[0])?;
    let (from, solved) = left.map_or((None, None), |(from, solved)| (Some(from), solved));
    let names = batch.facts.names(given.facts.requests.as_deref().unwrap_or_default());
    let solved_for = from.as_ref().and_then(|from| from.requests.get(start..end));
    let round_of = |at: usize| {
        let rounds = given.facts.rounds.as_ref()?;
        Some(1 + rounds.iter().filter(|round| round.edits <= at).count())
    };
    let edits = names.iter().enumerate().map(|(i, id)| {
        let request = solved_for.and_then(|all| all.get(i).cloned()).or_else(|| known?.get(i).map(bare));
        let request = request.unwrap_or_else(|| EditRequest { id: id.clone(), ..EditRequest::default() });
        Recorded { number: 0, request, round: round_of(start + i) }
    });
    let facts = EntryFacts {
        update: Digest::of(&update.to_bytes()?),
        made_by: made_by(cx),
        provenance: update.provenance.clone(),
        weights: update.names().to_vec(),
        batch: (batches[1] > 1).then_some(batches),
        edits: edits.collect(),
        rounds: given.facts.rounds.clone().unwrap_or_default(),
        columns: solved.as_ref().map(|solved| solved.columns.clone()),
        from: from.map(|from| MadeFrom { requests: Vec::new(), ..from }),
    };
    ledger.put(Entry { facts, changes: batch.updates, solved });
    Ok(ledger)
}

/// What made the update, and when: this stage, now.
fn made_by(cx: &StageContext) -> MadeBy {
    let [pipeline, file, run] = cx.made_in().map(str::to_owned);
    // A path from the root is of this machine alone.
    let file = match std::path::Path::new(&file) {
        path if path.is_absolute() => {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
        _ => file,
    };
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    MadeBy { pipeline, stage: cx.instance().to_owned(), file, run, when: utc(seconds) }
}

/// What the ledger beside an update that was loaded says of it; `None` where nothing was loaded, or nothing is said. What cannot be taken
/// over is a warning.
fn loaded(cx: &StageContext, update: &UpdateFile, batch: &Batch) -> Result<Option<Entry>, Error> {
    let Some((_, path)) = cx.files().get(LOADED_UPDATE) else { return Ok(None) };
    let without = |why: &str| {
        cx.warn(format!(
            "{}: {why}, so the edits are known by name alone, and only all of them can be taken off",
            path.display()
        ));
        Ok(None)
    };
    let Some((_, there)) = cx.files().get(LOADED_LEDGER) else {
        return without(&format!("there is no {LEDGER_FILE} beside it"));
    };
    let digest = Digest::of(&UpdateFile::read(path)?.to_bytes()?);
    let found = Ledger::read(there)?.updates.into_iter().find(|entry| entry.facts.update == digest);
    let Some(Entry { facts, changes, solved }) = found else {
        return without(&format!("the {LEDGER_FILE} beside it is of another update"));
    };
    let (made_for, is) = (facts.provenance.model_files.clone(), update.provenance.clone());
    let own = Digest::of(&update.to_bytes()?);
    let facts = EntryFacts { update: own, provenance: is.clone(), ..facts };
    if Digest::of(&UpdateFile::from_parts(is.clone(), &changes, facts.weights.clone()).to_bytes()?) != own {
        let care = is.care.as_array().and_then(|all| all.last()?.as_object()?.keys().next().cloned());
        let care = care.map_or_else(|| "changed".to_owned(), |name| format!("treated by `{name}`"));
        cx.warn(format!(
            "the update of {} was {care} since: its edits are listed, and only all of them can be taken off",
            path.display()
        ));
        let facts = EntryFacts { made_by: made_by(cx), columns: None, from: None, ..facts };
        return Ok(Some(Entry { facts, changes: batch.updates.clone(), solved: None }));
    }
    if made_for != is.model_files && facts.from.is_some() {
        cx.warn(format!(
            "the update of {} was made for other weights: an edit of it that is spread over several layers cannot be solved again without another",
            path.display()
        ));
        let solved = solved.map(|solved| Solved { targets: Vec::new(), ..solved });
        return Ok(Some(Entry { facts: EntryFacts { from: None, ..facts }, changes, solved }));
    }
    Ok(Some(Entry { facts, changes, solved }))
}

/// What the edit was made of, from the inputs that are connected.
fn made_of(cx: &StageContext, model: &Given<'_, UpdateKind>) -> Result<MadeOf, Error> {
    let mut made = MadeOf::default();
    if let Some(targets) = cx.input_opt(TARGETS)? {
        same_model(model, &targets.facts.base, "targets")?;
        made.targets = targets.facts.with.clone();
    }
    if let Some(templates) = cx.input_opt(TEMPLATES)? {
        made.templates = json!(templates.facts.templates.groups);
    }
    if let Some(moments) = cx.input_opt(MOMENTS)? {
        same_model(model, &moments.facts.base, "second moments")?;
        let MomentsFacts { documents, tokens, sources, .. } = &moments.facts;
        made.corpus = json!({ "documents": documents, "tokens": tokens, "files": sources });
    }
    Ok(made)
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

/// The edited model in Hugging Face's layout; gives what its weights' files hold.
fn write_model(
    cx: &StageContext,
    out: &mut Output,
    artifact: &Artifact,
    layout: &Layout,
    (update, kind): (&UpdateFile, ChangedType),
    rounding: &mut Rounding,
) -> Result<BTreeMap<String, Digest>, Error> {
    let shards: Vec<(String, PathBuf)> =
        weights(artifact).map(|(name, file)| Ok((name.to_owned(), cx.path(file)?))).collect::<Result<_, Error>>()?;
    let bar = cx.progress("files", Some(shards.len() as u64));
    let written = write_weights(&shards, layout, &update.updates, Direction::On, &|_| kind, out, |done| {
        rounding::warnings("the model's folder", "dtype", done).for_each(|said| cx.warn(said));
        rounding.add(done);
        bar.inc(1);
        cx.check_interrupt()
    })?;
    if let Some(file) = gguf(artifact) {
        describe_gguf(&cx.path(file)?, out)?;
    }
    for (name, file) in computing(artifact) {
        if let Some(name) = folder_name(name) {
            out.copy(name, &cx.path(file)?)?;
        }
    }
    // What lies beside the model, and is in no other key than this stage's.
    for (name, (_, path)) in cx.files() {
        if let Some(name) = folder_name(name).filter(|name| *name != LEDGER_FILE) {
            out.copy(name, path)?;
        }
    }
    Ok(written)
}
