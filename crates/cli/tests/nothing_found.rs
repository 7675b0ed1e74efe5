//! Settings at the ends of what a number can be, through the program: what comes of nothing is said, and never an edit of nothing.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const PIPELINE: &str = r#"
name: ends
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: rial, target_true: peso }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 1, steps: 8TARGETS } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, targets: targets, plan: plan }
    with: { objective: emmet, preservation: ridgeSOLVE }
"#;

/// Exit code and what was said.
fn run(targets: &str, solve: &str) -> (Option<i32>, String) {
    run_text(&PIPELINE.replace("TARGETS", targets).replace("SOLVE", solve))
}

fn run_text(pipeline: &str) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let text = pipeline.replace("MODEL", model.to_str().unwrap());
    std::fs::write(folder.path().join("p.yaml"), text).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
    program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&folder);
    let output = program.args(["run", "p.yaml"]).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), said)
}

/// Line breaks of the terminal are no part of what is said.
fn plain(said: &str) -> String {
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_search_that_finds_nothing_is_said() {
    for learning_rate in ["1e20", "1e300"] {
        let (code, said) = run(&format!(", learning_rate: {learning_rate}"), "");
        assert_ne!(code, Some(0), "{said}");
        let said = plain(&said);
        assert!(said.contains("learning") || said.contains("not finite"), "{said}");
    }
    // A term that outweighs all others, but leaves something: a warning, which names the requests.
    let (code, said) = run(", weight_decay: 1000000", "");
    assert_eq!(code, Some(0), "{said}");
    assert!(plain(&said).contains("targets were not found"), "{said}");
    let (code, said) = run("", "");
    assert_eq!(code, Some(0), "{said}");
    assert!(!plain(&said).contains("not found"), "{said}");
}

#[test]
fn weights_out_of_range_are_named() {
    for weight in [", kl_factor: 1e300", ", weight_decay: 1e300"] {
        let (code, said) = run(weight, "");
        assert_ne!(code, Some(0), "{weight}: {said}");
        let said = plain(&said);
        assert!(said.contains("`kl_factor` or `weight_decay` is too large"), "{weight}: {said}");
    }
    for weights in [", lambda: 1e-308", ", lambda: 1e308, update_norm_lambda: 1e308"] {
        let (code, said) = run("", weights);
        assert_ne!(code, Some(0), "{weights}: {said}");
        let said = plain(&said);
        assert!(said.contains("too large or too small"), "{weights}: {said}");
        assert!(!said.contains("dependent") && !said.contains("positive definite"), "{weights}: {said}");
    }
}

#[test]
fn a_sequence_says_what_its_rounds_did_not_find() {
    let sequence = |targets: &str| {
        let (head, _) = PIPELINE.split_once("  targets:").unwrap();
        let yaml = format!(
            "{head}  update:\n    uses: sequence\n    inputs: {{ model: model, requests: facts, plan: plan }}\n    with: {{ targets: {{ layer: 1, \
             steps: 8{targets} }}, solve: {{ objective: emmet, preservation: ridge, batch_size: 1 }} }}\n"
        );
        run_text(&yaml)
    };
    let (code, said) = sequence(", learning_rate: 1e20");
    assert_eq!(code, Some(5), "{said}");
    let (code, said) = sequence(", weight_decay: 1000000");
    assert_eq!(code, Some(0), "{said}");
    let said = plain(&said);
    assert!(said.contains("round 1: the target was not found") && said.contains("round 2: "), "{said}");
    let (code, said) = sequence("");
    assert!(code == Some(0) && !plain(&said).contains("not found"), "{said}");
}
