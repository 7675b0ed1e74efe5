//! `compute: bf16` of the stages that multiply most, through the program.

mod here;

use std::process::Command;

use here::Here;
use serde_json::Value;

const PIPELINE: &str = "\
name: rounded
stages:
  model: { uses: load_model, with: { path: DEMO/model, dtype: DTYPE } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 8 } }
  moments:
    uses: covariance
    inputs: { model: model }
    with: { corpus: DEMO/corpus.txt, layers: [1, 2], samples: 512, COMPUTE }
  targets:
    uses: targets
    inputs: { model: model, requests: edits }
    with: { layer: 2, steps: 20, learning_rate: 0.05, clamp: 2, weight_decay: 0.1, COMPUTE }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan }
    with: { objective: memit, lambda: 100 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits }, with: { resamples: 0, samples: 1, COMPUTE } }
";

/// The pipeline with this parameter at every stage that takes it.
fn pipeline(compute: &str) -> String {
    PIPELINE.replace("DTYPE", "f32").replace(", COMPUTE", compute)
}

/// A stage's key.
fn key(here: &Here, stage: &str) -> String {
    let shown: Value = serde_json::from_str(&here.palinode(0, &["show", stage, "--json"])).unwrap();
    shown["results"][stage]["key"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
}

fn number(facts: &Value, path: &str) -> f64 {
    facts.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {facts}"))
}

#[test]
fn figures_are_close_to_those_in_f32_and_keys_are_others() {
    let here = Here::new();
    here.write("p.yaml", &pipeline(""));
    here.palinode(0, &["run", "p.yaml"]);
    let stages = ["moments", "targets", "update", "scores"];
    let keys = stages.map(|stage| key(&here, stage));
    let plain = stages.map(|stage| here.facts(stage));
    // The usual value says nothing.
    here.write("p.yaml", &pipeline(", compute: f32"));
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(!said.contains("no products in bf16"), "{said}");
    assert_eq!(stages.map(|stage| key(&here, stage)), keys);

    here.write("p.yaml", &pipeline(", compute: bf16"));
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert_eq!(said.contains("this CPU has no products in bf16"), !has_products(), "{said}");
    for (stage, key_before) in stages.iter().zip(&keys) {
        assert_ne!(&key(&here, stage), key_before, "{stage}");
    }
    let rounded = stages.map(|stage| here.facts(stage));
    let near = |stage: usize, path: &str, within: f64| {
        let (a, b) = (number(&plain[stage], path), number(&rounded[stage], path));
        assert!((a - b).abs() <= within * a.abs(), "{} {path}: {a} and {b}", stages[stage]);
    };
    for layer in 0..2 {
        near(0, &format!("/layers/{layer}/trace"), 2e-3);
        near(0, &format!("/layers/{layer}/tokens"), 0.0);
        assert_ne!(plain[0]["layers"][layer]["trace"], rounded[0]["layers"][layer]["trace"]);
    }
    near(1, "/metrics/norm", 2e-2);
    near(1, "/metrics/loss", 5e-2);
    for metric in ["ES", "PS", "before_NS"] {
        near(3, &format!("/metrics/{metric}"), 0.1);
    }
    near(3, "/metrics/EM", 5e-2);
    assert_ne!(plain[3]["metrics"]["EM"], rounded[3]["metrics"]["EM"]);

    // Nothing is computed twice, and the other results are still there.
    let again = here.palinode(0, &["run", "p.yaml"]);
    assert!(again.contains("cached"), "{again}");
    here.write("p.yaml", &pipeline(""));
    here.palinode(0, &["run", "p.yaml"]);
    assert_eq!(stages.map(|stage| key(&here, stage)), keys);
}

/// Whether the system says that the CPU has them.
fn has_products() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    ["avx512_bf16", "avx512bw"].iter().all(|flag| flags.split_whitespace().any(|word| word == *flag))
}

/// Threads never show, streamed blocks never show.
#[test]
fn threads_and_streams_change_no_bit() {
    let contents = |args: &[&str], threads: &str| {
        let here = Here::new();
        here.write("p.yaml", &pipeline(", compute: bf16").replace("samples: 512", "samples: 70"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.env_remove("PALINODE_STORE").env("RAYON_NUM_THREADS", threads).current_dir(&here.0);
        let done = command.args(["run", "p.yaml"]).args(args).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{said}");
        ["moments", "targets", "scores"].map(|stage| {
            let shown: Value = serde_json::from_str(&here.palinode(0, &["show", stage, "--json"])).unwrap();
            let output = shown["results"][stage]["output"].clone();
            assert!(output.is_object(), "{said} {shown}");
            output
        })
    };
    let whole = contents(&[], "2");
    assert_eq!(contents(&[], "1"), whole);
    assert_eq!(contents(&["--blocks", "streamed"], "3"), whole);
}

/// A round's search has the parameters of `targets`, this one too.
#[test]
fn a_sequence_searches_with_it() {
    let here = Here::new();
    let rounds = "\
name: rounds
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 4 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: [2], samples: 512 } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan }
    with: { targets: { layer: 2, steps: 5COMPUTE }, solve: { objective: memit, lambda: 100, batch_size: 2 } }
";
    let norm = |compute: &str| {
        here.write("p.yaml", &rounds.replace("COMPUTE", compute));
        here.palinode(0, &["run", "p.yaml"]);
        number(&here.facts("rounds"), "/metrics/total_norm")
    };
    let (plain, rounded) = (norm(""), norm(", compute: bf16"));
    assert!(plain != rounded && (plain - rounded).abs() < 0.05 * plain, "{plain} {rounded}");
}

#[test]
fn what_cannot_be_asked_for_is_said() {
    let refused = |text: &str, words: &[&str]| {
        let here = Here::new();
        here.write("p.yaml", text);
        let said = here.palinode(3, &["plan", "p.yaml"]);
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
    };
    refused(&pipeline(", compute: bf61"), &["p.yaml:", "bf61", "`f32`", "`bf16`"]);
    let held = PIPELINE.replace("DTYPE", "f16").replace(", COMPUTE", ", compute: bf16");
    let words = "`compute: bf16` rounds weights that are held in f32, and this model's are held in f16";
    refused(&held, &[words, "`dtype: f32` under load_model, or no `compute`"]);
    // A solve's numbers cannot bear it, and it has no such parameter.
    let solve = pipeline("").replace("lambda: 100 }", "lambda: 100, compute: bf16 }");
    refused(&solve, &["p.yaml:17:", "`solve` has no parameter `compute`"]);
}
