//! `palinode edit`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use palinode_engine::{StageError, Store};
use palinode_stages::{DEFAULT_CORPUS, Suggestion, suggest};
use serde_json::{Value, json};

use super::ask;
use super::quick::{self, Quick};
use crate::failure::Failure;
use crate::input::StoreArgs;
use crate::terminal::{Style, print};

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
  palinode edit models/gpt2-xl … --save eiffel.yaml     write the pipeline to a file, to change and run it

Without --corpus, second moments are measured on short documents that come with the program. They preserve what the
model says about such texts. For serious experiments, give a corpus of your own.")]
pub struct Args {
    /// The model's folder.
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
    #[arg(long, default_value_t = 15000.0)]
    lambda: f64,

    /// A plain-text corpus with one document per line, for the second moments.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// Number of documents to read from the corpus.
    #[arg(long, default_value_t = 3000)]
    samples: usize,

    /// Write the edited model and the update into this folder.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

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

/// Edits, and prints what changed.
pub fn run(args: &Args) -> Result<(), Failure> {
    let suggested = suggest(Path::new(&args.model));
    let Some(layer) = args.layer.or(suggested.map(|s| s.layer)) else {
        let error = StageError::input(format!("{}: no configuration to choose a layer by", args.model));
        return Err(error.hint("name a model's folder, or the layer with --layer").into());
    };
    let stages = stages(args, layer, suggested)?;
    let report = quick::run("edit", &stages, &args.quick, &args.store)?;
    let answers = quick::meta(&report, "answers")["answers"].clone();
    let update = quick::meta(&report, "update")["metrics"].clone();
    let sample = quick::meta(&report, "scores")["samples"][0].clone();
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
fn stages(args: &Args, layer: usize, suggested: Option<Suggestion>) -> Result<Vec<(&'static str, Value)>, Failure> {
    let corpus = match &args.corpus {
        Some(path) => args.quick.path(&path.display().to_string()),
        None => default_corpus(&args.store.store)?,
    };
    let suggested = suggested.unwrap_or(Suggestion { layer, steps: 25, clamp: 4.0, weight_decay: 0.5 });
    let fact = json!([{ "subject": args.subject, "prompt": args.prompt, "target_new": args.target }]);
    let prompts: Vec<String> =
        std::iter::once(args.prompt.replace("{}", &args.subject)).chain(args.also.iter().cloned()).collect();
    let site = if matches!(args.method, Method::Rome) { "mlp_output" } else { "block_output" };
    let targets = json!({
        "layer": layer, "site": site, "steps": suggested.steps, "clamp": suggested.clamp,
        "weight_decay": suggested.weight_decay,
    });
    let inputs = json!({
        "model": "model", "requests": "fact", "moments": "moments", "targets": "targets", "plan": "plan",
        "templates": "contexts",
    });
    let model = json!({ "model": "model" });
    let mut stages = vec![
        ("model", json!({ "uses": "load_model", "with": { "path": args.quick.path(&args.model) } })),
        ("fact", json!({ "uses": "requests", "with": { "facts": fact } })),
        (
            "contexts",
            json!({ "uses": "templates", "inputs": model,
                    "with": { "generate": [{ "count": 5, "length": 10 }], "seed": 1 } }),
        ),
        (
            "moments",
            json!({ "uses": "covariance", "inputs": model,
                    "with": { "corpus": corpus, "layers": [layer], "samples": args.samples } }),
        ),
        (
            "targets",
            json!({ "uses": "targets", "with": targets,
                    "inputs": { "model": "model", "requests": "fact", "templates": "contexts" } }),
        ),
        ("plan", json!({ "uses": "distribute", "with": { "strategy": "single", "layers": [layer] } })),
        (
            "update",
            json!({ "uses": "solve", "inputs": inputs,
                    "with": { "objective": args.method.name(), "lambda": args.lambda } }),
        ),
        (
            "scores",
            json!({ "uses": "evaluate", "inputs": { "model": "update", "requests": "fact" }, "with": { "samples": 1 } }),
        ),
        ("answers", json!({ "uses": "ask", "inputs": { "model": "update" }, "with": { "prompts": prompts } })),
    ];
    if let Some(folder) = &args.output {
        let path = args.quick.path(&folder.display().to_string());
        stages.push(("out", json!({ "uses": "export", "inputs": { "model": "update" }, "with": { "path": path } })));
    }
    Ok(stages)
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
            .map_err(|error| StageError::store(format!("cannot write {}: {error}", path.display())))?;
    }
    let full = std::path::absolute(&path).unwrap_or(path);
    Ok(full.display().to_string())
}
