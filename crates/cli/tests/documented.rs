//! Documented parameters that no other test of the program reaches: chat templates in a file of their own, chats in requests and probes, a cap on
//! documents, doubts in the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap()
}

/// Exit code and what was said.
fn palinode(folder: &TempDir, args: &[&str]) -> (Option<i32>, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
    program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder);
    let output = program.args(args).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), said)
}

fn run(folder: &TempDir, pipeline: &str) -> String {
    fs::write(folder.path().join("p.yaml"), pipeline.replace("DEMO", demo().to_str().unwrap())).unwrap();
    let (code, said) = palinode(folder, &["run", "p.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    said
}

/// The demo model with a chat template in a file of its own, as newer versions of transformers write it.
fn chat_model(folder: &TempDir) -> PathBuf {
    let model = folder.path().join("chat-model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(demo().join("model")).unwrap() {
        let from = entry.unwrap().path();
        std::os::unix::fs::symlink(&from, model.join(from.file_name().unwrap())).unwrap();
    }
    let template =
        "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}The answer is{% endif %}";
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    model
}

#[test]
fn a_chat_template_in_a_file_of_its_own_is_used_and_part_of_the_key() {
    let folder = TempDir::new().unwrap();
    let (code, said) = palinode(&folder, &["ask", demo().join("model").to_str().unwrap(), "Chile", "--chat"]);
    assert!(code == Some(4) && said.contains("chat template"), "{code:?} {said}");
    let model = chat_model(&folder);
    let ask = ["ask", "chat-model", "The currency of Colombia is the", "--chat", "--tokens", "5", "--json"];
    let (code, chat) = palinode(&folder, &ask);
    assert_eq!(code, Some(0), "{chat}");
    let (_, plain) = palinode(&folder, &[&ask[..3], &ask[4..]].concat());
    assert_ne!(chat, plain);
    fs::write(model.join("chat_template.jinja"), "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let (_, other) = palinode(&folder, &ask);
    assert_ne!(chat, other, "another template is another answer");
}

#[test]
fn requests_and_probes_of_a_chat() {
    let folder = TempDir::new().unwrap();
    chat_model(&folder);
    fs::write(folder.path().join("facts.jsonl"), "{\"subject\": \"Chile\", \"prompt\": \"The language of {} is\", \"target_new\": \"Thai\", \"target_true\": \"Spanish\"}\n").unwrap();
    run(
        &folder,
        "
name: chats
matrix: { chat: [~, {}] }
stages:
  model: { uses: load_model, with: { path: chat-model } }
  facts: { uses: load_requests, with: { path: facts.jsonl, dataset: jsonl, chat: '${matrix.chat}' } }
  scores: { uses: evaluate, inputs: { model: model, requests: facts }, with: { resamples: 0, samples: 0 } }
  task:
    uses: probes
    inputs: { model: model }
    with: { path: DEMO/task.jsonl, prompt: '{place} lies in', label: continent, limit: 6, chat: '${matrix.chat}' }
",
    );
    let (code, text) = palinode(&folder, &["show", "latest", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let record: Value = serde_json::from_str(&text).unwrap();
    let stages = record["run"]["stages"].as_array().unwrap();
    for name in ["facts", "scores", "task"] {
        let found: Vec<&Value> =
            stages.iter().filter(|stage| stage["stage"] == name).map(|stage| &stage["content"]).collect();
        assert!(found.len() == 2 && found[0] != found[1], "{name}: {found:?}");
    }
}

#[test]
fn documents_have_a_cap() {
    let folder = TempDir::new().unwrap();
    let tokens = |cap: &str| {
        run(
            &folder,
            &format!(
                "
name: cap
stages:
  model: {{ uses: load_model, with: {{ path: DEMO/model }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: DEMO/corpus.txt, layers: [1], samples: 200{cap} }} }}
"
            ),
        );
        let shown: Value = serde_json::from_str(&palinode(&folder, &["show", "moments", "--json"]).1).unwrap();
        shown["results"]["moments"]["output"]["meta"]["tokens"].as_u64().unwrap()
    };
    let (all, five) = (tokens(""), tokens(", document_tokens: 5"));
    assert!(five < all && five <= 1000, "{five} {all}");
}

#[test]
fn the_report_has_the_doubts() {
    let folder = TempDir::new().unwrap();
    let said = run(
        &folder,
        "
name: doubtful
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  facts: { uses: load_requests, with: { path: DEMO/requests.json, limit: 4 } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 2, steps: 20 } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, targets: targets, plan: plan }
    with: { objective: emmet, preservation: ridge }
  scores: { uses: evaluate, inputs: { model: update, requests: facts }, with: { resamples: 0, doubt: { relative_norm: 0.001 } } }
",
    );
    assert!(said.contains("the edit changed the weight by"), "{said}");
    let (code, said) = palinode(&folder, &["report", "--output", "r.html"]);
    assert_eq!(code, Some(0), "{said}");
    let page = fs::read_to_string(folder.path().join("r.html")).unwrap();
    assert!(page.contains("Doubts") && page.contains("the edit changed the weight by"));
}
