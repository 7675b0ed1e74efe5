//! Where two conventions exist, a parameter chooses: each value, through the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = "
name: conventions
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  facts: { uses: load_requests, with: { dataset: zsre, path: zsre.json, zsre_question: QUESTION } }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 2, length: 5 }], start: START } }
  text: { uses: perplexity, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, samples: 3, resamples: 0, per: PER } }
  scores:
    uses: evaluate
    inputs: { model: model, requests: facts }
    with: { generation: { length: 30, words: WORDS }, resamples: 0, samples: 0 }
";

const ZSRE: &str = r#"[{"subject": "Finland", "src": "Where is Finland?", "answers": ["Europe"], "rephrase": "Finland is where?",
    "loc": "nq question: where is Chile", "loc_ans": "America"}]"#;

/// Runs with one choice of each; the digest of what a stage's result holds.
fn content(folder: &TempDir, [question, start, per, words]: [&str; 4], stage: &str) -> String {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let text = PIPELINE.replace("DEMO", demo.to_str().unwrap()).replace("QUESTION", question).replace("START", start);
    fs::write(folder.path().join("p.yaml"), text.replace("PER", per).replace("WORDS", words)).unwrap();
    fs::write(folder.path().join("zsre.json"), ZSRE).unwrap();
    let palinode = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        let output = command.env_remove("PALINODE_STORE").current_dir(folder).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    palinode(&["run", "p.yaml"]);
    let shown: Value = serde_json::from_slice(&palinode(&["show", stage, "--json"])).unwrap();
    shown["results"][stage]["content"].as_str().unwrap().to_owned()
}

#[test]
fn each_convention_can_be_chosen() {
    let folder = TempDir::new().unwrap();
    let first = ["as_written", "words", "token", "treebank"];
    let second = ["bare", "end_of_text", "prediction", "whitespace"];
    for stage in ["facts", "contexts", "text", "scores"] {
        let [one, other] = [first, second].map(|choice| content(&folder, choice, stage));
        assert_ne!(one, other, "{stage}");
        assert_eq!(one, content(&folder, first, stage), "{stage}");
    }
    // Of the scores, the words alone make a difference too.
    let words = [first[0], first[1], first[2], second[3]];
    assert_ne!(content(&folder, first, "scores"), content(&folder, words, "scores"));
}
