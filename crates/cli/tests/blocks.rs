//! `palinode run --blocks`: a model whose blocks are read when they are needed gives what one in memory gives.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// All that walks through a model: context templates, second moments, targets, two edited layers, scores with texts, perplexity, an export.
const PIPELINE: &str = r#"
name: blocks
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: rial, target_true: peso }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 2, length: 5 }], seed: 1 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: CORPUS, layers: [1, 2], samples: 600 } }
  targets:
    uses: targets
    inputs: { model: model, requests: facts, templates: contexts }
    with: { layer: 2, steps: 4 }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: emmet, lambda: 100, emmet_lambda: 0.1 }
  scores: { uses: evaluate, inputs: { model: update, requests: facts }, with: { samples: 1 } }
  text: { uses: perplexity, inputs: { model: update }, with: { corpus: CORPUS, samples: 20 } }
  out: { uses: export, inputs: { model: update }, with: { path: OUT } }
"#;

/// Digests of all results of a run with these options, in a store of its own.
fn contents(folder: &TempDir, name: &str, options: &[&str]) -> BTreeMap<String, String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let text = PIPELINE
        .replace("MODEL", examples.join("model").to_str().unwrap())
        .replace("CORPUS", examples.join("corpus.txt").to_str().unwrap())
        .replace("OUT", &format!("out-{name}"));
    let file = folder.path().join(format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder);
    command.arg("run").arg(&file).args(["--store", name, "--quiet"]).args(options);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = std::fs::read_dir(folder.path().join(name).join("runs")).unwrap().next().unwrap().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(run.path().join("run.json")).unwrap()).unwrap();
    let stages = record["stages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    // An export says where it was written to; its files are compared by themselves.
    let stages = stages.filter(|it| it["instance"] != "out");
    stages.map(|it| (text(&it["instance"]), text(&it["content"]))).collect()
}

#[test]
fn streamed_blocks_change_no_bit() {
    let folder = TempDir::new().unwrap();
    let resident = contents(&folder, "resident", &["--blocks", "resident"]);
    assert_eq!(resident.len(), 9);
    assert_eq!(contents(&folder, "streamed", &["--blocks", "streamed"]), resident);
    // Workers are told of it too.
    assert_eq!(contents(&folder, "apart", &["--blocks", "streamed", "--isolate"]), resident);
    let weights = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert!(weights("out-resident") == weights("out-streamed"));
}
