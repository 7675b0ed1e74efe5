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
