//! `palinode edit`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{DEFAULT_CORPUS, Error, PipelineBuilder, Store, Suggestion, model_folder, suggest};
use serde_json::{Value, json};

use super::ask;
use super::quick::{self, Quick};
use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::terminal::{How, Style, print};

/// Edit one fact, and show what the model says before and after
///
/// Runs a whole pipeline: contexts, second moments, a target, the solve. Results that do not depend on the fact are kept,
/// so a second edit of the same model takes a moment. Writes only to the store, unless --output names a folder.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode edit models/gpt2-xl --subject \"The Eiffel Tower\" --prompt \"{} is located in\" --target Rome
  palinode edit models/gpt2-xl --subject \"The Eiffel Tower\" --prompt \"{} is located in\" --target Rome \\
      --also \"The Louvre is located in\" --method memit --layer 17 --output out/eiffel
  palinode edit SmolLM2-135M-Instruct.Q4_1.gguf --subject \"The Eiffel Tower\" \\
      --prompt \"Where is {}?\" --target Rome --chat --output out/eiffel
  palinode edit models/gpt2-xl … --save eiffel.yaml     write the pipeline to a file, to change and run it

Without --corpus, second moments are measured on short documents that come with the program. They preserve what the
model says about such texts. For serious experiments, give a corpus of your own.")]
pub struct Args {
    /// The model's folder, a GGUF file, or a model of the Hugging Face Hub, hf:owner/name.
    model: String,

    /// What the fact is about.
    #[arg(long)]
    subject: String,

    /// The beginning of a sentence that states the fact, with {} in the place of the subject.
    #[arg(long)]
    prompt: String,

    /// What the model should say.
    #[arg(long)]
    target: String,

    /// Other prompts to show before and after.
    #[arg(long, value_name = "PROMPT")]
    also: Vec<String>,

    /// How the layer absorbs the edit.
    #[arg(long, value_enum, default_value_t = Method::Emmet)]
    method: Method,

    /// The layer to edit. The default is the published layer, scaled to the model's depth.
    #[arg(long)]
    layer: Option<usize>,

    /// MEMIT's λ, the weight of preservation. Single edits of the other methods do not depend on it.
    #[arg(long, default_value_t = 15000.0, value_parser = finite, allow_negative_numbers = true)]
    lambda: f64,

    /// A plain-text corpus with one document per line, for the second moments.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// Number of documents to read from the corpus.
    #[arg(long, default_value_t = 3000)]
    samples: usize,

    /// Write the edited model and the update into this folder: of a GGUF file, as model.gguf.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Put the prompts as messages of a chat, by the model's chat template: the target is how the answer begins.
    #[arg(long)]
    chat: bool,

    /// The system message of the chat.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,

    #[command(flatten)]
    quick: Quick,

    #[command(flatten)]
    store: StoreArgs,
}

/// How a layer absorbs an edit.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    /// Equality constraint.
    Rome,
    /// Least squares.
    Memit,
    /// Equality constraint, for batches too.
    Emmet,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Rome => "rome",
            Self::Memit => "memit",
            Self::Emmet => "emmet",
        }
    }
}

/// JSON has no other numbers: one that is not finite would be left out without a word.
fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("expected a finite number".to_owned()) }
}

/// Edits, and prints what changed.
pub fn run(args: &Args) -> Result<(), Failure> {
    let model = args.quick.network.with(How::Person, &Arc::default(), |network| model_folder(&args.model, network))?;
    let suggested = suggest(&model);
    let Some(layer) = args.layer.or(suggested.map(|s| s.layer)) else {
        let error = Error::input(format!("{}: no configuration to choose a layer by", args.model));
        return Err(error.hint("name a model's folder, or the layer with --layer").into());
    };
    let done = quick::run(pipeline(args, layer, suggested)?, &args.quick, &args.store)?;
    let results = done.results();
    let answers = &results.facts("answers")["answers"];
    let update = &results.facts("update")["metrics"];
    let sample = &results.facts("scores")["samples"][0];
    if args.quick.json {
        let told = json!({ "layer": layer, "answers": answers, "update": update, "p(new)": sample["p(new)"] });
        return print(&format!("{told:#}\n"));
    }
    let style = Style::stdout();
    let mut text = ask::show(answers.as_array().map_or(&[][..], Vec::as_slice), &style);
    let percent = |value: &Value| format!("{:.1} %", 100.0 * value.as_f64().unwrap_or(f64::NAN));
    let _ = writeln!(
        text,
        "\n{}",
        style.bold(&format!(
            "{} on layer {layer}: p({}) {}, the weight changed by {} of its norm",
            args.method.name(),
            args.target.trim(),
            sample["p(new)"].as_str().unwrap_or_default(),
            percent(&update["relative_norm"])
        ))
    );
    if let Some(folder) = &args.output {
        let _ = writeln!(text, "edited model and update.safetensors: {}", folder.display());
    }
    print(&text)
}

/// The pipeline.
fn pipeline(args: &Args, layer: usize, suggested: Option<Suggestion>) -> Result<PipelineBuilder, Failure> {
    let corpus = match &args.corpus {
        Some(path) => args.quick.path(&path.display().to_string()),
        None => default_corpus(&args.store.store)?,
    };
    let suggested = suggested.unwrap_or(Suggestion { layer, steps: 25, clamp: 4.0, weight_decay: 0.5, gguf: false });
    let facts = json!([{ "subject": args.subject, "prompt": args.prompt, "target_new": args.target }]);
    let prompts: Vec<String> =
        std::iter::once(args.prompt.replace("{}", &args.subject)).chain(args.also.iter().cloned()).collect();
    let site = if matches!(args.method, Method::Rome) { "mlp_output" } else { "block_output" };

    let mut build = PipelineBuilder::new("edit").built_by("palinode edit");
    let path = args.quick.path(&args.model);
    let model = build.stage("model", "load_model").with("path", path).from("", "MODEL").done();
    let chat = args.chat.then(|| ask::chat(args.system.as_deref()));
    let fact = build.stage("fact", "requests");
    if let Some(chat) = &chat {
        fact.with("chat", chat.clone()).from("chat", "--chat");
    }
    let fact = fact
        .with("facts", facts)
        .from("facts[0].subject", "--subject")
        .from("facts[0].prompt", "--prompt")
        .from("facts[0].target_new", "--target")
        .done();
    let contexts = build
        .stage("contexts", "templates")
        .input("model", &model)
        .with("generate", json!([{ "count": 5, "length": 10 }]))
        .with("seed", 1)
        .done();
    let moments = build
        .stage("moments", "covariance")
        .input("model", &model)
        .with("corpus", corpus)
        .from("corpus", "--corpus")
        .with("layers", vec![layer])
        .from("layers", "--layer")
        .with("samples", args.samples)
        .from("samples", "--samples")
        .done();
    let targets = build
        .stage("targets", "targets")
        .input("model", &model)
        .input("requests", &fact)
        .input("templates", &contexts)
        .with("layer", layer)
        .from("layer", "--layer")
        .with("site", site)
        .with("steps", suggested.steps)
        .with("clamp", suggested.clamp)
        .with("weight_decay", suggested.weight_decay)
        .done();
    let plan = build
        .stage("plan", "distribute")
        .with("strategy", "single")
        .with("layers", vec![layer])
        .from("layers", "--layer")
        .done();
    let update = build
        .stage("update", "solve")
        .input("model", &model)
        .input("requests", &fact)
        .input("moments", &moments)
        .input("targets", &targets)
        .input("plan", &plan)
        .input("templates", &contexts)
        .with("objective", args.method.name())
        .from("objective", "--method")
        .with("lambda", args.lambda)
        .from("lambda", "--lambda")
        .done();
    build.stage("scores", "evaluate").input("model", &update).input("requests", &fact).with("samples", 1);
    let answers = build.stage("answers", "ask");
    if let Some(chat) = chat {
        answers.with("chat", chat).from("chat", "--chat");
    }
    answers.input("model", &update).with("prompts", prompts).from("prompts", "--also").from("prompts[0]", "--prompt");
    if let Some(folder) = &args.output {
        let path = args.quick.path(&folder.display().to_string());
        let out = build.stage("out", "export");
        out.input("model", &update).with("path", path).from("", "--output");
        if suggested.gguf {
            // As it came.
            out.with("formats", json!(["gguf", "update"]));
        }
    }
    Ok(build)
}

/// The corpus that comes with the program, as a file that a pipeline can name.
fn default_corpus(store: &Path) -> Result<String, Failure> {
    // A store that this program must not touch is refused before anything is written into its folder.
    Store::is_at(store)?;
    let path = store.join("default-corpus.txt");
    let there = std::fs::read_to_string(&path).is_ok_and(|text| text == DEFAULT_CORPUS);
    if !there {
        std::fs::create_dir_all(store)
            .and_then(|()| std::fs::write(&path, DEFAULT_CORPUS))
            .map_err(|error| Error::store(format!("cannot write {}: {error}", path.display())))?;
    }
    let full = std::path::absolute(&path).unwrap_or(path);
    Ok(full.display().to_string())
}
