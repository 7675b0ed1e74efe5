//! The further metrics of the published code, as the stage `reference_metrics` measures them: distances in each weight, attribute prompts,
//! greedy texts, perplexity of a subject's texts, token entropy.

use std::fs;

use palinode_eval::token_entropy;
use palinode_golden::{Folder, Json};
use palinode_model::Text;
use serde_json::{Value, json};

use crate::pipelines::{PIPELINE, facts};

/// Tokens of a document, as the golden model reads it.
const CONTEXT: usize = 256;
/// Whole documents are read until they have as many tokens.
const KEPT_TOKENS: usize = 5000;

fn text(golden: &Folder) -> Text {
    Text::open(&golden.folder("gpt2").folder("model").file("tokenizer.json")).unwrap()
}

/// In place of the scores of [`PIPELINE`].
const BESIDES: &str = "  besides:
    uses: reference_metrics
    inputs: { model: update, requests: edits, targets: targets, templates: contexts }
    with: { sliding: 20, corpus: kept.txt, tokens: 1000000, resamples: 0 }
";

/// The share of attribute prompts with p(new) > p(true), as a mean over records, and how far two records that are nearly even may move it.
fn attributes(records: &Json) -> (f64, f64) {
    let (mut sum, mut open) = (0.0, 0.0);
    let records = records.list();
    for record in &records {
        let prompts = record.field("attribute_prompts_probs").list();
        assert!(!prompts.is_empty());
        for prompt in &prompts {
            let (new, old) = (prompt.field("target_new_prob").number(), prompt.field("target_true_prob").number());
            sum += f64::from(u8::from(new < old)) / prompts.len() as f64;
            // The tolerance of a likelihood after an edit.
            open += f64::from(u8::from((new - old).abs() < 4e-2)) / prompts.len() as f64;
        }
    }
    (sum / records.len() as f64, open / records.len() as f64)
}

#[test]
fn distances_and_attributes_of_the_authors_edits() {
    let golden = Folder::given();
    let gpt2 = golden.folder("gpt2");
    let folder = tempfile::tempdir().unwrap();
    let corpus = fs::read_to_string(golden.folder("data").file("mom2_corpus.txt")).unwrap();
    let lines: Vec<&str> = corpus.lines().collect();
    let (text, mut kept, mut tokens) = (text(&golden), String::new(), 0);
    for line in gpt2.json("mom2.json").field("sample_order_seed1").wholes() {
        if tokens >= KEPT_TOKENS {
            break;
        }
        tokens += text.encode(lines[line]).unwrap().len().min(CONTEXT);
        kept.push_str(lines[line]);
        kept.push('\n');
    }
    assert!(tokens >= KEPT_TOKENS);
    fs::write(folder.path().join("kept.txt"), kept).unwrap();
    let (edits, _) = PIPELINE.split_once("  scores:").unwrap();
    let yaml = format!("{edits}{BESIDES}")
        .replace("OBJECTIVES", "[memit, emmet]")
        .replace("REQUESTS", "gpt2/requests.json")
        .replace("DATASET", "counterfact")
        .replace("STEPS", "25")
        .replace("GROUPS", &gpt2.json("templates.json").field("memit_emmet").value().to_string())
        .replace("GOLDEN", golden.path().to_str().unwrap());
    let found = facts(&yaml, folder.path(), "besides");
    assert_eq!(found.len(), 4);

    let experiments = gpt2.json("experiments.json").list();
    let before = gpt2.json("eval_before.json");
    let mut compared = 0;
    for (name, facts) in &found {
        let objective = if name.contains("memit") { "memit" } else { "emmet" };
        let id = format!("{objective}_b8_L{}", if name.contains("one") { "0" } else { "0-1-2" });
        let theirs = experiments.iter().find(|experiment| experiment.field("id").text() == id).unwrap();
        let distances = facts["distances"].as_array().unwrap();
        let layers = theirs.field("per_layer");
        assert_eq!(distances.len(), layers.names().len());
        for ours in distances {
            let theirs = layers.field(&ours["weight"]["layer"].to_string());
            // The folder's own tolerances, for targets and keys that are found anew.
            for (name, theirs_name, tolerance) in [
                ("preservation", "preservation_distance", 2e-3),
                ("new_edit", "new_edit_distance", 5e-4),
                ("old_edit", "old_edit_distance", 1e-4),
            ] {
                let theirs = theirs.field(theirs_name).number();
                let ours = ours[name].as_f64().unwrap_or_else(|| panic!("{id} {name}: {ours}"));
                let off = (ours / theirs - 1.0).abs();
                println!("{id} {name}: {ours:.5} against {theirs:.5}, {off:.1e}");
                assert!(off < tolerance, "{id} {name}: {ours} against {theirs}");
                compared += 1;
            }
        }
        let metric = |name: &str| facts["metrics"][name].as_f64().unwrap_or_else(|| panic!("{id} {name}: {facts}"));
        let (theirs, _) = attributes(&before);
        assert!(
            (metric("before_attributes") - theirs).abs() < 1e-6,
            "{} against {theirs}",
            metric("before_attributes")
        );
        let records = format!("{id}.eval_after.json");
        if gpt2.path().join(&records).is_file() {
            let (theirs, open) = attributes(&gpt2.json(&records));
            let ours = metric("attributes");
            assert!((ours - theirs).abs() < open + 1e-6, "{id}: attributes {ours} against {theirs}");
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * (1 + 3) * 3 + 3);
}

const TEXTS: &str = "
name: texts
stages:
  model: { uses: load_model, with: { path: GOLDEN/gpt2/model } }
  facts: { uses: requests, with: { facts: FACTS } }
  besides:
    uses: reference_metrics
    inputs: { model: model, requests: facts }
    with: { sliding: 50, snippets: snippets.json, resamples: 0 }
";

#[test]
fn greedy_texts_perplexity_and_token_entropy() {
    let golden = Folder::given();
    let theirs = golden.folder("gpt2").json("entropy_perplexity_generation.json");
    let texts = theirs.field("texts").texts();
    let text = text(&golden);
    let entropies = theirs.field("adjusted_token_entropy_per_text").list();
    assert!(texts.len() == entropies.len() && texts.len() >= 5);
    for (words, theirs) in texts.iter().zip(&entropies) {
        let ours = token_entropy(&text.encode(words).unwrap());
        assert!((ours - theirs.number()).abs() < 1e-9, "{words}: {ours} against {}", theirs.number());
    }

    // A request whose subject is in its prompt, once for a target that its greedy text has, and once for one that it has not; each of
    // them with a text of its own, whose perplexity is that of its subject.
    let greedy = theirs.field("greedy_50");
    let (prompts, written) = (greedy.field("prompts").texts(), greedy.field("texts").texts());
    let said = |i: usize| written[i].strip_prefix(prompts[i].as_str()).unwrap().to_owned();
    let subjects = ["Danielle Darrieux", "H. gammarus"];
    let words = |i: usize| said(i).split_whitespace().nth(2).unwrap().to_owned();
    let facts_of = |i: usize, target: String| json!({ "subject": subjects[i], "prompt": prompts[i].replacen(subjects[i], "{}", 1), "target_new": target });
    let all = json!([
        facts_of(0, words(0)),
        facts_of(1, words(1)),
        facts_of(0, "Vladivostok".into()),
        facts_of(1, "Vladivostok".into())
    ]);
    let samples: Vec<Value> =
        subjects.iter().zip(&texts).map(|(name, text)| json!({ "name": name, "text": text })).collect();
    let folder = tempfile::tempdir().unwrap();
    let snippets = json!([{ "relation_id": "P1", "target_id": "Q1", "samples": samples }]);
    fs::write(folder.path().join("snippets.json"), snippets.to_string()).unwrap();
    let yaml = TEXTS.replace("FACTS", &all.to_string()).replace("GOLDEN", golden.path().to_str().unwrap());
    let found = facts(&yaml, folder.path(), "besides");
    let [(_, found)] = found.as_slice() else { panic!("one stage") };
    let metric = |name: &str| found["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name}: {found}"));
    assert!((metric("sliding_correct") - 0.5).abs() < 1e-9, "{found}");
    let perplexities = theirs.field("perplexity_first_100_tokens").list();
    let theirs = f64::midpoint(perplexities[0].number(), perplexities[1].number());
    let off = (metric("essence") / theirs - 1.0).abs();
    assert!(off < 1e-4, "{} against {theirs}", metric("essence"));
}
