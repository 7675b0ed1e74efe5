//! What is left blank in a pipeline is not given: where it may be left out, its default holds; where it may not, its place is told.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const PIPELINE: &str = "
name: blank
description: ~
numerics: ~
checks:
vars: ~
matrix: ~
replicates: ~
stages:
  model: { uses: load_model, with: { path: DEMO/model }, inputs: ~, retries: ~, timeout: ~ }
  edits:
    uses: load_requests
    with:
      path: DEMO/requests.json
      dataset:
      shuffle: null
      offset: ~
      limit: 4
  targets:
    uses: targets
    inputs: { model: model, requests: edits, templates: ~ }
    with: { layer: 2, steps: ~, stop: null, compute: ~, learning_rate: ~ }
  plan: { uses: distribute, with: { strategy: single, weights: ~, layers: [2] } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: edits, plan: plan }
    with:
      targets: { layer: 2, steps: ~, stop: ~ }
      solve: { objective: memit, preservation: ridge, lambda: 10, batch_size: ~, emmet_lambda: ~ }
      rounds: ~
";

struct Here(TempDir);

impl Here {
    fn with(text: &str) -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
        let here = Self(TempDir::new().unwrap());
        fs::write(here.0.path().join("p.yaml"), text.replace("DEMO", demo.to_str().unwrap())).unwrap();
        here
    }

    fn told(&self, code: i32, args: &[&str]) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.0).args(args);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(status.code(), Some(code), "{out}{err}");
        (out, err)
    }
}

/// A blank is a default: with it, and without the line, the plan has the same keys.
#[test]
fn a_blank_is_the_default() {
    let keys = |text: &str| -> Vec<serde_json::Value> {
        let here = Here::with(text);
        let (json, _) = here.told(0, &["plan", "p.yaml", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["stages"].as_array().unwrap().iter().map(|stage| stage["key"].clone()).collect()
    };
    let without = PIPELINE
        .lines()
        .filter(|line| !line.ends_with(": ~") && !line.ends_with("checks:") && !line.ends_with("dataset:"))
        .filter(|line| !line.contains("shuffle"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut bare = without.replace("weights: ~, ", "");
    for blank in [
        ", inputs: ~",
        ", retries: ~",
        ", timeout: ~",
        ", templates: ~",
        ", steps: ~",
        ", stop: null",
        ", stop: ~",
        ", compute: ~",
        ", learning_rate: ~",
        ", batch_size: ~",
        ", emmet_lambda: ~",
    ] {
        bare = bare.replace(blank, "");
    }
    assert!(!bare.contains('~') && !bare.contains("null"), "{bare}");
    assert_eq!(keys(PIPELINE), keys(&bare));
    // Every parameter may be left blank that may be left out, by itself.
    Here::with(PIPELINE).told(0, &["validate", "p.yaml", "--set", "stages.rounds.with.targets.clamp=~"]);
}

/// What has to be given, and is blank, is told with its place and what was expected.
#[test]
fn a_blank_that_is_needed_is_told_with_its_place() {
    let of = |from: &str, to: &str| {
        let (_, said) = Here::with(&PIPELINE.replace(from, to)).told(3, &["validate", "p.yaml"]);
        said
    };
    for (from, to, wanted, expected) in [
        ("path: DEMO/model }", "path: ~ }", "p.yaml:10:44: `path` has no value", "expected text"),
        ("      path: DEMO/requests.json", "      path:", "p.yaml:14:11: `path` has no value", "expected text"),
        (
            "with: { layer: 2, steps: ~, stop: null",
            "with: { layer: ~, steps: ~, stop: null",
            "`layer` has no value",
            "a whole number",
        ),
        ("targets: { layer: 2,", "targets: { layer: ~,", "`targets.layer` has no value", "a whole number"),
        ("strategy: single", "strategy: ~", "`strategy` has no value", "`memit`"),
        ("uses: distribute", "uses: ~", "`uses` has no value", "the name of a stage kind"),
        ("name: blank", "name: ~", "p.yaml:2:7: `name` has no value", "expected text"),
        (
            "requests: edits, templates",
            "requests: ~, templates",
            "`targets` needs the input `requests`",
            "a stage that yields",
        ),
    ] {
        let said = of(from, to);
        assert!(said.contains(wanted) && said.contains(expected), "{from}: {said}");
        assert!(!said.contains("unknown"), "{said}");
    }
}

/// `plan --until` is about what `run --until` would be about.
#[test]
fn a_plan_goes_up_to_a_stage() {
    let text = "
name: until
matrix: { seed: [1, 2] }
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 4 } }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 1, length: 4 }], seed: '${matrix.seed}' } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
";
    let here = Here::with(text);
    let stages = |args: &[&str]| -> Vec<(String, String)> {
        let all: Vec<&str> = ["plan", "p.yaml", "--json"].iter().chain(args).copied().collect();
        let json: serde_json::Value = serde_json::from_str(&here.told(0, &all).0).unwrap();
        let of =
            |stage: &serde_json::Value| ["instance", "status"].map(|name| stage[name].as_str().unwrap().to_owned());
        json["stages"].as_array().unwrap().iter().map(of).map(|[name, status]| (name, status)).collect()
    };
    let names = |args: &[&str]| stages(args).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&["--until", "contexts"]), ["model", "contexts[seed=1]", "contexts[seed=2]"]);
    assert_eq!(names(&["--until", "contexts[seed=2]", "--until", "plan"]), ["model", "contexts[seed=2]", "plan"]);
    let (told, _) = here.told(0, &["plan", "p.yaml", "--until", "edits"]);
    assert!(told.contains("until: 1 stage: 1 will run") && !told.contains("contexts"), "{told}");
    // What a run up to there leaves is what the plan then finds.
    here.told(0, &["run", "p.yaml", "--until", "contexts[seed=2]", "-q"]);
    assert!(stages(&["--until", "contexts[seed=2]"]).iter().all(|(_, status)| status == "cached"));
    assert!(stages(&["--until", "contexts"]).iter().any(|(_, status)| status == "will_run"));
    let (_, said) = here.told(2, &["plan", "p.yaml", "--until", "context"]);
    assert!(
        said.contains("the pipeline has no stage `context`") && said.contains("did you mean `contexts`?"),
        "{said}"
    );
}
