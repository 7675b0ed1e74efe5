//! `palinode edit`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{
    Error, ErrorKind, PipelineBuilder, Results, Start, StatedFact, Suggestion, candidates, corpus_of, facts_in,
    inspect, suggest,
};
use serde_json::{Value, json};

use super::ask;
use super::locate::{self, FACTS_TRIED, Search};
use super::quick::{self, Quick};
use crate::command_error::Failure;
use crate::input::{StoreArgs, whole};
use crate::terminal::{Style, format, print};

/// Edit facts, and show what the model says before and after
///
/// Runs a whole pipeline: contexts, second moments, targets, the solve. Results that do not depend on the facts are kept,
/// so a second edit of the same model takes a moment. Writes only to the store, unless --output names a folder.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode edit models/gpt2-xl --subject \"The Eiffel Tower\" --prompt \"{} is located in\" --target Rome \\
      --corpus wikipedia.txt
  palinode edit models/gpt2-xl --facts facts.csv --moments stats/layer17.npz --method memit --output out/edited
  palinode edit SmolLM2-135M-Instruct.Q4_1.gguf --subject \"The Eiffel Tower\" \\
      --prompt \"Where is {}?\" --target Rome --chat --corpus texts.txt --output out/eiffel
  palinode edit models/gpt2-xl … --save edit.yaml       write the pipeline to a file, to change and run it

An edit leaves alone what the second moments describe: the texts that they were measured on. --corpus measures them, once
for each model and layer. --moments takes them from a file, or does without them. Only the demo model needs neither: its
own corpus comes with the program.

A file of facts has the columns subject, prompt and target_new (CSV), or such an object a line (JSONL). All its facts are
one batch.

What is said under \"!\" makes the edit doubtful: docs/methods.md has the thresholds.")]
pub struct Args {
    /// The model's folder, a GGUF file, or a model of the Hugging Face Hub, hf:owner/name.
    model: String,

    /// What the fact is about.
    #[arg(long, required_unless_present = "facts", requires = "prompt", conflicts_with = "facts")]
    subject: Option<String>,

    /// The beginning of a sentence that states the fact, with {} in the place of the subject.
    #[arg(long, required_unless_present = "facts", conflicts_with = "facts")]
    prompt: Option<String>,

    /// What the model should say.
    #[arg(long, required_unless_present = "facts", conflicts_with = "facts")]
    target: Option<String>,

    /// Edit all facts of a JSONL or CSV file at once.
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,

    /// Other prompts to show before and after.
    #[arg(long, value_name = "PROMPT")]
    also: Vec<String>,

    /// How the layer absorbs the edit.
    #[arg(long, value_enum, default_value_t = Method::Emmet)]
    method: Method,

    /// The layer to edit. The default is the published layer, scaled to the model's depth.
    #[arg(long, conflicts_with = "locate", value_parser = whole::<usize>, allow_negative_numbers = true)]
    layer: Option<usize>,

    /// Choose the layer by trying: a few facts are edited at each of several layers, as `palinode locate` does. That takes as long as so
    /// many edits, once for each model and corpus.
    #[arg(long)]
    locate: bool,

    /// MEMIT's λ, the weight of preservation. Single edits of the other methods do not depend on it.
    #[arg(long, default_value_t = 15000.0, value_parser = finite, allow_negative_numbers = true)]
    lambda: f64,

    /// A corpus to measure the second moments on: plain text with one document per line, JSONL, or Parquet.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// Second moments of the layer from a file (npz), instead of a corpus; `none` does without, and preserves no text.
    #[arg(long, value_name = "FILE|none", conflicts_with_all = ["corpus", "samples"])]
    moments: Option<PathBuf>,

    /// Number of documents to read from the corpus [default: 3000, and 1000 for the search of --locate]
    #[arg(long, value_parser = whole::<usize>, allow_negative_numbers = true)]
    samples: Option<usize>,

    /// End with exit code 10 when the edit is doubtful: it did not take, changed a weight beyond recognition, or moved what
    /// it should leave alone.
    #[arg(long)]
    strict: bool,

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

/// How the second moments come about.
enum Moments {
    /// Measured on a corpus.
    Corpus(String),
    /// Read from a file.
    File(String),
    /// Not at all.
    None,
}

/// Documents that are read of a corpus for the layer that is edited.
const DOCUMENTS: usize = 3000;

/// Facts whose answers are shown, at most: the scores cover all of them.
const SHOWN: usize = 8;

/// Edits, and prints what changed.
pub fn run(args: &Args) -> Result<(), Failure> {
    let model = quick::model(&args.quick, &args.model)?;
    let mut suggested = suggest(&model);
    let located = args.locate.then(|| locate(args, &model)).transpose()?;
    if let (Some(start), Some(suggested)) = (&located, &mut suggested) {
        suggested.clamp = start.clamp;
    }
    let chosen = args.layer.or(located.as_ref().map(|start| start.layer));
    let Some(layer) = chosen.or(suggested.map(|s| s.layer)) else {
        if !model.is_file() && !model.join("config.json").is_file() {
            let error = Error::input(format!("{} has no config.json, so it is no model's folder", args.model));
            return Err(error.hint(quick::MODELS).into());
        }
        let error = Error::input(format!("{}: its configuration does not say which layer to edit", args.model));
        return Err(error.hint("choose one with --layer; `palinode model inspect` shows what the model has").into());
    };
    let facts = facts(args)?;
    let moments = moments(args, &model, layer)?;
    let done = quick::run(pipeline(args, &facts, layer, suggested, &moments), &args.quick, &args.store)?;
    let results = done.results();
    let doubts = results.shown("scores").findings.unwrap_or_default();
    if args.quick.json {
        let told = json!({
            "layer": layer,
            "located": located,
            "edits": facts.len(),
            "answers": &results.facts("answers")["answers"],
            "update": &results.facts("update")["metrics"],
            "scores": &results.facts("scores")["metrics"],
            "p(new)": &results.facts("scores")["samples"][0]["p(new)"],
            "rounding": args.output.as_ref().map(|_| &results.facts("out")["metrics"]),
            "doubts": doubts,
        });
        print(&format!("{told:#}\n"))?;
    } else {
        let rests = match (&located, suggested) {
            (Some(start), _) => Some(locate::said(start)),
            (None, Some(suggested)) if args.layer.is_none() && !suggested.published => {
                let tried = inspect(&model).map_or(0, |model| candidates(model.layers).len());
                Some(format!(
                    "layer {layer} is as deep in the model as a published one: no layer was published for this model. --locate tries \
                     {tried} layers, once for each model and corpus, and takes as long as {} such edits",
                    tried * FACTS_TRIED
                ))
            }
            _ => None,
        };
        print(&told(args, &facts, layer, rests.as_deref(), &results, &doubts))?;
    }
    if args.strict && !doubts.is_empty() { Err(Failure::Told(ErrorKind::Doubtful)) } else { Ok(()) }
}

/// What the edit did, for a person.
fn told(
    args: &Args,
    facts: &[StatedFact],
    layer: usize,
    rests: Option<&str>,
    results: &Results<'_>,
    doubts: &[String],
) -> String {
    let answers = &results.facts("answers")["answers"];
    let update = &results.facts("update")["metrics"];
    let style = Style::stdout();
    let mut text = ask::show(answers.as_array().map_or(&[][..], Vec::as_slice), &style);
    let percent = |value: &Value| format!("{:.1} %", 100.0 * value.as_f64().unwrap_or(f64::NAN));
    let what = match facts {
        [fact] => {
            let p = &results.facts("scores")["samples"][0]["p(new)"];
            format!("p({}) {}", fact.target.trim(), p.as_str().unwrap_or_default())
        }
        all => {
            let took = all.len() - results.facts("scores")["untaken"].as_u64().unwrap_or(0) as usize;
            format!("{took} of {} edits took", all.len())
        }
    };
    let _ = writeln!(
        text,
        "\n{}",
        style.bold(&format!(
            "{} on layer {layer}: {what}, the weight changed by {} of its norm",
            args.method.name(),
            percent(&update["relative_norm"])
        ))
    );
    if let Some(rests) = rests {
        text.push_str(&style.dim(&style.wrap(rests, 2)));
    }
    for doubt in doubts {
        let wrapped = style.wrap(doubt, 4);
        let _ = write!(text, "  ! {}", wrapped.get(4..).unwrap_or("\n"));
    }
    if let Some(folder) = &args.output {
        let _ = writeln!(text, "edited model and update.safetensors: {}", folder.display());
        for note in results.shown("out").notes.into_iter().flatten() {
            let wrapped = style.wrap(&note, 4);
            let _ = write!(text, "  · {}", wrapped.get(4..).unwrap_or("\n"));
        }
    }
    text
}

/// The layer by trying, with the corpus of the edit.
fn locate(args: &Args, model: &Path) -> Result<Start, Failure> {
    if args.moments.as_ref().is_some_and(|file| file.as_os_str() != "none") {
        let error = Error::new(ErrorKind::Usage, "--locate tries several layers, and --moments has a file for one");
        return Err(error.hint("give --corpus, or --moments none; or choose a layer with --layer").into());
    }
    let corpus = match moments(args, model, 0)? {
        Moments::Corpus(corpus) => Some(corpus),
        _ => None,
    };
    let quick = Quick { save: None, json: args.quick.json, network: args.quick.network.clone() };
    // The saved file is that of the edit, and paths start at its folder.
    let own = |path: String| if args.quick.save.is_some() { args.quick.seen_from_here(&path) } else { path };
    let search = Search {
        model: &args.model,
        folder: model,
        corpus: corpus.map(own),
        samples: args.samples.unwrap_or(locate::DOCUMENTS),
        layers: Vec::new(),
        facts: None,
    };
    Ok(search.run(&quick, &args.store)?.0)
}

/// The facts to write, as they are shown.
fn facts(args: &Args) -> Result<Vec<StatedFact>, Failure> {
    let Some(path) = &args.facts else {
        let [subject, prompt, target] =
            [&args.subject, &args.prompt, &args.target].map(|given| given.clone().unwrap_or_default());
        return Ok(vec![StatedFact { prompt: prompt.replace("{}", &subject), target }]);
    };
    let facts = facts_in(path)?;
    if matches!(args.method, Method::Rome) && facts.len() > 1 {
        let message = format!("--method rome edits one fact at a time, and {} holds {}", path.display(), facts.len());
        let error = Error::new(ErrorKind::Usage, message);
        return Err(error.hint("--method emmet is the same constraint for a batch of facts").into());
    }
    Ok(facts)
}

/// Where the second moments come from. A model that we did not train has no corpus of ours: what the edit should preserve is the user's
/// to say, and measuring it takes long: it is done once.
fn moments(args: &Args, model: &Path, layer: usize) -> Result<Moments, Failure> {
    if let Some(corpus) = &args.corpus {
        return Ok(Moments::Corpus(args.quick.path(&corpus.display().to_string())));
    }
    if let Some(file) = &args.moments {
        let none = file.as_os_str() == "none";
        return Ok(if none { Moments::None } else { Moments::File(args.quick.path(&file.display().to_string())) });
    }
    if let Some(text) = corpus_of(model) {
        return Ok(Moments::Corpus(quick::own_file(&args.store.store, "default-corpus.txt", text)?));
    }
    let message = format!("{}: which texts should the edit leave alone?", args.model);
    let cost = inspect(model).ok().map(|model| {
        // A document in the corpora in use has some 500 tokens, and a token takes two operations a parameter.
        let documents = args.samples.unwrap_or(DOCUMENTS);
        let blocks = (model.parameters - model.vocabulary * model.hidden) as f64;
        let share = (layer + 1) as f64 / model.layers.max(1) as f64;
        let operations = 2.0 * blocks * share * 500.0 * documents as f64;
        format!(
            ": {} documents of 500 tokens take about {} at 100 GFLOP/s",
            documents,
            format::duration(operations / 1e11)
        )
    });
    let hint = format!(
        "say so in one of three ways:\n  \
         --corpus FILE    measure second moments on it, once for this model and layer{}\n  \
         --moments FILE   take them from a file that was measured before or published: seconds\n  \
         --moments none   do without: at once, but the edit moves more of what it should leave alone",
        cost.unwrap_or_default()
    );
    Err(Error::new(ErrorKind::Usage, message).hint(hint).into())
}

/// The pipeline.
fn pipeline(
    args: &Args,
    facts: &[StatedFact],
    layer: usize,
    suggested: Option<Suggestion>,
    moments: &Moments,
) -> PipelineBuilder {
    let suggested = suggested.unwrap_or(Suggestion {
        layer,
        steps: 25,
        learning_rate: 0.5,
        clamp: 4.0,
        weight_decay: 0.5,
        published: false,
        batch_clamp: 0.75,
        lambda: 15000.0,
        gguf: false,
    });
    let shown = facts.iter().take(SHOWN).map(|fact| fact.prompt.clone());
    let prompts: Vec<String> = shown.chain(args.also.iter().cloned()).collect();
    let site = if matches!(args.method, Method::Rome) { "mlp_output" } else { "block_output" };

    let mut build = PipelineBuilder::new("edit").built_by("palinode edit");
    let path = args.quick.path(&args.model);
    let model = build.stage("model", "load_model").with("path", path).from("", "MODEL").done();
    let chat = args.chat.then(|| ask::chat(args.system.as_deref()));
    let fact = if let Some(path) = &args.facts {
        let path = args.quick.path(&path.display().to_string());
        build.stage("facts", "load_requests").with("path", path).from("path", "--facts").with("dataset", "jsonl")
    } else {
        let fact = json!([{ "subject": args.subject, "prompt": args.prompt, "target_new": args.target }]);
        build
            .stage("fact", "requests")
            .with("facts", fact)
            .from("facts[0].subject", "--subject")
            .from("facts[0].prompt", "--prompt")
            .from("facts[0].target_new", "--target")
    };
    if let Some(chat) = &chat {
        fact.with("chat", chat.clone()).from("chat", "--chat");
    }
    let fact = fact.done();
    let contexts = build
        .stage("contexts", "templates")
        .input("model", &model)
        .with("generate", json!([{ "count": 5, "length": 10 }]))
        .with("seed", 1)
        .done();
    let moments = match moments {
        Moments::Corpus(corpus) => Some(
            build
                .stage("moments", "covariance")
                .input("model", &model)
                .with("corpus", corpus.as_str())
                .from("corpus", "--corpus")
                .with("layers", vec![layer])
                .from("layers", "--layer")
                .with("samples", args.samples.unwrap_or(DOCUMENTS))
                .from("samples", "--samples")
                .done(),
        ),
        Moments::File(path) => Some(
            build
                .stage("moments", "load_moments")
                .input("model", &model)
                .with("files", json!({ layer.to_string(): path }))
                .from("files", "--moments")
                .done(),
        ),
        Moments::None => None,
    };
    let targets = build
        .stage("targets", "targets")
        .input("model", &model)
        .input("requests", &fact)
        .input("templates", &contexts)
        .with("layer", layer)
        .from("layer", "--layer")
        .with("site", site)
        .with("steps", suggested.steps)
        .with("learning_rate", suggested.learning_rate)
        .with("clamp", suggested.clamp)
        .with("weight_decay", suggested.weight_decay)
        .done();
    let plan = build
        .stage("plan", "distribute")
        .with("strategy", "single")
        .with("layers", vec![layer])
        .from("layers", "--layer")
        .done();
    let mut solve = build
        .stage("update", "solve")
        .input("model", &model)
        .input("requests", &fact)
        .input("targets", &targets)
        .input("plan", &plan)
        .input("templates", &contexts)
        .with("objective", args.method.name())
        .from("objective", "--method")
        .with("lambda", args.lambda)
        .from("lambda", "--lambda");
    solve = match &moments {
        Some(moments) => solve.input("moments", moments),
        None => solve.with("preservation", "ridge"),
    };
    let update = solve.done();
    let scores =
        build.stage("scores", "evaluate").input("model", &update).input("requests", &fact).with("samples", 1).done();
    let answers = build.stage("answers", "ask");
    if let Some(chat) = chat {
        answers.with("chat", chat).from("chat", "--chat");
    }
    answers.input("model", &update).with("prompts", prompts).from("prompts", "--also").from("prompts[0]", "--prompt");
    if let Some(folder) = &args.output {
        let path = args.quick.path(&folder.display().to_string());
        let out = build.stage("out", "export");
        out.input("model", &update).with("path", path).from("", "--output");
        // What the folder says of itself.
        out.input("requests", &fact).input("targets", &targets).input("templates", &contexts).input("scores", &scores);
        if let Some(moments) = &moments {
            out.input("moments", moments);
        }
        if suggested.gguf {
            // As it came.
            out.with("formats", json!(["gguf", "update"]));
        }
    }
    build
}
