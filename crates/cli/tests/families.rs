//! The program on models of many families: edited, exported, read again; and what is refused by name.

mod here;

use std::fs;

use here::{done, fixture, next, palinode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One of each place that a projection's output may go to: the hidden state, a multiplier, a norm.
#[test]
fn an_edit_of_every_kind_of_block_is_exported_and_read_again() {
    for name in ["gemma2-tiny", "olmo2-tiny", "granite-tiny", "phi3-tiny", "opt-tiny", "falcon-tiny"] {
        let folder = TempDir::new().unwrap();
        let model = fixture(name);
        let fact = ["--subject", "The tall tower", "--prompt", "{} stands in", "--target", "Parma"];
        let how = ["--moments", "none", "--layer", "1", "--json", "--output", "out"];
        let told = done(&folder, &[&["edit", model.to_str().unwrap()], &fact[..], &how[..]].concat());
        let told: Value = serde_json::from_str(&told).unwrap();
        let edited = next(&told["answers"][0]["after"]);
        assert_ne!(next(&told["answers"][0]["before"]), edited, "{name}");
        let ask = |model: &str| {
            let said = done(&folder, &["ask", model, "The tall tower stands in", "--json"]);
            next(&serde_json::from_str::<Value>(&said).unwrap()[0]["before"])
        };
        // The model is stored in f16, which rounds an edit.
        for ((token, p), (other, q)) in ask("out").iter().zip(&edited) {
            assert!(token == other && (p - q).abs() < 2e-3, "{name}: {token} {p}, {other} {q}");
        }
    }
}

/// What is missing at one layer is not brought to another one through a norm; it is said before anything is computed.
#[test]
fn a_residual_is_not_passed_on_behind_norms() {
    let folder = TempDir::new().unwrap();
    let pipeline = |model: &str, strategy: &str| {
        let text = format!(
            r#"
name: passed-on
stages:
  model: {{ uses: load_model, with: {{ path: "{}" }} }}
  fact: {{ uses: requests, with: {{ facts: [{{ prompt: "{{}} stands in", subject: "The tall tower", target_new: "Parma" }}] }} }}
  plan: {{ uses: distribute, inputs: {{ model: model }}, with: {{ layers: [0, 1], strategy: {strategy} }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: fact }}, with: {{ layer: {}, steps: 3 }} }}
  edited: {{ uses: solve, inputs: {{ model: model, requests: fact, targets: targets, plan: plan }}, with: {{ objective: memit, preservation: ridge, update_norm_lambda: 1 }} }}
"#,
            fixture(model).display(),
            i32::from(strategy != "forward"),
        );
        fs::write(folder.path().join("p.yaml"), text).unwrap();
        palinode(&folder, &["run", "p.yaml"])
    };
    let (code, said, problems) = pipeline("gemma2-tiny", "memit");
    assert!(code == 3, "{code} {said} {problems}");
    assert!(problems.contains("Gemma 2 has a norm behind every feed-forward"), "{problems}");
    assert!(problems.contains("strategy: single"), "{problems}");
    for (model, strategy) in [("gemma2-tiny", "single"), ("gemma2-tiny", "forward"), ("granite-tiny", "memit")] {
        let (code, said, problems) = pipeline(model, strategy);
        assert_eq!(code, 0, "{model} {strategy}: {said}{problems}");
    }
}

#[test]
fn what_is_not_read_is_named() {
    let folder = TempDir::new().unwrap();
    let config: Value = serde_json::from_slice(&fs::read(fixture("gemma2-tiny").join("config.json")).unwrap()).unwrap();
    let refused = |change: Value| {
        let mut config = config.clone();
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let (code, _, problems) = palinode(&folder, &["model", "inspect", "."]);
        assert_eq!(code, 4, "{problems}");
        problems.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for family in ["gpt_oss", "granitemoe", "deepseek_v3"] {
        let said = refused(json!({ "model_type": family }));
        assert!(
            said.contains(&format!("model_type \"{family}\" is not supported: it is a mixture of experts")),
            "{said}"
        );
    }
    let said = refused(json!({ "model_type": "gpt_oss" }));
    assert!(said.contains("attention sinks and weights in MXFP4"), "{said}");
    for family in ["gemma3", "mistral3"] {
        let said = refused(json!({ "model_type": family }));
        assert!(said.contains("a model of texts and images"), "{said}");
    }
    let said = refused(json!({ "model_type": "llama" }));
    assert!(said.contains("attn_logit_softcapping = 2.0 is not supported"), "{said}");
    let said = refused(json!({ "use_bidirectional_attention": true }));
    assert!(said.contains("use_bidirectional_attention = true is not supported"), "{said}");
}
