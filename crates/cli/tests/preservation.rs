//! Edits without second moments, through the program: asked for, they need none; forgotten ones stay a mistake.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = r#"
name: ridge
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: rial, target_true: peso }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 2, steps: 8 } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, targets: targets, plan: plan }
    with: { objective: memit, lambda: 0.1, preservation: ridge }
  rounds:
    uses: sequence
    inputs: { model: model, requests: facts, plan: plan }
    with: { targets: { layer: 2, steps: 8 }, solve: { objective: emmet, preservation: ridge, batch_size: 1 } }
  scores: { uses: evaluate, inputs: { model: update, requests: facts } }
  later: { uses: evaluate, inputs: { model: rounds, requests: facts } }
"#;

fn palinode(folder: &TempDir, command: &str, text: &str) -> Output {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    std::fs::write(folder.path().join("p.yaml"), text.replace("MODEL", model.to_str().unwrap())).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
    program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder);
    program.args([command, "p.yaml"]).output().unwrap()
}

#[test]
fn a_ridge_needs_no_second_moments() {
    let folder = TempDir::new().unwrap();
    let output = palinode(&folder, "run", PIPELINE);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = std::fs::read_dir(folder.path().join(".palinode/runs")).unwrap().next().unwrap().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(run.path().join("run.json")).unwrap()).unwrap();
    let stages = record["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 8);
    assert!(stages.iter().all(|stage| stage["content"].is_string()), "{record}");
}

#[test]
fn forgotten_second_moments_are_a_mistake_that_names_both_ways() {
    let folder = TempDir::new().unwrap();
    let output = palinode(&folder, "validate", &PIPELINE.replace(", preservation: ridge", ""));
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8_lossy(&output.stderr);
    for stage in ["solve", "sequence"] {
        assert!(told.contains(&format!("`{stage}` needs the input `moments`")), "{told}");
    }
    let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("yields `moments` or `factors`") && words.contains("`preservation: ridge`"), "{told}");
}

const METHODS: &str = r#"
name: methods
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: rial, target_true: peso }
        - { subject: Peru, prompt: "{} is located in the continent of", target_new: Asia, target_true: Europe }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: CORPUS, layers: [1, 2], samples: 300 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: facts, moments: moments, plan: plan }
    with: { targets: { layer: 2, steps: 8 }, solve: { objective: memit, batch_size: 1, PRESERVATION } }
  spread: { uses: sphere, inputs: { update: rounds } }
  damped: { uses: prune, inputs: { update: spread } }
  guarded: { uses: revive, inputs: { update: damped }, with: { rank: 4 } }
  scores: { uses: evaluate, inputs: { model: rounds, requests: facts }, with: { every: 1, by_age: true } }
  treated: { uses: evaluate, inputs: { model: guarded, requests: facts } }
"#;

fn methods(preservation: &str) -> String {
    let corpus =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/corpus.txt").canonicalize().unwrap();
    METHODS.replace("CORPUS", corpus.to_str().unwrap()).replace("PRESERVATION", preservation)
}

/// The contents of a stage's result, by the record of the latest run.
fn contents(folder: &TempDir, stage: &str) -> Value {
    let runs = std::fs::read_dir(folder.path().join(".palinode/runs")).unwrap();
    let latest =
        runs.map(|run| run.unwrap().path()).max_by_key(|run| run.metadata().unwrap().modified().unwrap()).unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(latest.join("run.json")).unwrap()).unwrap();
    let stages = record["stages"].as_array().unwrap();
    stages.iter().find(|it| it["instance"] == stage).unwrap_or_else(|| panic!("{record}"))["content"].clone()
}

#[test]
fn methods_are_values_of_preservation() {
    let folder = TempDir::new().unwrap();
    let mut made = Vec::new();
    for preservation in [
        "lambda: 10",
        "lambda: 10, history: 1",
        "preset: memit_seq, lambda: 10",
        "preset: encore",
        "preset: alphaedit, update_norm_lambda: 0.1, projector: { dimensions: 0.8 }",
        "lambda: 0, update_norm_lambda: 0.1, history: 1, projector: { dimensions: 0.8 }",
        "preservation: ridge, lambda: 0.1, history: 2",
        "lambda: 10, projector: { trace: 0.1 }",
    ] {
        let output = palinode(&folder, "run", &methods(preservation));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{preservation}: {told}");
        made.push(contents(&folder, "rounds"));
    }
    // A preset is its values, and everything else makes another edit.
    assert_eq!(made[1], made[2]);
    assert_eq!(made[4], made[5]);
    for (a, b) in [(0, 1), (1, 3), (3, 4), (5, 6), (6, 7)] {
        assert_ne!(made[a], made[b], "{a} {b}");
    }
}

#[test]
fn wrong_values_of_preservation_are_named() {
    let folder = TempDir::new().unwrap();
    for (preservation, expected) in [
        ("lambda: 0", "0 with a `projector`"),
        ("preset: alphaedlt", "alphaedit"),
        ("history: -1", "0 or above"),
        ("projector: {}", "exactly one of `threshold`, `trace` and `dimensions`"),
        ("projector: { trace: 0.1, dimensions: 0.5 }", "exactly one of"),
        ("projector: { trace: 1.5 }", "at most 1"),
        ("lambda: 0, projector: { trace: 0.5 }", "update_norm_lambda"),
        ("preservation: ridge, projector: { trace: 0.5 }", "no direction is used less"),
    ] {
        let output = palinode(&folder, "validate", &methods(preservation));
        let told = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(3), "{preservation}: {told}");
        assert!(told.contains(expected) && told.contains("p.yaml:17"), "{preservation}: {told}");
    }
    let solve = PIPELINE.replace("objective: memit, lambda: 0.1", "objective: memit, history: 1, lambda: 0.1");
    let output = palinode(&folder, "validate", &solve);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && told.contains("no earlier rounds"), "{told}");
    let wrong = methods("lambda: 10")
        .replace("rank: 4", "rank: -1")
        .replace("inputs: { update: rounds } }", "inputs: { update: rounds }, with: { alpha: 2 } }");
    let output = palinode(&folder, "validate", &wrong);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && told.contains("rank") && told.contains("alpha"), "{told}");
}
