//! What an edit does beside what it should: perplexity, tasks, and EasyEdit's questions.

mod common;

use common::{Bench, artifact};
use palinode_engine::Outcome;
use serde_json::{Value, json};

const EDITED: &str = "
name: measures
stages:
  model: { uses: load_model, with: { path: gpt2 } }
  edits: { uses: load_requests, with: { dataset: jsonl, path: requests.jsonl } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1] } }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
";

const BATCHES: &str = "
  targets: { uses: targets, inputs: { model: model, requests: edits }, with: { layer: 1, steps: 4 } }
  edited:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan }
    with: { objective: memit, lambda: 10, batch_size: 2 }
";

const ROUNDS: &str = "
  edited:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan }
    with: { targets: { layer: 1, steps: 4 }, solve: { objective: memit, lambda: 10, batch_size: 1 } }
";

const TASK: &str = r#"{"sentence": "the river was old", "mood": 0}
{"sentence": "the poet was young", "mood": 1}
{"sentence": "the tower was old", "mood": 0}
{"sentence": "the lake was young", "mood": 1}
{"sentence": "the sea was old", "mood": 0}
{"sentence": "the city was young", "mood": 1}
"#;

#[test]
fn perplexity_is_told_before_and_after_and_between() {
    let bench = Bench::new();
    let measure = "
  text: { uses: perplexity, inputs: { model: edited }, with: { corpus: corpus.txt, samples: 9, length: 8, EVERY } }
  bare: { uses: perplexity, inputs: { model: model }, with: { corpus: corpus.txt, samples: 9, length: 8 } }
";
    let yaml = [EDITED, BATCHES, &measure.replace(", EVERY", "")].concat();
    let report = bench.run(&yaml);
    let (edited, bare) = (artifact(&report, "text").meta.clone(), artifact(&report, "bare").meta.clone());
    assert_eq!(edited["metrics"]["before_perplexity"], bare["metrics"]["perplexity"]);
    assert_ne!(edited["metrics"]["perplexity"], bare["metrics"]["perplexity"]);
    assert_eq!((&edited["documents"], &edited["tokens"]), (&json!(9), &bare["tokens"]));
    let range = edited["intervals"]["perplexity"].as_array().unwrap();
    let value = edited["metrics"]["perplexity"].as_f64().unwrap();
    assert!(range[0].as_f64().unwrap() <= value && value <= range[1].as_f64().unwrap(), "{range:?} {value}");
    assert_eq!(edited["columns"][0]["better"], "min");

    let yaml = [EDITED, ROUNDS, &measure.replace("EVERY", "every: 2")].concat();
    let edited = artifact(&bench.run(&yaml), "text").meta.clone();
    let rounds = edited["series"]["rows"].as_array().unwrap();
    let numbers: Vec<&Value> = rounds.iter().map(|row| &row["edits"]).collect();
    assert_eq!(numbers, [2, 4]);
    // The last round is the model as it is.
    assert_eq!(rounds[1]["perplexity"], edited["metrics"]["perplexity"]);
}

#[test]
fn a_task_is_asked_before_and_after() {
    let bench = Bench::new();
    std::fs::write(bench.path("task.jsonl"), TASK).unwrap();
    let ask = r#"
  task:
    uses: probes
    inputs: { model: edited }
    with: { path: task.jsonl, prompt: "{sentence} and so it is", label: mood, words: { 0: old, 1: young }, shots: 1 }
"#;
    let yaml = [EDITED, BATCHES, ask].concat();
    let report = bench.run(&yaml);
    let task = artifact(&report, "task").meta.clone();
    assert_eq!(task["questions"], 4);
    for name in ["accuracy", "F1", "correlation", "before_accuracy"] {
        assert!(task["metrics"][name].is_number(), "{name}: {task}");
    }
    let answers = std::fs::read_to_string(bench.blob(artifact(&report, "task"), "answers.jsonl")).unwrap();
    let lines: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let right = lines.iter().filter(|line| line["before"] == line["right"]).count();
    assert_eq!(task["metrics"]["before_accuracy"].as_f64().unwrap(), right as f64 / 4.0);
    // Two batches, each an edit of its own.
    assert_eq!(lines[0]["after"].as_array().unwrap().len(), 2);
}

#[test]
fn mistakes_in_tasks_are_told() {
    let bench = Bench::new();
    std::fs::write(bench.path("task.jsonl"), TASK).unwrap();
    let say = |with: &str| {
        let yaml = format!(
            "name: x\nstages:\n  model: {{ uses: load_model, with: {{ path: gpt2 }} }}\n  task: {{ uses: probes, inputs: {{ model: model }}, with: {{ path: task.jsonl, {with} }} }}\n"
        );
        match bench.load(&yaml) {
            Err(mistakes) => mistakes.to_string(),
            Ok(_) => match &bench.run(&yaml).stages[1].outcome {
                Outcome::Failed { message, .. } => message.clone(),
                other => panic!("{with}: {other:?}"),
            },
        }
    };
    for (with, told) in [
        ("prompt: 'no field'", "the same for all records"),
        ("prompt: '{sentence'", "never closed"),
        ("prompt: '{text}', label: mood", "missing field `text`"),
        ("prompt: '{sentence}'", "missing field `label`"),
        ("prompt: '{sentence}', label: mood, words: { 0: old, 2: young }", "\"1\""),
        ("prompt: '{sentence}', label: mood, shots: 3", "none is left"),
        ("prompt: '{sentence}', label: mood, limit: 0", "`limit` is 0"),
    ] {
        let found = say(with);
        assert!(found.contains(told), "{with}: {found}");
    }
}

#[test]
fn easyedits_questions_have_their_own_metrics() {
    let bench = Bench::new();
    let requests = r#"[{"subject": "The tall tower", "prompt": "The tall tower stands in", "target_new": "Rome", "ground_truth": ["Paris"],
        "rephrase": "You can visit The tall tower in",
        "portability": {"Reasoning": [{"prompt": "The land of The tall tower is", "ground_truth": [["Italy", "the Italian Republic"]]}]},
        "locality": {"Relation_Specificity": [{"prompt": "The tall tower is", "ground_truth": "high"}]}},
        {"subject": "A young poet", "prompt": "A young poet wrote in", "target_new": "Latin"}]"#;
    std::fs::write(bench.path("knowedit.json"), requests).unwrap();
    let score = "
  scores: { uses: evaluate, inputs: { model: edited, requests: edits }, with: { generation: { length: 16 } } }
  both: { uses: evaluate, inputs: { model: edited, requests: edits }, with: { metrics: [counterfact, easyedit] } }
";
    let yaml = [EDITED, BATCHES, score]
        .concat()
        .replace("dataset: jsonl, path: requests.jsonl", "dataset: knowedit, path: knowedit.json");
    let report = bench.run(&yaml);
    let metrics = artifact(&report, "scores").meta["metrics"].clone();
    for name in
        ["reliability", "generalization", "portability", "locality", "fluency", "before_portability", "before_fluency"]
    {
        assert!(metrics[name].is_number(), "{name}: {metrics}");
    }
    assert!(metrics["ES"].is_null() && metrics["GE"].is_null() && metrics["before_locality"].is_null(), "{metrics}");
    let both = artifact(&report, "both").meta["metrics"].clone();
    assert!(both["ES"].is_number() && both["locality"] == metrics["locality"], "{both}");
}

#[test]
fn what_is_written_is_compared_with_references() {
    let bench = Bench::new();
    let requests = r#"{"subject": "The tall tower", "prompt": "{} stands in", "target_new": "Rome", "target_true": "Paris", "references": ["the tower in Rome by the sea and the river", "many years ago"]}
{"subject": "A young poet", "prompt": "{} wrote in", "target_new": "Latin"}
"#;
    std::fs::write(bench.path("requests.jsonl"), requests).unwrap();
    let score = "
  scores: { uses: evaluate, inputs: { model: edited, requests: edits }, with: { generation: { length: 24 } } }
";
    let yaml = [EDITED, BATCHES, score].concat();
    let report = bench.run(&yaml);
    let scores = artifact(&report, "scores").meta.clone();
    let value = scores["metrics"]["RS"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&value) && scores["metrics"]["GE"].is_number(), "{scores}");
}
