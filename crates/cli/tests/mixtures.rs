//! The program on mixtures of experts.

mod here;

use std::fs;

use here::{done, fixture, next, palinode};
use serde_json::Value;
use tempfile::TempDir;

const MIXTURES: [&str; 4] = ["mixtral-tiny", "qwen2_moe-tiny", "qwen3_moe-tiny", "olmoe-tiny"];
const FACT: [&str; 6] = ["--subject", "The tall tower", "--prompt", "{} stands in", "--target", "Parma"];

fn path(name: &str) -> String {
    fixture(name).display().to_string()
}

/// One line, whatever its breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn mixtures_are_looked_at_asked_and_judged() {
    let folder = TempDir::new().unwrap();
    let shown = [
        "4 of 12 dimensions in each layer, of which a token uses 2",
        "4 of 8 dimensions in 2 of 3 layers, of which a token uses 2, and one of 12 that all tokens use",
        "6 of 8 dimensions in each layer, of which a token uses 2",
        "4 of 12 dimensions in each layer, of which a token uses 3",
    ];
    for (name, shown) in MIXTURES.into_iter().zip(shown) {
        let page = done(&folder, &["model", "inspect", &path(name)]);
        assert!(page.contains(shown), "{name}: {page}");
        let edited = name.starts_with("qwen2_moe");
        assert_eq!(page.contains("covariance") && page.contains("solve"), edited, "{name}: {page}");
        assert_eq!(page.contains("which Palinode does not edit"), !edited, "{name}: {page}");
        let told = done(&folder, &["ask", &path(name), "The tall tower stands in", "--json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let sum: f64 = next(&told[0]["before"]).iter().map(|(_, p)| p).sum();
        assert!(sum > 0.0 && sum <= 1.0 + 1e-6, "{name}: {told}");
        let pipeline = format!(
            r#"
name: judged
stages:
  model: {{ uses: load_model, with: {{ path: "{}" }} }}
  fact: {{ uses: requests, with: {{ facts: [{{ prompt: "{{}} stands in", subject: "The tall tower", target_new: "Parma", target_true: "Rome" }}] }} }}
  contexts: {{ uses: templates, inputs: {{ model: model }}, with: {{ generate: [{{ count: 2, length: 6 }}], seed: 1 }} }}
  scores: {{ uses: evaluate, inputs: {{ model: model, requests: fact }}, with: {{ samples: 1 }} }}
"#,
            path(name)
        );
        fs::write(folder.path().join("judged.yaml"), pipeline).unwrap();
        done(&folder, &["run", "judged.yaml"]);
    }
}

/// What would change or measure a mixture says that it does not, before anything is computed.
#[test]
fn what_does_not_take_a_mixture_says_so() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("texts.txt"), "The tall tower stands in Rome.\n").unwrap();
    let stages = [
        ("covariance", "{ model: model }", "{ corpus: texts.txt, layers: [1], samples: 1 }", "`covariance`"),
        ("finetune", "{ model: model, requests: fact }", "{ layer: 1 }", "`finetune`"),
        ("ultraedit", "{ model: model, requests: fact }", "{ layers: [1] }", "`ultraedit`"),
        ("locate", "{ model: model, requests: fact }", "{}", "`locate`"),
    ];
    for (stage, inputs, with, what) in stages {
        let pipeline = format!(
            r#"
name: refused
stages:
  model: {{ uses: load_model, with: {{ path: "{}" }} }}
  fact: {{ uses: requests, with: {{ facts: [{{ prompt: "{{}} stands in", subject: "The tall tower", target_new: "Parma" }}] }} }}
  it: {{ uses: {stage}, inputs: {inputs}, with: {with} }}
"#,
            path("mixtral-tiny")
        );
        fs::write(folder.path().join("refused.yaml"), pipeline).unwrap();
        let (code, said, problems) = palinode(&folder, &["run", "refused.yaml"]);
        assert_eq!(code, 3, "{stage}: {said}{problems}");
        let wanted = format!("of Mixtral is a mixture of 4 experts, which {what} does not take");
        assert!(flat(&problems).contains(&wanted), "{stage}: {problems}");
    }
    let how = ["edit", &path("mixtral-tiny"), "--moments", "none", "--layer", "1"];
    let (code, said, problems) = palinode(&folder, &[&how[..], &FACT].concat());
    assert_eq!(code, 2, "{said}{problems}");
    assert!(
        flat(&problems).contains("layer 1 of Mixtral is a mixture of 4 experts, which an edit does not take"),
        "{problems}"
    );
}

/// A layer with one feed-forward is edited as in any other model.
#[test]
fn a_dense_layer_of_a_mixture_is_edited() {
    let folder = TempDir::new().unwrap();
    let model = path("qwen2_moe-tiny");
    let how = ["edit", &model, "--moments", "none", "--layer", "2", "--json", "--output", "out"];
    let told: Value = serde_json::from_str(&done(&folder, &[&how[..], &FACT].concat())).unwrap();
    let edited = next(&told["answers"][0]["after"]);
    assert_ne!(next(&told["answers"][0]["before"]), edited);
    let said = done(&folder, &["ask", "out", "The tall tower stands in", "--json"]);
    let read = next(&serde_json::from_str::<Value>(&said).unwrap()[0]["before"]);
    for ((token, p), (other, q)) in read.iter().zip(&edited) {
        assert!(token == other && (p - q).abs() < 2e-3, "{token} {p}, {other} {q}");
    }
    let layer = |layer: &str| {
        let how = ["edit", &model, "--moments", "none", "--layer", layer];
        palinode(&folder, &[&how[..], &FACT].concat())
    };
    let (code, _, problems) = layer("1");
    assert!(code == 2 && flat(&problems).contains("expected a layer with one feed-forward: 2"), "{code} {problems}");
}
