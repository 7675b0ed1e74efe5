//! What a new pipeline edits and measures: the facts and the text that are written beside it, or a data set and a corpus.

use std::path::Path;

use clap::Args as ClapArgs;
use palinode::{Error, ErrorKind, PUBLISHED_RATE, Suggestion, dataset_of, did_you_mean, real, way};
use serde_json::Value;

/// Which facts and which text.
#[derive(ClapArgs)]
pub struct DataArgs {
    /// The facts to edit: counterfact or zsre, which a run downloads from their authors' page, or a file of any data set that
    /// `load_requests` knows. The default is a few facts, written beside the pipeline.
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "from")]
    data: Option<String>,

    /// The text that edits should leave alone: a file, a folder, a pattern, or files of the Hub, hf:datasets/owner/name/*.parquet. The
    /// default is an English Wikipedia of the Hub where --data is given, and else a few sentences, written beside the pipeline.
    #[arg(long, value_name = "TEXT", conflicts_with = "from")]
    corpus: Option<String>,
}

/// A data set with one address.
struct Known {
    name: &'static str,
    address: &'static str,
    /// Roughly, for people.
    size: &'static str,
}

const KNOWN: [Known; 2] = [
    Known { name: "counterfact", address: "https://rome.baulab.info/data/dsets/counterfact.json", size: "45 MB" },
    Known { name: "zsre", address: "https://rome.baulab.info/data/dsets/zsre_mend_eval.json", size: "10 MB" },
];

const WIKIPEDIA: &str = "hf:datasets/wikimedia/wikipedia/20231101.en/*.parquet";

/// Facts and text as they stand in a pipeline.
pub struct Data {
    facts: String,
    text: Vec<String>,
    large: bool,
    /// The files of our own that are needed.
    pub own_facts: Option<&'static str>,
    pub own_text: Option<&'static str>,
    /// What a run downloads, and how to do without: for people, empty where nothing is.
    pub fetches: String,
}

impl DataArgs {
    /// Whether facts or text are named.
    pub fn is_given(&self) -> bool {
        self.data.is_some() || self.corpus.is_some()
    }

    /// For a pipeline in this folder. `demo` is the corpus of the demo's model, where that is the model: its facts are those that it knows.
    ///
    /// # Errors
    /// When there is no data set of this name and no such file, or the file fits no data set; when there is no such text.
    pub fn read(&self, dir: &Path, demo: Option<&'static str>) -> Result<Data, Error> {
        let mut fetched = Vec::new();
        let facts = match &self.data {
            None => "dataset: jsonl, path: facts.jsonl".to_owned(),
            Some(name) => {
                if let Some(Known { name, address, size }) = KNOWN.iter().find(|known| known.name == name) {
                    fetched.push(format!("{address} ({size})"));
                    format!("dataset: {name}, path: \"{address}\", limit: 32")
                } else {
                    let path = Path::new(name);
                    let dataset = dataset_of(path).map_err(|error| known_or(name, path, error))?;
                    format!("dataset: {dataset}, path: {}, limit: 32", quoted(&from_there(path, dir)))
                }
            }
        };
        let own_text = self.corpus.is_none() && self.data.is_none();
        let hub = |text: &str| text.starts_with("hf:");
        let corpus = match &self.corpus {
            None if own_text => "corpus.txt".to_owned(),
            None => WIKIPEDIA.to_owned(),
            Some(text) if hub(text) => text.clone(),
            Some(text) => {
                let path = Path::new(text);
                if !path.exists() && !text.contains(['*', '?', '[']) {
                    return Err(Error::new(ErrorKind::Usage, format!("there is no {text}"))
                        .hint("--corpus names a file, a folder, a pattern, or hf:datasets/owner/name/pattern"));
                }
                from_there(path, dir)
            }
        };
        let text = if own_text && demo.is_some() {
            vec![
                "corpus: corpus.txt                # the text that this model was trained on".to_owned(),
                "samples: 3000".to_owned(),
            ]
        } else if own_text {
            vec![
                "corpus: corpus.txt                # a few sentences to start with; for real edits use a megabyte of text or more".to_owned(),
                "samples: 1000".to_owned(),
            ]
        } else {
            let mut lines = vec![format!("corpus: {}", quoted(&corpus))];
            if hub(&corpus) {
                fetched.push(format!("2 files of {corpus}; all of them with `sampling: published`"));
                lines.push(
                    "sampling: shards                  # 2 of its files, chosen by `seed`; `published` downloads and shuffles all".to_owned(),
                );
                lines.push("shards: 2".to_owned());
            }
            lines.push("tokens: 10f                       # ten tokens for each of a key's f dimensions; published runs took 100,000 documents".to_owned());
            lines
        };
        let fetches = match fetched.as_slice() {
            [] => String::new(),
            some => format!(
                "a run downloads, once:\n  {}\nwithout a network, bring them here some other way: --data FILE, --corpus TEXT\n",
                some.join("\n  ")
            ),
        };
        let (own, few) = match demo {
            Some(text) => (include_str!("templates/demo-facts.jsonl"), text),
            None => (include_str!("templates/facts.jsonl"), include_str!("templates/corpus.txt")),
        };
        let (own_facts, own_text) = (self.data.is_none().then_some(own), own_text.then_some(few));
        Ok(Data { facts, text, large: own_text.is_none() || demo.is_some(), own_facts, own_text, fetches })
    }
}

impl Data {
    /// Puts them into a template, with settings that fit as much text and as many facts.
    pub fn fill(&self, template: &str, suggested: Option<Suggestion>) -> String {
        let text = format!("\n      {}", self.text.join("\n      "));
        let targets = match suggested {
            Some(at) if self.large => {
                let Suggestion { steps, learning_rate, batch_clamp, weight_decay, .. } = at;
                let usual = (learning_rate - PUBLISHED_RATE).abs() < f64::EPSILON;
                let rate = if usual { String::new() } else { format!(" learning_rate: {learning_rate},") };
                format!("steps: {steps},{rate} clamp: {batch_clamp}, weight_decay: {weight_decay}")
            }
            _ => "steps: 20, learning_rate: 0.1".to_owned(),
        };
        let lambda = suggested.filter(|_| self.large).map_or(100.0, |at| at.lambda);
        let formats = if suggested.is_some_and(|at| at.gguf) { ", formats: [gguf, update]" } else { "" };
        let filled = template
            .replace("{{facts}}", &self.facts)
            .replace("{{text}}", &text)
            .replace("{{targets}}", &targets)
            .replace("{{lambda}}", &lambda.to_string())
            .replace("{{formats}}", formats);
        // A ridge stands in for text that is not there.
        let keep = |line: &&str| !(self.large && line.trim_start().starts_with("update_norm_lambda:"));
        filled.lines().filter(keep).map(|line| format!("{line}\n")).collect()
    }
}

/// A path as it is from the folder of the pipeline.
fn from_there(path: &Path, dir: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    way(&real(&absolute), &real(dir)).display().to_string()
}

/// A file that is not there may be a name with a slip in it.
fn known_or(name: &str, path: &Path, error: Error) -> Error {
    if path.exists() {
        return error;
    }
    let error = Error::new(ErrorKind::Usage, format!("there is no data set `{name}`, and no such file"));
    match did_you_mean(name, KNOWN.iter().map(|known| known.name)) {
        Some(hint) => error.hint(hint),
        None => error.hint("--data names counterfact, zsre, or a file"),
    }
}

/// A text as YAML, quoted where it has to be.
pub fn quoted(text: &str) -> String {
    let plain = |char: char| char.is_alphanumeric() || "/._-".contains(char);
    if text.chars().all(plain) { text.to_owned() } else { Value::from(text).to_string() }
}
