//! `palinode locate`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use palinode::shown::Shown;
use palinode::{Error, ErrorKind, PipelineBuilder, Start, candidates, corpus_of, inspect};
use serde_json::json;

use super::quick::{self, Quick};
use crate::command_error::Failure;
use crate::input::{StoreArgs, whole};
use crate::results::{self, Cell, Yield};
use crate::terminal::{Style, print};

/// Facts that most models know something of.
const FACTS: &str = include_str!("facts.jsonl");
/// How many they are.
pub const FACTS_TRIED: usize = 10;

/// Find out which layer of a model to edit
///
/// Edits a few facts at each of several layers, every fact by itself, and judges the edits: efficacy, paraphrase, locality. Says
/// which layer to start from, on how many facts that rests, and which layers do no worse. What was tried is kept, so
/// that an interrupted search goes on.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode locate models/it --corpus wikipedia.txt
  palinode locate models/it --moments none --facts facts.jsonl --layers 4,6,8
  palinode locate models/it --corpus texts.txt --save locate.yaml   write the pipeline to a file

Without --facts, ten facts that come with the program are tried. Facts of your own should have
target_true, paraphrases and neighbors (docs/inputs.md). The cost is that of facts times layers edits.")]
pub struct Args {
    /// The model's folder, a GGUF file, or a model of the Hugging Face Hub, hf:owner/name.
    model: String,

    #[command(flatten)]
    search: SearchArgs,

    /// The layers to try, such as 4,6,8. The default is every layer but the last, of deep models twelve of them, evenly spaced.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = whole::<usize>)]
    layers: Vec<usize>,

    /// Facts to try: JSONL with subject, prompt, target_new, target_true, paraphrases and neighbors.
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,

    #[command(flatten)]
    quick: Quick,

    #[command(flatten)]
    store: StoreArgs,
}

/// Documents that a search reads of a corpus, from every command that starts one: all layers are measured on them in one pass, up to the deepest, and layers are only
/// compared with each other.
pub const DOCUMENTS: usize = 1000;

/// What edits should leave alone while layers are tried.
#[derive(ClapArgs)]
struct SearchArgs {
    /// A corpus to measure the second moments of the layers on: plain text with one document per line, JSONL, or Parquet.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// `none` does without second moments.
    #[arg(long, value_name = "none", conflicts_with_all = ["corpus", "samples"], value_parser = ["none"])]
    moments: Option<String>,

    /// Number of documents to read from the corpus.
    #[arg(long, default_value_t = DOCUMENTS, value_parser = whole::<usize>, allow_negative_numbers = true)]
    samples: usize,
}

/// A search over the layers of a model.
pub struct Search<'a> {
    /// The model as the command line names it.
    pub model: &'a str,
    /// Its place on this machine.
    pub folder: &'a Path,
    /// A corpus as the pipeline names it; none to do without.
    pub corpus: Option<String>,
    /// Documents to read of it.
    pub samples: usize,
    /// The layers; the usual ones where it is empty.
    pub layers: Vec<usize>,
    /// The facts as the pipeline names them; those of the program where there are none.
    pub facts: Option<String>,
}

impl Search<'_> {
    /// Runs it, and says where to start, with what is shown.
    pub fn run(self, quick: &Quick, store: &StoreArgs) -> Result<(Start, Shown), Failure> {
        let facts = match &self.facts {
            Some(facts) => facts.clone(),
            None => quick::own_file(&store.store, "default-facts.jsonl", FACTS)?,
        };
        let done = quick::run(self.pipeline(quick, &facts)?, quick, store)?;
        let results = done.results();
        let start = serde_json::from_value(results.facts("located")["start"].clone())
            .map_err(|error| Error::internal(format!("the result of `locate`: {error}")))?;
        Ok((start, results.shown("located")))
    }

    fn pipeline(&self, quick: &Quick, facts: &str) -> Result<PipelineBuilder, Failure> {
        let layers =
            if self.layers.is_empty() { candidates(inspect(self.folder)?.layers) } else { self.layers.clone() };
        let mut build = PipelineBuilder::new("locate").built_by("palinode locate");
        let path = quick.path(self.model);
        let model = build.stage("model", "load_model").with("path", path).from("", "MODEL").done();
        let facts = build
            .stage("facts", "load_requests")
            .with("path", facts)
            .from("path", "--facts")
            .with("dataset", "jsonl")
            .done();
        let contexts = build
            .stage("contexts", "templates")
            .input("model", &model)
            .with("generate", json!([{ "count": 5, "length": 10 }]))
            .with("seed", 1)
            .done();
        let moments = self.corpus.as_ref().map(|corpus| {
            build
                .stage("moments", "covariance")
                .input("model", &model)
                .with("corpus", corpus.as_str())
                .from("corpus", "--corpus")
                .with("layers", layers.clone())
                .from("layers", "--layers")
                .with("samples", self.samples)
                .from("samples", "--samples")
                .done()
        });
        let located = build
            .stage("located", "locate")
            .input("model", &model)
            .input("requests", &facts)
            .input("templates", &contexts)
            .with("layers", layers)
            .from("layers", "--layers");
        if let Some(moments) = &moments {
            located.input("moments", moments);
        }
        Ok(build)
    }
}

/// Searches, and prints what it found.
pub fn run(args: &Args) -> Result<(), Failure> {
    let folder = quick::model(&args.quick, &args.model)?;
    let corpus = match (&args.search.corpus, &args.search.moments) {
        (Some(corpus), _) => Some(args.quick.path(&corpus.display().to_string())),
        (None, Some(_)) => None,
        (None, None) => Some(default_corpus(&folder, &args.store, &args.model)?),
    };
    let search = Search {
        model: &args.model,
        folder: &folder,
        corpus,
        samples: args.search.samples,
        layers: args.layers.clone(),
        facts: args.facts.as_ref().map(|facts| args.quick.path(&facts.display().to_string())),
    };
    let (start, shown) = search.run(&args.quick, &args.store)?;
    if args.quick.json {
        return print(&format!("{:#}\n", json!({ "start": start, "layers": shown.series })));
    }
    let style = Style::stdout();
    let cell = Cell::default();
    let member = Yield { instance: "located", cell: &cell, shown, traced: None, scored: None };
    let mut text = results::stage("start from", &[], &[], &[member], &style);
    let _ = writeln!(text, "\n{}", style.bold(&said(&start)));
    let _ = writeln!(text, "  palinode edit {} --layer {} …", args.model, start.layer);
    print(text.trim_start_matches('\n'))
}

/// In a sentence where to start, and on what that rests.
pub fn said(start: &Start) -> String {
    let facts = if start.facts == 1 { "1 fact".to_owned() } else { format!("{} facts", start.facts) };
    let clear = if start.clear { "clearly the best" } else { "not clearly the best" };
    format!("layer {}, {clear} of {} by {} on {facts}", start.layer, start.layers.len(), start.metric)
}

/// The corpus of a model that comes with one.
fn default_corpus(folder: &Path, store: &StoreArgs, model: &str) -> Result<String, Failure> {
    if let Some(text) = corpus_of(folder) {
        return quick::own_file(&store.store, "default-corpus.txt", text);
    }
    let hint = "say so in one of two ways:\n  \
         --corpus FILE    measure second moments of all layers that are tried on it: one pass\n  \
         --moments none   do without: the change of the smallest norm is tried";
    let message = format!("{model}: which texts should the edits leave alone?");
    Err(Error::new(ErrorKind::Usage, message).hint(hint).into())
}
