//! Findings about the requests of a pipeline, before anything of it runs: from the files that its stages name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_data::EditRequest;
use palinode_edit::{FactToken, Findings, findings};
use palinode_engine::{Error, Instance, Pipeline};
use palinode_model::Text;

use crate::artifacts::model::{CONFIG, GGUF, SETTINGS, TOKENIZER, read_config};
use crate::edit::finetune::FinetuneParams;
use crate::edit::sequence::SequenceParams;
use crate::edit::targets::TargetsParams;
use crate::edit::ultraedit::UltraeditParams;
use crate::errors::StageFailure;
use crate::sources::inline_requests::RequestsParams;
use crate::sources::load_requests::LoadRequestsParams;

/// An editing stage with what the look at its requests reads.
pub struct ToCheck<'a> {
    /// The stage instance.
    pub instance: &'a Instance,
    /// The files that decide what is found: the model's configuration and tokenizer, the data set.
    pub files: Vec<PathBuf>,
    /// What decides it beside the files.
    pub with: serde_json::Value,
    base: &'a Path,
    model: &'a Instance,
    requests: &'a Instance,
    at: FactToken,
}

/// The editing stages of a pipeline whose model and requests are read from files or stand in the pipeline itself.
pub fn to_check(pipeline: &Pipeline) -> Vec<ToCheck<'_>> {
    let of = |instance: &Instance, port: &str| Some(&pipeline.instances[*instance.inputs.get(port)?]);
    let check = |instance| -> Option<ToCheck<'_>> {
        let instance: &Instance = instance;
        let params = &instance.params;
        let by_gradient = params.typed::<FinetuneParams>().is_some() || params.typed::<UltraeditParams>().is_some();
        let at = match params.typed::<TargetsParams>() {
            Some(targets) => targets.fact_token(),
            // No key of the subject is written.
            None if by_gradient => FactToken::Last,
            None => params.typed::<SequenceParams>()?.fact_token(),
        };
        let (model, requests) = (of(instance, "model")?, of(instance, "requests")?);
        let gguf = format!("weights/{GGUF}");
        let names = [CONFIG, TOKENIZER, SETTINGS, gguf.as_str()];
        let mut files: Vec<PathBuf> =
            model.files.iter().filter(|f| names.contains(&f.name.as_str())).map(|f| f.path.clone()).collect();
        files.extend(requests.files.iter().map(|file| file.path.clone()));
        let files = files.iter().map(|path| pipeline.base.join(path)).collect();
        let with = serde_json::json!([requests.kind.info().name, requests.params.value, at]);
        Some(ToCheck { instance, files, with, base: &pipeline.base, model, requests, at })
    };
    pipeline.instances.iter().filter_map(check).collect()
}

impl ToCheck<'_> {
    /// What is found.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn findings(&self) -> Result<Findings, Error> {
        let places: BTreeMap<&str, PathBuf> =
            self.model.files.iter().map(|file| (file.name.as_str(), self.base.join(&file.path))).collect();
        let missing = || Error::input("the model has no tokenizer and configuration to look at requests with");
        // A GGUF file is both.
        let gguf = format!("weights/{GGUF}");
        let place = |name: &str| places.get(name).or_else(|| places.get(gguf.as_str())).ok_or_else(missing);
        let config = read_config(place(CONFIG)?).map_err(StageFailure::stage)?;
        let mut text = Text::open(place(TOKENIZER)?).map_err(StageFailure::stage)?;
        if let Some(settings) = places.get(SETTINGS) {
            text = text.with_settings(settings).map_err(StageFailure::stage)?;
        }
        Ok(findings(&self.read()?, &text.within(config.vocab), &config, &["{}"], self.at))
    }

    fn read(&self) -> Result<Vec<EditRequest>, Error> {
        if let Some(params) = self.requests.params.typed::<RequestsParams>() {
            return params.read().map_err(|errors| Error::input(errors[0].message.clone()));
        }
        match (self.requests.params.typed::<LoadRequestsParams>(), self.requests.files.first()) {
            (Some(params), Some(file)) => params.read(&self.base.join(&file.path)).map_err(StageFailure::stage),
            _ => Ok(Vec::new()),
        }
    }
}
