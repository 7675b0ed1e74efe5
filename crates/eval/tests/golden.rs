//! CounterFact scores against the authors' code, before and after its own edits (skipped where the golden folder does not
//! lie beside the repository, since its records may not be copied). Tolerances are that folder's own.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use palinode_data::{Dataset, EditRequest, Selection, read_requests};
use palinode_edit::with_edits;
use palinode_eval::{Comparison, RecordScores, Summary, Writing, entropy, score_requests, surprise, write};
use palinode_math::{Update, from_row_major};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};
use safetensors::SafeTensors;
use serde_json::Value;

struct Golden {
    folder: PathBuf,
    decoder: Decoder,
    text: Text,
    requests: Vec<EditRequest>,
}

fn open(name: &str) -> Option<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").join(name);
    if !folder.is_dir() {
        println!("skipped: no golden folder {name}");
        return None;
    }
    let model = folder.join("model");
    let config = DecoderConfig::from_hf(&std::fs::read_to_string(model.join("config.json")).unwrap(), &model).unwrap();
    let files: Vec<_> = Checkpoint::files(&model).unwrap().iter().map(|f| model.join(f)).collect();
    Some(Golden {
        decoder: Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap(),
        text: Text::open(&model.join("tokenizer.json")).unwrap(),
        requests: read_requests(&folder.join("requests.json"), Dataset::CounterFact, Selection::default()).unwrap(),
        folder,
    })
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

impl Golden {
    /// The model with the reference's own weight change of an experiment, `resid · adj_kᵀ` at each layer.
    fn edited(&self, id: &str) -> Decoder {
        let bytes = std::fs::read(self.folder.join(format!("{id}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let matrix = |name: &str| {
            let view = file.tensor(name).unwrap();
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            from_row_major("golden", &values, view.shape()[0], view.shape()[1]).unwrap().to_owned()
        };
        let updates: Vec<(usize, Update)> = (0..self.decoder.config().layers)
            .filter(|layer| file.tensor(&format!("layer{layer}.resid")).is_ok())
            .map(|layer| {
                let left = matrix(&format!("layer{layer}.resid"));
                let right = matrix(&format!("layer{layer}.adj_k")).transpose().to_owned();
                (layer, Update { left, right })
            })
            .collect();
        assert!(!updates.is_empty(), "{id}");
        with_edits(&self.decoder, updates.iter().map(|(layer, update)| (*layer, update)))
    }

    /// Compares with the records of a file; returns the largest difference of a log-likelihood.
    fn check(&self, decoder: &Decoder, records: &Value, tolerance: f64) -> (Vec<RecordScores>, f64) {
        let records = records.as_array().unwrap();
        let requests: Vec<EditRequest> = records
            .iter()
            .map(|record| {
                let id = record["case_id"].to_string();
                self.requests.iter().find(|r| r.id == id).unwrap().clone()
            })
            .collect();
        let scores = score_requests(decoder, &self.text, &requests, 2048).unwrap();
        let mut worst = 0.0_f64;
        for (record, ours) in records.iter().zip(&scores) {
            let sides: [(&str, &[Comparison], bool); 3] = [
                ("rewrite_prompts_probs", &ours.rewrite, true),
                ("paraphrase_prompts_probs", &ours.paraphrase, true),
                ("neighborhood_prompts_probs", &ours.neighborhood, false),
            ];
            for (name, ours, new_wins) in sides {
                let theirs = record[name].as_array().unwrap();
                assert_eq!(ours.len(), theirs.len());
                for (ours, theirs) in ours.iter().zip(theirs) {
                    assert_eq!(ours.prompt, theirs["prompt"].as_str().unwrap());
                    let old = ours.old.as_ref().unwrap();
                    let new_nll = theirs["target_new_prob"].as_f64().unwrap();
                    let old_nll = theirs["target_true_prob"].as_f64().unwrap();
                    let off = (ours.new.nll - new_nll).abs().max((old.nll - old_nll).abs());
                    assert!(off < tolerance, "{}: {off}", ours.prompt);
                    worst = worst.max(off);
                    let close = (new_nll - old_nll).abs() < 2.0 * tolerance;
                    assert!(close || (ours.new.nll < old.nll) == (new_nll < old_nll), "{}", ours.prompt);
                    let correct = if new_wins { ours.new.correct() } else { old.correct() };
                    assert!(close || correct == theirs["correct"].as_bool().unwrap(), "{}", ours.prompt);
                }
            }
        }
        (scores, worst)
    }
}

fn all(name: &str) {
    let Some(golden) = open(name) else { return };
    let summaries = json(golden.folder.join("eval_summary.json"));
    let (scores, worst) = golden.check(&golden.decoder, &json(golden.folder.join("eval_before.json")), 1e-3);
    println!("{name} before: log-likelihoods differ by {worst:.1e} at most");
    check_summary("before", &scores, &summaries["before"], 1e-4);
    let mut edits = 0;
    let mut files: Vec<_> = std::fs::read_dir(&golden.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    for file in files {
        let file = file.to_string_lossy();
        let Some(id) = file.strip_suffix(".eval_after.json") else { continue };
        let (scores, worst) = golden.check(&golden.edited(id), &json(golden.folder.join(file.as_ref())), 2e-2);
        println!("{name} {id}: log-likelihoods differ by {worst:.1e} at most");
        check_summary(id, &scores, &summaries[id], 2e-3);
        edits += 1;
    }
    assert!(edits > 0);
}

fn check_summary(id: &str, scores: &[RecordScores], theirs: &Value, tolerance: f64) {
    let ours = Summary::of(scores);
    let names = [
        ("ES", "ES_success"),
        ("PS", "PS_success"),
        ("NS", "NS_success"),
        ("EM", "ES_magnitude"),
        ("PM", "PS_magnitude"),
        ("NM", "NS_magnitude"),
        ("S", "S_harmonic"),
    ];
    for (name, theirs_name) in names {
        let theirs = theirs[theirs_name].as_f64().unwrap();
        let ours = ours.get(name).unwrap();
        assert!((ours - theirs).abs() < tolerance, "{id} {name}: {ours} against {theirs}");
    }
}

#[test]
fn gpt2() {
    all("gpt2");
}

#[test]
fn gptj() {
    all("gptj-tiny");
}

#[test]
fn llama() {
    all("llama-tiny");
}

#[test]
fn longer_texts() {
    let Some(golden) = open("gpt2") else { return };
    let theirs = json(golden.folder.join("entropy_perplexity_generation.json"));
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let number = |value: &Value| value.as_f64().unwrap();
    for (i, text) in texts(&theirs["texts"]).iter().enumerate() {
        assert!((entropy(text) - number(&theirs["ngram_entropy_per_text_whitespace_words"][i])).abs() < 1e-12);
        let mut ids = golden.text.encode(text).unwrap();
        ids.truncate(100);
        let ours = surprise(&golden.decoder, std::slice::from_ref(&ids), 512).unwrap()[0];
        assert_eq!(ours.tokens + 1, ids.len());
        // The reference divides by the number of tokens, the first one included, which nothing predicts.
        let off = (ours.nll / ids.len() as f64).exp() / number(&theirs["perplexity_first_100_tokens"][i]) - 1.0;
        assert!(off.abs() < 1e-4, "{text}: {off}");
    }
    let prompts = texts(&theirs["greedy_50"]["prompts"]);
    let writing = Writing { length: 50, top_k: 1, seed: 0 };
    for (ours, theirs) in write(&golden.decoder, &golden.text, &prompts, &writing)
        .unwrap()
        .iter()
        .zip(texts(&theirs["greedy_50"]["texts"]))
    {
        assert_eq!(ours.trim(), theirs);
    }
}
