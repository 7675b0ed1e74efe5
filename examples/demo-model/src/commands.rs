//! The program's commands.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use clap::{Args, Parser};
use palinode_model::save::{Dtype, write_weights};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text, select_device};
use serde::Serialize;
use serde_json::json;

use crate::check::Report;
use crate::error::{Error, at};
use crate::facts::{self, Relation};
use crate::prose::Prose;
use crate::rows::Rows;
use crate::train::{Losses, Settings, train};
use crate::{corpus, requests, task, vocabulary};

/// Seed of the corpus and of the requests; the model has its own.
const SEED: u64 = 0;

/// Writes the demo pipeline's corpus, model and edit requests.
#[derive(Debug, Parser)]
#[command(version)]
pub enum Command {
    /// Write `corpus.txt`.
    Corpus(Folder),
    /// Write everything: corpus, tokenizer, model, requests and report.
    Train(Training),
    /// Write `requests.json` and `task.jsonl` anew for the model that is there.
    Requests(Folder),
    /// Ask the model all facts, and fail if it knows too few.
    Check(Folder),
}

/// Where files are.
#[derive(Debug, Args)]
pub struct Folder {
    /// Folder of `facts/`, which is read, and of everything that is written.
    #[arg(long, default_value = env!("CARGO_MANIFEST_DIR"))]
    folder: PathBuf,
}

/// How to train.
#[derive(Debug, Args)]
pub struct Training {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    settings: Settings,
}

/// What `train_report.json` holds.
#[derive(Debug, Serialize)]
struct TrainReport<'a> {
    settings: &'a Settings,
    parameters: usize,
    seconds: u64,
    losses: Losses,
    accuracy: Report,
    requests: usize,
}

/// Runs a command.
pub fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Corpus(folder) => folder.corpus().map(drop),
        Command::Train(training) => training.run(),
        Command::Requests(folder) => {
            let (relations, prose) = folder.read()?;
            let (decoder, text) = folder.load(&select_device("cpu")?)?;
            folder.requests(&decoder, &text, &relations, &prose).map(drop)
        }
        Command::Check(folder) => {
            let (relations, _) = folder.read()?;
            let (decoder, text) = folder.load(&select_device("cpu")?)?;
            let report = Report::of(&decoder, &text, &relations)?;
            print!("{report}");
            report.judge()
        }
    }
}

impl Folder {
    fn read(&self) -> Result<(Vec<Relation>, Prose), Error> {
        let facts = self.folder.join("facts");
        Ok((facts::read(&facts)?, Prose::read(&facts)?))
    }

    fn model(&self, name: &str) -> PathBuf {
        self.folder.join("model").join(name)
    }

    fn load(&self, device: &Device) -> Result<(Decoder, Text), Error> {
        let path = self.model("config.json");
        let config = DecoderConfig::from_hf(&std::fs::read_to_string(&path).map_err(at(&path))?, &path)?;
        let checkpoint = Checkpoint::open(&[self.model("model.safetensors")])?;
        Ok((Decoder::load(&checkpoint, &config, device)?, Text::open(&self.model("tokenizer.json"))?))
    }

    fn corpus(&self) -> Result<Vec<String>, Error> {
        let (relations, prose) = self.read()?;
        let lines = corpus::lines(&relations, &prose, SEED);
        let path = self.folder.join("corpus.txt");
        std::fs::write(&path, lines.join("\n") + "\n").map_err(at(&path))?;
        println!("{}: {} documents", path.display(), lines.len());
        Ok(lines)
    }

    fn requests(&self, decoder: &Decoder, text: &Text, relations: &[Relation], prose: &Prose) -> Result<usize, Error> {
        let records = requests::requests(decoder, text, relations, prose, SEED)?;
        let path = self.folder.join("requests.json");
        write_json(&path, &records)?;
        println!("{}: {} requests", path.display(), records.len());
        let questions = task::questions(relations, &records)?;
        let path = self.folder.join("task.jsonl");
        let lines = questions.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>().map_err(at(&path))?;
        std::fs::write(&path, lines.join("\n") + "\n").map_err(at(&path))?;
        println!("{}: {} questions", path.display(), questions.len());
        Ok(records.len())
    }
}

impl Training {
    fn run(self) -> Result<(), Error> {
        let Self { folder, settings } = self;
        settings.check()?;
        let device = select_device("cpu")?;
        let (relations, prose) = folder.read()?;
        let lines = folder.corpus()?;
        let path = folder.model("");
        std::fs::create_dir_all(&path).map_err(at(&path))?;
        vocabulary::train(&lines, settings.vocab, &folder.model("tokenizer.json"))?;
        let text = Text::open(&folder.model("tokenizer.json"))?;
        let config = settings.config(text.vocabulary());
        println!("{} weights, {} tokens in the vocabulary", config.parameters(), config.vocab);
        let mut rows = Rows::new(&relations, &prose, &text, settings.length, settings.seed);
        let begin = Instant::now();
        let (decoder, losses) = train(&settings, &config, &mut rows, &device, |step, losses, left, decoder| {
            let report = Report::of(decoder, &text, &relations)?;
            println!(
                "step {step} of {}: loss {:.3}, objects {:.4}, known {:.3}, paraphrased {:.3}, {left:.0} s left",
                settings.steps, losses.weighted, losses.objects, report.known, report.paraphrased
            );
            Ok(())
        })?;
        write_json(&folder.model("config.json"), &hugging_face(&config, text.end()))?;
        write_weights(&decoder, Dtype::F16, &folder.model("model.safetensors"))?;
        // From here on, the model as it was stored.
        let (decoder, text) = folder.load(&device)?;
        let accuracy = Report::of(&decoder, &text, &relations)?;
        print!("{accuracy}");
        let requests = folder.requests(&decoder, &text, &relations, &prose)?;
        let report = TrainReport {
            settings: &settings,
            parameters: config.parameters(),
            seconds: begin.elapsed().as_secs(),
            losses,
            accuracy,
            requests,
        };
        write_json(&folder.folder.join("train_report.json"), &report)?;
        report.accuracy.judge()
    }
}

/// `config.json` as transformers' `GPT2Config` writes it.
fn hugging_face(config: &DecoderConfig, end: Option<u32>) -> serde_json::Value {
    json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_embd": config.hidden,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.feed_forward,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": 0.02,
        "scale_attn_weights": true,
        "tie_word_embeddings": true,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float16",
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(at(path))?;
    std::fs::write(path, text + "\n").map_err(at(path))
}
