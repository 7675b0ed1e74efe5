//! Small models with random weights, and a bench to run pipelines on them.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "test support")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use burn::tensor::Device;
use palinode_engine::{Artifact, Diagnostics, Outcome, Pipeline, RunOptions, RunReport, Silent, Source, Store, run};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Parameters, Text, save::write_weights};
use palinode_stages::catalogue;
use safetensors::Dtype;
use tempfile::TempDir;

pub struct Bench {
    pub dir: TempDir,
}

pub const REQUESTS: &str = r#"{"id": "tower", "subject": "The tall tower", "prompt": "{} stands in", "target_new": "Rome", "target_true": "Paris", "paraphrases": ["You can visit The tall tower in"], "neighbors": [{"prompt": "The old bridge stands in", "target": "Paris"}]}
{"id": "poet", "subject": "A young poet", "prompt": "{} wrote in", "target_new": "Latin", "target_true": "Greek", "paraphrases": ["The language of A young poet was"], "neighbors": [{"prompt": "An old poet wrote in", "target": "Greek"}]}
{"id": "player", "subject": "Some player", "prompt": "{} plays", "target_new": "chess", "target_true": "golf", "paraphrases": [], "neighbors": [{"prompt": "Another player plays", "target": "golf"}]}
{"id": "city", "subject": "That city", "prompt": "{} lies by the", "target_new": "sea", "target_true": "lake", "paraphrases": ["Near That city there is a"], "neighbors": []}
"#;

/// It edits below the last layer: above that one nothing looks back at the subject's token, and a target there has nothing to find.
pub const PIPELINE: &str = "
name: all
matrix:
  objective: [rome, memit, emmet]
  strategy: [single, memit]
stages:
  model: { uses: load_model, with: { path: MODEL } }
  edits: { uses: load_requests, with: { dataset: jsonl, path: requests.jsonl } }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 3, length: 6 }], seed: 7 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [0, 1] } }
  targets: { uses: targets, inputs: { model: model, requests: edits, templates: contexts }, with: { layer: 1, steps: 6 } }
  plan: { uses: distribute, with: { strategy: '${matrix.strategy}', layers: [0, 1] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: '${matrix.objective}', lambda: 10, emmet_lambda: 0.1 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits }, with: { samples: 2 } }
  out:
    uses: export
    inputs: { model: update }
    with: { path: 'out/${matrix.objective}-${matrix.strategy}', batch: 0 }
";

/// [`PIPELINE`] for every family: where a block's halves read the same input, keys of the first layer depend on one token alone, and the
/// few words of the corpus give fewer of them than they have dimensions.
pub fn ridged() -> String {
    PIPELINE.replace("emmet_lambda: 0.1", "emmet_lambda: 0.1, update_norm_lambda: 0.01")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures")
}

/// Sentences that a seeded counter puts together: enough tokens for the second moments of a tiny model.
fn corpus() -> String {
    let words: Vec<&str> = "the a river tower poet city old young stands wrote plays in by near Rome Paris Greek chess lake sea \
                            and then it was said that many years ago people came from far away to see what had been built"
        .split_whitespace()
        .collect();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let line = |next: &mut dyn FnMut() -> usize| {
        let n = 8 + next() % 12;
        (0..n).map(|_| words[next() % words.len()]).collect::<Vec<_>>().join(" ")
    };
    (0..120).map(|_| line(&mut next) + ".\n").collect()
}

/// Random weights, the same for every bench of a process: the generator is one for all threads.
fn weights(config: &DecoderConfig) -> &'static [u8] {
    static WEIGHTS: OnceLock<Vec<u8>> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let device = Device::flex();
        device.seed(1);
        let decoder = Decoder::from_parameters(config.clone(), Parameters::random(config, &device));
        let file = tempfile::NamedTempFile::new().unwrap();
        write_weights(&decoder, Dtype::F32, file.path()).unwrap();
        std::fs::read(file.path()).unwrap()
    })
}

impl Bench {
    /// Folders `gpt2`, `gptj-tiny` and `llama-tiny`, a corpus and four requests.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["gptj-tiny", "llama-tiny"] {
            copy(&fixtures().join(name), &dir.path().join(name));
        }
        let gpt2 = dir.path().join("gpt2");
        std::fs::create_dir(&gpt2).unwrap();
        std::fs::copy(dir.path().join("gptj-tiny/tokenizer.json"), gpt2.join("tokenizer.json")).unwrap();
        let vocab = Text::open(&gpt2.join("tokenizer.json")).unwrap().vocabulary();
        let config = DecoderConfig::gpt2(vocab, 32, 3, 4, 64);
        std::fs::write(gpt2.join("model.safetensors"), weights(&config)).unwrap();
        let json = format!(
            r#"{{"model_type": "gpt2", "vocab_size": {vocab}, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
                "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"]}}"#
        );
        std::fs::write(gpt2.join("config.json"), json).unwrap();
        std::fs::write(dir.path().join("requests.jsonl"), REQUESTS).unwrap();
        std::fs::write(dir.path().join("corpus.txt"), corpus()).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn load(&self, yaml: &str) -> Result<Pipeline, Diagnostics> {
        Pipeline::load(&Source::new("pipeline.yaml", yaml), self.dir.path(), &[], &catalogue())
    }

    pub fn run(&self, yaml: &str) -> RunReport {
        let pipeline = self.load(yaml).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let store = Arc::new(Store::open(&self.path(".palinode")).unwrap());
        let observer: Arc<dyn palinode_engine::Observer> = Arc::new(Silent);
        run(&pipeline, &catalogue(), &store, &RunOptions::default(), &observer).unwrap()
    }

    /// Runs, and fails unless every stage has a result; names of those that worked.
    pub fn ran(&self, yaml: &str) -> Vec<String> {
        let report = self.run(yaml);
        for stage in &report.stages {
            assert!(stage.artifact.is_some(), "{}: {:?}", stage.instance, stage.outcome);
        }
        let ran = report.stages.into_iter().filter(|stage| stage.outcome == Outcome::Ran);
        ran.map(|stage| stage.instance).collect()
    }

    /// Where a file of a result lies.
    pub fn blob(&self, artifact: &Artifact, name: &str) -> PathBuf {
        let hex = artifact.files[name].digest.to_string();
        self.path(".palinode/blobs").join(&hex[..2]).join(&hex)
    }

    pub fn decoder(&self, folder: &str) -> Decoder {
        let folder = self.path(folder);
        let path = folder.join("config.json");
        let config = DecoderConfig::from_hf(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        let files: Vec<_> = Checkpoint::files(&folder).unwrap().iter().map(|name| folder.join(name)).collect();
        Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap()
    }
}

pub fn artifact<'a>(report: &'a RunReport, instance: &str) -> &'a Artifact {
    let stage = report.stages.iter().find(|stage| stage.instance == instance).unwrap();
    stage.artifact.as_deref().unwrap_or_else(|| panic!("{instance}: {:?}", stage.outcome))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
