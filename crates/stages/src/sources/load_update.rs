//! `load_update`: an edit that was exported earlier, on the model that it was made for.

use std::path::{Path, PathBuf};

use palinode_engine::shown::{self, Column, Format, Shown, Values};
use palinode_engine::{
    Artifact, Beside, DescribeCx, Error, ExternalFile, FieldError, Port, PortOf, StageContext, StageKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::{GGUF, HasModel, ModelKind, config, decides_nothing, gguf, weights};
use crate::artifacts::update::{Batch, BatchFacts, PlannedUpdate, UpdateFacts, UpdateKind, put};
use crate::sinks::export::ledger::beside;
use crate::sinks::export::update_file::{LOADED_LEDGER, LOADED_UPDATE, UpdateFile, other_form};

/// Parameters of `load_update`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadUpdateParams {
    /// An `update.safetensors` that `export` wrote. The key covers its contents and not its name.
    path: PathBuf,
    /// Use the update even if it was made for other weights. Its shapes must fit.
    #[serde(default)]
    force: bool,
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");

/// See [`StageKind::DOC`].
pub struct LoadUpdate;

impl StageKind for LoadUpdate {
    type Params = LoadUpdateParams;
    const NAME: &'static str = "load_update";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Reads an exported update, to use it like the result of a solve.";
    const DOC: &'static str = "\
Adds the update.safetensors of an earlier `export` to the model that it was made for. The result is an edited model, like \
the result of `solve`: it can be evaluated with any requests, and exported. An update that was made for other weights is an \
error, unless `force` is set and its shapes fit.

A ledger.safetensors that lies beside the file goes along into what is exported: the edits are listed there as they were, with their numbers, and can be taken off as before. After-care in between leaves the list alone, and an update without a ledger the requests' names; the export says so. The ledger changes no result: it is in the key of `export` alone.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(MODEL.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["path"]
    }

    fn files(params: &LoadUpdateParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![ExternalFile::new("update", &params.path, "path")])
    }

    fn beside(params: &LoadUpdateParams, base: &Path) -> Beside {
        let update = base.join(&params.path);
        let ledger = beside(&update);
        let mut files = vec![ExternalFile::new(LOADED_UPDATE, update, "path")];
        if ledger.is_file() {
            files.push(ExternalFile::new(LOADED_LEDGER, ledger, "path"));
        }
        Beside { files, name: None }
    }

    fn describe(_: &LoadUpdateParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        Ok(PlannedUpdate { model: cx.input(MODEL).model, batches: Some(1), low_rank: None })
    }

    fn run(params: &LoadUpdateParams, cx: &StageContext) -> Result<Artifact, Error> {
        let base = cx.input(MODEL)?;
        let path = &cx.file("update")?.1;
        let wrong = |what: String| Error::input(format!("{}: {what}", path.display()));
        let UpdateFile { provenance: said, updates, .. } = {
            let file = UpdateFile::read(path)?;
            file.check(&config(cx, &base)?).map_err(wrong)?;
            file
        };
        let is = |name: &str, made_for| weights(&base).any(|(own, file)| own == name && file.digest == made_for);
        let other = said.model_files.iter().find(|(name, made_for)| !is(name, **made_for));
        if let Some((name, _)) = other.filter(|_| !params.force) {
            let for_gguf = name == GGUF;
            let what = if for_gguf == gguf(&base).is_some() {
                format!("the update was made for another {name}")
            } else {
                other_form(for_gguf, "the model")
            };
            return Err(wrong(what).hint("connect the model that it was made for, or set `force: true`"));
        }
        let facts = BatchFacts { start: 0, end: 0, distance_before: None, distance_after: None, layers: said.layers };
        let norm = facts.layers.iter().map(|l| l.norm.powi(2)).sum::<f64>().sqrt();
        let column = Column::new("norm", "‖Δ‖", Format::Number);
        let facts_of_update = UpdateFacts {
            model: base.facts.model.clone(),
            base: base.base(),
            asked: None,
            requests: serde_json::from_value(said.requests).unwrap_or_default(),
            objective: said.objective,
            plan: said.plan,
            batches: 1,
            rounds: None,
            care: serde_json::from_value(said.care).unwrap_or_default(),
            projectors: None,
            shown: Shown::table(Values::from([("norm".to_owned(), shown::number(norm))]), vec![column]),
        };
        put(cx, &base, &[Batch::new(facts, updates)], &facts_of_update)
    }
}
