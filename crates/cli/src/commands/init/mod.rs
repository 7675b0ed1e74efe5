//! `palinode init`

mod data;
mod hparams;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{Error, ErrorKind, Single, carried, corpus_of, inspect, model_folder, real, suggest, way, write_files};
use serde_json::Value;

use super::locate::{self, Search};
use super::quick::Quick;
use crate::command_error::Failure;
use crate::input::{NetworkArgs, StoreArgs};
use crate::interrupt;
use crate::outputs::OverwriteArgs;
use crate::results::from_here;
use crate::terminal::{How, Style, print};

/// Start a pipeline: a commented file, a few facts to edit, a little text
///
/// The new pipeline is valid and runs without changes. Its comments say what to change. Settings are those of the published run of the model's
/// family where --data or --corpus name more than a few sentences. Overwrites nothing without --overwrite.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode init edits --model models/gpt2
  palinode init study --model models/gpt2 --template compare
  palinode init edits --model models/it --locate texts.txt
  palinode init facts --model hf:openai-community/gpt2 --data counterfact
  palinode init memit --model hf:openai-community/gpt2-xl --from hparams/MEMIT/gpt2-xl.json

Then:
  palinode validate edits/pipeline.yaml
  palinode run edits/pipeline.yaml")]
pub struct Args {
    /// The folder to write to. It is created if it does not exist.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// The model to edit: a folder with config.json, tokenizer.json and weights as safetensors, a GGUF file, or a model of
    /// the Hugging Face Hub, hf:owner/name.
    #[arg(long, value_name = "FOLDER")]
    model: String,

    #[command(flatten)]
    network: NetworkArgs,

    /// The purpose of the pipeline.
    #[arg(long, value_enum, default_value_t = Template::Edit, conflicts_with = "from")]
    template: Template,

    /// A hyperparameter file of the reference implementations (JSON) or of EasyEdit (YAML). The pipeline is the one that it means;
    /// what could not be carried over is listed.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Choose the layer by trying, as `palinode locate` does: a corpus whose texts edits should leave alone, or `none` to do without
    /// second moments. That takes as long as so many edits, once for each model and corpus.
    #[arg(long, value_name = "FILE|none", conflicts_with = "from")]
    locate: Option<PathBuf>,

    #[command(flatten)]
    data: data::DataArgs,

    #[command(flatten)]
    overwrite: OverwriteArgs,

    #[command(flatten)]
    store: StoreArgs,
}

/// What a pipeline is to do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Template {
    /// Edit a handful of facts and write the edited model.
    Edit,
    /// Compare objectives and distributions over layers, all cells of a matrix.
    Compare,
    /// Edit in rounds, each on the model that the round before produced.
    Sequence,
}

impl Template {
    fn text(self) -> &'static str {
        match self {
            Self::Edit => include_str!("templates/edit.yaml"),
            Self::Compare => include_str!("templates/compare.yaml"),
            Self::Sequence => include_str!("templates/sequence.yaml"),
        }
    }
}

/// Writes the files.
pub fn run(args: &Args) -> Result<(), Failure> {
    let interrupt = interrupt::watch();
    let folder = args.network.with(How::Person, &interrupt, |network| model_folder(&args.model, network))?;
    let layers = layers(&folder)?;
    let dir = std::path::absolute(&args.dir).unwrap_or_else(|_| args.dir.clone());
    let (edited, rests) = chosen(args, &folder, layers)?;
    let edited: Vec<String> = edited.iter().map(ToString::to_string).collect();
    let model = if args.model.starts_with("hf:") {
        args.model.clone()
    } else {
        way(&real(&folder), &real(&dir)).display().to_string()
    };
    let reading = match &args.from {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
            Some(hparams::read(path, &text, &data::quoted(&model), layers)?)
        }
        None => None,
    };
    let demo = demo(args, &folder);
    let data = args.data.read(&dir, demo)?;
    let suggested = if demo.is_some() { suggest(&folder) } else { carried(&folder) };
    let template = data
        .fill(args.template.text(), suggested)
        .replace("{{model}}", &data::quoted(&model))
        .replace("{{layers}}", &edited.join(", "))
        .replace("{{rests}}", &rests)
        .replace("{{count}}", &layers.to_string())
        .replace("{{most}}", &(layers - 1).to_string());
    let pipeline = reading.as_ref().map_or(&template, |reading| &reading.pipeline);
    let mut files = vec![("pipeline.yaml", pipeline.as_str())];
    files.extend(data.own_facts.map(|facts| ("facts.jsonl", facts)));
    files.extend(data.own_text.map(|text| ("corpus.txt", text)));
    let failed = |error| Error::io(ErrorKind::Usage, "write", &args.dir, error);
    fs::create_dir_all(&dir).map_err(failed)?;
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| dir.join(name)).collect();
    let new = paths.iter().zip(&files).map(|(path, (_, contents))| Single::new(path, contents.as_bytes()));
    write_files(&new.collect::<Vec<_>>(), args.overwrite.get())?;
    let style = Style::stdout();
    let mut text = String::new();
    for path in paths {
        text.push_str(&format!("{} {}\n", style.green("wrote"), shown(path)));
    }
    match &reading {
        Some(reading) => text.push_str(&told(reading)),
        None => text.push_str(&format!("\nlayers {}: {rests}\n", edited.join(", "))),
    }
    if !data.fetches.is_empty() {
        text.push_str(&format!("\n{}", data.fetches));
    }
    let pipeline = shown(dir.join("pipeline.yaml"));
    text.push_str(&format!(
        "\nnext:\n  palinode validate {pipeline}\n  palinode graph {pipeline}\n  palinode run {pipeline}\n"
    ));
    print(&text)
}

/// The corpus of the demo's model, where a pipeline for it brings facts and text with it.
fn demo(args: &Args, folder: &Path) -> Option<&'static str> {
    if args.data.is_given() || args.from.is_some() { None } else { corpus_of(folder) }
}

/// The layers to edit, and on what that rests.
fn chosen(args: &Args, folder: &Path, layers: u64) -> Result<(Vec<u64>, String), Failure> {
    if let Some(corpus) = &args.locate {
        let quick = Quick { save: None, json: false, network: args.network.clone() };
        let search = Search {
            model: &args.model,
            folder,
            corpus: (corpus.as_os_str() != "none").then(|| corpus.display().to_string()),
            samples: locate::DOCUMENTS,
            layers: Vec::new(),
            facts: None,
        };
        let (start, _) = search.run(&quick, &args.store)?;
        return Ok((vec![start.layer as u64], locate::said(&start)));
    }
    if demo(args, folder).is_some() {
        return Ok((vec![0, 1, 2], "those of the demo, pipelines/demo.yaml".to_owned()));
    }
    if let Some(suggested) = carried(folder).filter(|suggested| suggested.published) {
        let last = suggested.layer as u64;
        let rests = "up to the layer that was published for models of this family and depth".to_owned();
        return Ok(((last.saturating_sub(2)..=last).collect(), rests));
    }
    // Facts are recalled in the layers before the middle; the last of those edited is where targets are values.
    let last = (layers / 2).max(1).min(layers - 1);
    let rests =
        "below the middle, since no layers were published for this model; palinode locate tries them".to_owned();
    Ok(((last.saturating_sub(2)..=last).collect(), rests))
}

/// What became of the keys of a hyperparameter file.
fn told(reading: &hparams::Reading) -> String {
    let mut text = String::from("\ncarried over:\n");
    for (key, place) in &reading.carried {
        text.push_str(&format!("  {key} -> {place}\n"));
    }
    if !reading.left.is_empty() {
        text.push_str("\nnot carried over:\n");
        for (key, why) in &reading.left {
            text.push_str(&format!("  {key}: {why}\n"));
        }
    }
    text
}

fn shown(path: PathBuf) -> String {
    from_here(&path).display().to_string()
}

/// Number of layers of a model, by its config.json, or of a GGUF file.
fn layers(model: &Path) -> Result<u64, Error> {
    if model.is_file() {
        return Ok(inspect(model)?.layers as u64);
    }
    let path = model.join("config.json");
    let hint = "name a folder in Hugging Face's layout: config.json, tokenizer.json and weights as safetensors";
    let text =
        fs::read_to_string(&path).map_err(|error| Error::io(ErrorKind::Usage, "read", &path, error).hint(hint))?;
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let names = ["num_hidden_layers", "n_layer", "num_layers"];
    let count = names.iter().find_map(|name| config[name].as_u64()).filter(|&count| count > 0);
    count.ok_or_else(|| Error::input(format!("{} names no number of layers", path.display())).hint(hint))
}
