//! Findings about the requests of a pipeline, before anything of it runs: from the files that its stages name.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use palinode_data::EditRequest;
use palinode_edit::{FactToken, Finding, Findings, Severity, findings, shared_keys};
use palinode_engine::{Artifact, Error, Instance, Pipeline, Store};
use palinode_model::{DecoderConfig, Text};

use crate::artifacts::chat::Chat;
use crate::artifacts::model::{CHAT_TEMPLATE, CONFIG, GGUF, SETTINGS, TOKENIZER, file, read_config};
use crate::artifacts::requests::REQUESTS;
use crate::edit::finetune::FinetuneParams;
use crate::edit::sequence::SequenceParams;
use crate::edit::solve::SolveParams;
use crate::edit::targets::TargetsParams;
use crate::edit::ultraedit::UltraeditParams;
use crate::errors::StageFailure;
use crate::sources::inline_requests::RequestsParams;
use crate::sources::load_requests::LoadRequestsParams;
use crate::sources::select::SelectParams;
use crate::sources::templates::TemplatesParams;

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
    /// What reads the requests, and the one before the stage that chose of them, if any did.
    requests: &'a Instance,
    choice: Option<usize>,
    /// What was chosen, once that is known.
    chosen: Option<Vec<EditRequest>>,
    templates: Option<&'a Instance>,
    at: FactToken,
    layer: Option<usize>,
    /// What writes the edits, where keys of the subject are written and each request has its own.
    solve: Option<&'a SolveParams>,
}

/// The editing stages of a pipeline whose model and requests are read from files or stand in the pipeline itself, also where a model
/// chooses among these requests.
pub fn to_check(pipeline: &Pipeline) -> Vec<ToCheck<'_>> {
    pipeline.instances.iter().filter_map(|instance| one(pipeline, instance)).collect()
}

/// The look at one instance; `None` where it edits nothing.
pub fn look_at(pipeline: &Pipeline, at: usize) -> Option<ToCheck<'_>> {
    one(pipeline, &pipeline.instances[at])
}

fn one<'a>(pipeline: &'a Pipeline, instance: &'a Instance) -> Option<ToCheck<'a>> {
    let of = |instance: &Instance, port: &str| Some(&pipeline.instances[*instance.inputs.get(port)?]);
    let params = &instance.params;
    let by_gradient = params.typed::<FinetuneParams>().is_some() || params.typed::<UltraeditParams>().is_some();
    let sequence = params.typed::<SequenceParams>();
    let solve = params.typed::<SolveParams>().or(sequence.map(SequenceParams::solve));
    let targets = match (params.typed::<TargetsParams>(), sequence) {
        (Some(targets), _) => Some(targets),
        (None, Some(sequence)) => Some(sequence.targets()),
        // A solve follows what its targets are.
        (None, None) if solve.is_some() => Some(of(instance, "targets")?.params.typed::<TargetsParams>()?),
        // No key of the subject is written.
        (None, None) if by_gradient => None,
        (None, None) => return None,
    };
    let at = targets.map_or(FactToken::Last, TargetsParams::fact_token);
    let layer = targets.map(TargetsParams::layer);
    let solve = solve.filter(|_| targets.is_some_and(|targets| !targets.merges()));
    let model = of(instance, "model")?;
    let mut source = *instance.inputs.get("requests")?;
    let mut choice = None;
    while pipeline.instances[source].params.typed::<SelectParams>().is_some() {
        choice = choice.or(Some(source));
        source = *pipeline.instances[source].inputs.get("requests")?;
    }
    let requests = &pipeline.instances[source];
    let templates = of(instance, "templates");
    let gguf = format!("weights/{GGUF}");
    let names = [CONFIG, TOKENIZER, SETTINGS, CHAT_TEMPLATE, gguf.as_str()];
    let mut files: Vec<PathBuf> =
        model.files.iter().filter(|f| names.contains(&f.name.as_str())).map(|f| f.path.clone()).collect();
    files.extend(requests.files.iter().map(|file| file.path.clone()));
    let files = files.iter().map(|path| pipeline.base.join(path)).collect();
    let openings = templates.map(|templates| &templates.params.value);
    let written = solve.map(|_| &params.value);
    let with = serde_json::json!([requests.kind.info().name, requests.params.value, openings, at, layer, written]);
    let base = &pipeline.base;
    let chosen = None;
    Some(ToCheck { instance, files, with, base, model, requests, choice, chosen, templates, at, layer, solve })
}

impl ToCheck<'_> {
    /// The place of the stage whose choice decides which requests these are, where there is one.
    pub fn choice(&self) -> Option<usize> {
        self.choice
    }

    /// Looks at what was chosen, an artifact of requests, and at nothing else.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn chosen(mut self, requests: &Artifact, store: &Store) -> Result<Self, Error> {
        let digest = file(requests, REQUESTS)?.digest;
        let path = store.blob_path(&digest);
        let wrong = |what: String| Error::store(format!("the requests that were chosen: {what}"));
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        self.chosen = Some(serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?);
        self.with = serde_json::json!([self.with, digest.to_string()]);
        Ok(self)
    }

    /// What is found. Where a model is still to choose among the requests, what is said of single ones is said in a note for each kind: they
    /// may not be chosen.
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
        if let Some(template) = places.get(CHAT_TEMPLATE) {
            text = text.with_template(template).map_err(StageFailure::stage)?;
        }
        if let Some(chat) = self.chat() {
            text = text.in_chat(chat.system.as_deref()).map_err(StageFailure::stage)?;
        }
        let text = text.within(config.vocab);
        let templates = self.templates.and_then(|templates| templates.params.typed::<TemplatesParams>());
        let known = templates.map_or_else(|| vec!["{}"], TemplatesParams::known);
        let requests = self.read()?;
        let mut found = findings(&requests, &text, &config, &known, self.at);
        found.extend(templates.and_then(|templates| no_room(&requests, &text, &config, templates.longest_opening())));
        found.extend(self.at_the_end(&config));
        let undecided = self.choice.is_some() && self.chosen.is_none();
        if undecided {
            found = among_candidates(found, requests.len());
        }
        // Which are edited together is not known before.
        if let Some(solve) = self.solve.filter(|_| !undecided) {
            let mu = solve.mu(&requests);
            found.extend(shared_keys(&requests, &text, &config, self.at, &solve.batches(&requests), &mu));
        }
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(found)
    }

    /// Whether targets are looked for where no token reads them.
    fn at_the_end(&self, config: &DecoderConfig) -> Option<Finding> {
        let layer = self.layer?;
        let last = layer + 1 == config.layers && self.at != FactToken::Last;
        last.then(|| Finding {
            severity: Severity::Warning,
            kind: "last_layer".to_owned(),
            request: None,
            at: String::new(),
            words: format!(
                "targets are looked for at layer {layer}, the model's last: no token after the subject's reads what is written there, so that \
                 nothing is learnt of prompts that go on after the subject"
            ),
        })
    }

    fn chat(&self) -> Option<&Chat> {
        match self.requests.params.typed::<RequestsParams>() {
            Some(params) => params.chat(),
            None => self.requests.params.typed::<LoadRequestsParams>()?.chat(),
        }
    }

    fn read(&self) -> Result<Vec<EditRequest>, Error> {
        if let Some(chosen) = &self.chosen {
            return Ok(chosen.clone());
        }
        if let Some(params) = self.requests.params.typed::<RequestsParams>() {
            return params.read().map_err(|errors| Error::input(errors[0].message.clone()));
        }
        match (self.requests.params.typed::<LoadRequestsParams>(), self.requests.files.first()) {
            (Some(params), Some(file)) => params.read(&self.base.join(&file.path)).map_err(StageFailure::stage),
            _ => Ok(Vec::new()),
        }
    }
}

/// Findings about requests of which some may be chosen: of each kind how many there are, with the first, as a note.
fn among_candidates(found: Findings, requests: usize) -> Findings {
    let (single, mut all): (Findings, Findings) = found.into_iter().partition(|finding| finding.request.is_some());
    let mut kinds: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &single {
        kinds.entry(&finding.kind).or_default().push(finding);
    }
    for (kind, of_kind) in kinds {
        let first = of_kind[0];
        let named: HashSet<&Option<String>> = of_kind.iter().map(|finding| &finding.request).collect();
        let id = first.request.as_deref().unwrap_or_default();
        let words = format!(
            "{} of the {requests} requests to choose from, such as request {id}: {}; what is chosen is looked at again before it is edited",
            named.len(),
            first.words
        );
        all.push(Finding { severity: Severity::Note, kind: kind.to_owned(), request: None, at: String::new(), words });
    }
    all
}

/// The request that leaves the least room before its prompt, where an opening of so many tokens does not fit.
fn no_room(requests: &[EditRequest], text: &Text, config: &DecoderConfig, opening: usize) -> Option<Finding> {
    let tokens = |request: &EditRequest| {
        let prompt = request.filled_prompt();
        let target = text.encode_continuation(&request.continuation(&prompt, &request.target_new)).ok()?;
        Some(text.encode(&prompt).ok()?.len() + target.len().saturating_sub(1))
    };
    let longest =
        requests.iter().filter_map(|request| Some((tokens(request)?, request))).max_by_key(|(tokens, _)| *tokens);
    // What is too long by itself is said of the prompt.
    let (tokens, request) = longest.filter(|(tokens, _)| opening > 0 && *tokens <= config.context)?;
    (tokens + opening > config.context).then(|| Finding {
        severity: Severity::Error,
        kind: "too_long".to_owned(),
        request: Some(request.id.clone()),
        at: "prompt".to_owned(),
        words: format!(
            "{tokens} tokens with its target, after an opening of {opening} that the model generates, but the context is {}",
            config.context
        ),
    })
}
