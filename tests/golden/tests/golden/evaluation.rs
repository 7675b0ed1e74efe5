//! Scores on CounterFact before and after the authors' own edits, and measures of longer texts. Tolerances are the folder's own.

use burn::tensor::Device;
use palinode_data::{Dataset, EditRequest, Selection, read_requests};
use palinode_edit::with_edits;
use palinode_eval::{Comparison, RecordScores, Summary, Words, Writing, entropy, score_requests, surprise, write};
use palinode_golden::{Folder, Json};
use palinode_math::{Delta, LowRank, from_row_major};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text, WeightId};

struct Golden {
    folder: Folder,
    decoder: Decoder,
    text: Text,
    requests: Vec<EditRequest>,
}

fn open(name: &str) -> Golden {
    let folder = Folder::given().folder(name);
    let model = folder.folder("model");
    let config = DecoderConfig::read(&model.file("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(model.path()).unwrap().iter().map(|f| model.path().join(f)).collect();
    Golden {
        decoder: Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap(),
        text: Text::open(&model.file("tokenizer.json")).unwrap(),
        requests: read_requests(&folder.file("requests.json"), &Dataset::CounterFact, &Selection::default()).unwrap(),
        folder,
    }
}

impl Golden {
    /// The model with the reference's own weight change of an experiment, `resid · adj_kᵀ` at each layer.
    fn edited(&self, id: &str) -> Decoder {
        let file = self.folder.tensors(&format!("{id}.safetensors"));
        let matrix = |name: &str| {
            let (shape, values) = file.floats(name);
            from_row_major("golden", &values, shape[0], shape[1]).unwrap().to_owned()
        };
        let updates: Vec<(WeightId, Delta)> = (0..self.decoder.config().layers)
            .filter(|layer| file.has(&format!("layer{layer}.resid")))
            .map(|layer| {
                let left = matrix(&format!("layer{layer}.resid"));
                let right = matrix(&format!("layer{layer}.adj_k")).transpose().to_owned();
                (WeightId::down(layer), LowRank { left, right }.into())
            })
            .collect();
        assert!(!updates.is_empty(), "{id}");
        with_edits(&self.decoder, updates.iter().map(|(weight, delta)| (*weight, delta))).unwrap()
    }

    /// Compares with the records of a file; returns the largest difference of a log-likelihood.
    fn check(&self, decoder: &Decoder, records: &Json, tolerance: f64) -> (Vec<RecordScores>, f64) {
        let records = records.list();
        assert!(!records.is_empty());
        let requests: Vec<EditRequest> = records
            .iter()
            .map(|record| {
                let id = record.field("case_id").whole().to_string();
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
                let theirs = record.field(name).list();
                assert_eq!(ours.len(), theirs.len());
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    assert_eq!(ours.prompt, theirs.field("prompt").text());
                    let old = ours.old.as_ref().unwrap();
                    let new_nll = theirs.field("target_new_prob").number();
                    let old_nll = theirs.field("target_true_prob").number();
                    let off = (ours.new.nll - new_nll).abs().max((old.nll - old_nll).abs());
                    assert!(off < tolerance, "{}: {off}", ours.prompt);
                    worst = worst.max(off);
                    let close = (new_nll - old_nll).abs() < 2.0 * tolerance;
                    assert!(close || (ours.new.nll < old.nll) == (new_nll < old_nll), "{}", ours.prompt);
                    let correct = if new_wins { ours.new.correct() } else { old.correct() };
                    assert!(close || correct == theirs.field("correct").truth(), "{}", ours.prompt);
                }
            }
        }
        (scores, worst)
    }
}

/// Every edit that the summary names has to have its records.
fn all(name: &str, edits: usize) {
    let golden = open(name);
    let summaries = golden.folder.json("eval_summary.json");
    let (scores, worst) = golden.check(&golden.decoder, &golden.folder.json("eval_before.json"), 1e-3);
    println!("{name} before: log-likelihoods differ by {worst:.1e} at most");
    check_summary("before", &scores, &summaries.field("before"), 1e-4);
    let ids: Vec<String> = summaries.names().into_iter().filter(|id| id != "before").collect();
    assert_eq!(ids.len(), edits, "{name}");
    for id in ids {
        let records = golden.folder.json(&format!("{id}.eval_after.json"));
        let (scores, worst) = golden.check(&golden.edited(&id), &records, 2e-2);
        println!("{name} {id}: log-likelihoods differ by {worst:.1e} at most");
        check_summary(&id, &scores, &summaries.field(&id), 2e-3);
    }
}

fn check_summary(id: &str, scores: &[RecordScores], theirs: &Json, tolerance: f64) {
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
        let theirs = theirs.field(theirs_name).number();
        let ours = ours.get(name).unwrap();
        assert!((ours - theirs).abs() < tolerance, "{id} {name}: {ours} against {theirs}");
    }
}

#[test]
fn gpt2() {
    all("gpt2", 9);
}

#[test]
fn gptj() {
    all("gptj-tiny", 2);
}

#[test]
fn llama() {
    all("llama-tiny", 2);
}

#[test]
fn longer_texts() {
    let golden = open("gpt2");
    let theirs = golden.folder.json("entropy_perplexity_generation.json");
    let texts = theirs.field("texts").texts();
    let (entropies, perplexities) = (
        theirs.field("ngram_entropy_per_text_whitespace_words").list(),
        theirs.field("perplexity_first_100_tokens").list(),
    );
    assert!(!texts.is_empty());
    for (i, text) in texts.iter().enumerate() {
        assert!((entropy(text, Words::Whitespace) - entropies[i].number()).abs() < 1e-12);
        let mut ids = golden.text.encode(text).unwrap();
        ids.truncate(100);
        let ours = surprise(&golden.decoder, std::slice::from_ref(&ids), 512).unwrap()[0];
        assert_eq!(ours.tokens + 1, ids.len());
        // The reference divides by the number of tokens, the first one included, which nothing predicts.
        let off = (ours.nll / ids.len() as f64).exp() / perplexities[i].number() - 1.0;
        assert!(off.abs() < 1e-4, "{text}: {off}");
    }
    let greedy = theirs.field("greedy_50");
    let prompts = greedy.field("prompts").texts();
    let theirs = greedy.field("texts").texts();
    assert!(!prompts.is_empty() && prompts.len() == theirs.len());
    let writing = Writing { length: 50, top_k: 1, seed: 0 };
    for (ours, theirs) in write(&golden.decoder, &golden.text, &prompts, &writing).unwrap().iter().zip(theirs) {
        assert_eq!(ours.trim(), theirs);
    }
}
