//! `palinode run --blocks`: a model whose blocks are read when they are needed gives what one in memory gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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

/// As [`PIPELINE`], with more requests than a batch has, for models that know a few words.
const SMALL: &str = r#"
name: small
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts: { uses: requests, with: { facts: [FACTS] } }
  contexts: { uses: templates, with: { groups: [["{}"], ["a b. {}"]] } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: CORPUS, layers: [0, 1], samples: 40 } }
  targets: { uses: targets, inputs: { model: model, requests: facts, templates: contexts }, with: { layer: 0, steps: 4 } }
  plan: { uses: distribute, with: { strategy: single, layers: [0] } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: memit, lambda: 1, update_norm_lambda: 1 }
  scores: { uses: evaluate, inputs: { model: update, requests: facts } }
  text: { uses: perplexity, inputs: { model: update }, with: { corpus: CORPUS, samples: 20 } }
  answers: { uses: ask, inputs: { model: update }, with: { prompts: ["a b c", "d e"], tokens: 5 } }
  out: { uses: export, inputs: { model: update }, with: { path: OUT } }
"#;

/// Digests of all results of a run with these options, in a store of its own.
fn contents(folder: &TempDir, name: &str, options: &[&str]) -> BTreeMap<String, String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    run(folder, PIPELINE, [&examples.join("model"), &examples.join("corpus.txt")], name, options).0
}

/// The same of a pipeline with a model and a corpus, and what was said.
fn run(
    folder: &TempDir,
    pipeline: &str,
    [model, corpus]: [&PathBuf; 2],
    name: &str,
    options: &[&str],
) -> (BTreeMap<String, String>, String) {
    let text = pipeline
        .replace("MODEL", model.to_str().unwrap())
        .replace("CORPUS", corpus.to_str().unwrap())
        .replace("OUT", &format!("out-{name}"));
    let file = folder.path().join(format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder);
    command.arg("run").arg(&file).args(["--store", name]).args(options);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = std::fs::read_dir(folder.path().join(name).join("runs")).unwrap().next().unwrap().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(run.path().join("run.json")).unwrap()).unwrap();
    let stages = record["stages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    // An export says where it was written to; its files are compared by themselves.
    let stages = stages.filter(|it| it["instance"] != "out");
    let contents = stages.map(|it| (text(&it["instance"]), text(&it["content"]))).collect();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    (contents, said.split_whitespace().collect::<Vec<_>>().join(" "))
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

/// Weights of any stored type are widened block by block to the numbers that they are widened to as a whole.
#[test]
fn however_weights_are_stored() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").canonicalize().unwrap();
    let words = |i: usize| {
        let some = "a b c d e f g h i j k l m".split(' ').cycle().skip(i).step_by(1 + i % 5).take(20);
        some.collect::<Vec<_>>().join(" ")
    };
    let fact = |i: usize| {
        let letter = |i: usize| char::from(b'a' + (i % 13) as u8);
        let (subject, target) = (format!("{} {}", letter(i), letter(i + 5)), letter(i + 3));
        format!(r#"{{ subject: "{subject}", prompt: "{{}} c", target_new: "{target}" }}"#)
    };
    let pipeline = SMALL.replace("FACTS", &(0..11).map(fact).collect::<Vec<_>>().join(", "));
    for model in ["llama3-tiny", "qwen3-tiny", "olmo2-tiny", "gguf/types.gguf", "gguf/llama2-tiny.gguf"] {
        let folder = TempDir::new().unwrap();
        let corpus = folder.path().join("corpus.txt");
        std::fs::write(&corpus, (0..40).map(words).collect::<Vec<_>>().join("\n")).unwrap();
        let run =
            |name: &str, options: &[&str]| run(&folder, &pipeline, [&fixtures.join(model), &corpus], name, options);
        let (resident, said) = run("resident", &[]);
        assert!(!said.contains("blocks"), "{model}: {said}");
        let (streamed, said) = run("streamed", &["--blocks", "streamed"]);
        assert_eq!(streamed, resident, "{model}");
        assert_eq!(streamed.len(), 10);
        // What that is good for, and what it costs.
        assert!(said.contains("model: blocks are streamed: weights take"), "{model}: {said}");
        assert!(said.contains("targets: ") && said.contains("blocks were read: "), "{model}: {said}");
        let weights = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
        assert!(weights("out-resident") == weights("out-streamed"), "{model}");
    }
}
