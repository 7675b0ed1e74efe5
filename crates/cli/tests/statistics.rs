//! What scores can show, through the program: repetitions, intervals, and where no difference is shown.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = "
name: repeated
matrix: { objective: [memit, emmet], seed: [1, 2, 3] }
replicates: seed
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 8 } }
  contexts:
    uses: templates
    inputs: { model: model }
    with: { generate: [{ count: 2, length: 5 }], seed: '${matrix.seed}' }
  targets: { uses: targets, inputs: { model: model, requests: edits, templates: contexts }, with: { layer: 2, steps: STEPS } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, targets: targets, plan: plan, templates: contexts }
    with: { objective: '${matrix.objective}', preservation: ridge, lambda: 10, emmet_lambda: 0.1 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits }, with: { resamples: 50 } }
";

struct Here(TempDir);

impl Here {
    fn new() -> Self {
        let here = Self(TempDir::new().unwrap());
        here.write(|text| text);
        here
    }

    fn write(&self, change: impl Fn(String) -> String) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
        let text = PIPELINE.replace("DEMO", demo.to_str().unwrap());
        fs::write(self.0.path().join("p.yaml"), change(text).replace("STEPS", "25, learning_rate: 0.1")).unwrap();
    }

    /// What the program says on stdout and stderr, if it ends with `code`.
    fn told(&self, code: i32, args: &[&str]) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.0).args(args);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(status.code(), Some(code), "{out}{err}");
        (out, err)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }
}

#[test]
fn repetitions_are_one_row_with_what_stands_behind_it() {
    let here = Here::new();
    let (ran, _) = here.told(0, &["run", "p.yaml"]);
    let scores = ran.split("\nscores\n").nth(1).unwrap();
    assert!(scores.lines().next().unwrap().starts_with("objective") && !scores.contains("seed  "), "{scores}");
    assert_eq!(scores.lines().filter(|line| line.contains("% ± ")).count(), 2, "{scores}");
    for part in ["n = 8 records", "means over 3 values of seed, ± their standard deviation", "Holm"] {
        assert!(scores.contains(part), "{part}: {scores}");
    }
    // The record of the run says the same.
    let (shown, _) = here.told(0, &["show", "latest"]);
    assert!(shown.contains("means over 3 values of seed"), "{shown}");

    here.told(0, &["report", "--assets", "paper"]);
    let page = here.read("report.html");
    for part in ["n = 8 records", "Means over 3 values of seed", "95 % intervals over repetitions and records"] {
        assert!(page.contains(part), "{part}");
    }
    let csv = here.read("paper/tables/scores.csv");
    let heading = csv.lines().next().unwrap();
    for part in ["ES,ES sd,ES low,ES high,ES n", "NS n"] {
        assert!(heading.contains(part), "{part}: {heading}");
    }
    assert_eq!(csv.lines().filter(|line| line.starts_with("memit") || line.starts_with("emmet")).count(), 2, "{csv}");
    let tex = here.read("paper/tables/scores.tex");
    assert!(tex.contains("$\\pm$") && tex.contains("\\begin{tabular}") && !tex.contains("\\\\\n    ["), "{tex}");
    // Wide tables are cut, and every part says what its rows are.
    assert!(tex.matches("\\begin{table}").count() > 1 && tex.contains("(continued)"), "{tex}");

    // Two runs beside each other: the run is an axis.
    here.told(0, &["run", "p.yaml", "--set", "stages.targets.with.steps=3"]);
    here.told(0, &["report", "latest~1", "latest", "--assets", "both", "-o", "both.html"]);
    let csv = here.read("both/tables/scores.csv");
    assert!(csv.starts_with("run,objective,"), "{csv}");
    assert_eq!(csv.lines().filter(|line| line.contains(",memit,") || line.contains(",emmet,")).count(), 4, "{csv}");
    let (_, told) = here.told(2, &["report", "latest", "latest"]);
    assert!(told.contains("stands twice"), "{told}");
}

#[test]
fn a_difference_is_called_one_only_where_it_is_shown() {
    let here = Here::new();
    here.told(0, &["run", "p.yaml", "--until", "scores"]);
    let cell = |objective: &str, seed: u8| format!("scores[objective={objective},seed={seed}]");
    let (same, _) = here.told(0, &["diff", &cell("emmet", 1), &cell("emmet", 2)]);
    assert!(same.contains("no difference shown") && same.contains("95 % INTERVAL"), "{same}");
    assert!(!same.contains("better") && !same.contains("worse"), "eight records show nothing of a seed: {same}");
    let (json, _) = here.told(0, &["diff", &cell("emmet", 1), &cell("emmet", 2), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let metrics = json["metrics"].as_array().unwrap();
    let tested: Vec<&Value> = metrics.iter().filter(|metric| metric["p"].is_number()).collect();
    assert!(!tested.is_empty());
    for metric in tested {
        let [low, high] = [0, 1].map(|end| metric["interval"][end].as_f64().unwrap());
        assert!(low <= high && metric["n"] == 8 && metric["better"].is_null(), "{metric}");
    }
    // No share has an interval without width, least of all the one that all records agree on.
    let (shown, _) = here.told(0, &["show", &cell("emmet", 1), "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let result = shown["results"].as_object().unwrap().values().next().unwrap();
    let intervals = result["output"]["meta"]["intervals"].as_object().unwrap();
    for metric in ["ES", "PS", "NS", "S"] {
        let [low, high] = [0, 1].map(|end| intervals[metric][end].as_f64().unwrap());
        assert!(low < high, "{metric}: {low} {high}");
    }
}

#[test]
fn what_is_repeated_is_an_axis() {
    let here = Here::new();
    here.write(|text| text.replace("replicates: seed", "replicates: sed"));
    let (_, told) = here.told(3, &["validate", "p.yaml"]);
    assert!(told.contains("the matrix has no axis `sed`") && told.contains("did you mean `seed`?"), "{told}");
    here.write(|text| text.replace("replicates: seed", "replicates: { seed: 1 }"));
    let (_, told) = here.told(3, &["validate", "p.yaml"]);
    assert!(told.contains("expected the name of an axis of `matrix`"), "{told}");
    here.write(|text| text.replace("replicates: seed", "replicates: [seed, objective]"));
    here.told(0, &["validate", "p.yaml"]);
}

#[test]
fn a_page_has_the_columns_and_groups_that_are_asked_for() {
    let here = Here::new();
    here.write(|text| text.replace("seed: [1, 2, 3]", "seed: [1, 2]").replace("replicates: seed\n", ""));
    here.told(0, &["run", "p.yaml"]);
    here.told(0, &["report", "--columns", "NS, ES", "--group-by", "seed", "--assets", "paper"]);
    let csv = here.read("paper/tables/scores.csv");
    assert!(csv.starts_with("seed,objective,NS,") && csv.contains(",ES,") && !csv.contains("PS"), "{csv}");
    let rows: Vec<&str> = csv.lines().skip(1).filter(|line| !line.starts_with("unedited")).collect();
    let axes: Vec<String> = rows.iter().map(|row| row.split(',').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(axes, ["1 memit", "1 emmet", "2 memit", "2 emmet"]);
    // What a row shares with the one above is told once, and groups stand apart.
    let tex = here.read("paper/tables/scores.tex");
    assert!(tex.matches("\\addlinespace").count() >= 1 && tex.contains("     & emmet &"), "{tex}");
    let page = here.read("report.html");
    assert!(page.contains("<td class=\"again\">") && page.contains("columns and groups"), "the page groups rows");
    let (_, told) = here.told(2, &["report", "--columns", "XS"]);
    assert!(told.contains("the results have no column `XS`") && told.contains("there are S, ES"), "{told}");
    let (_, told) = here.told(2, &["report", "--group-by", "layer"]);
    assert!(told.contains("the results have no axis `layer`") && told.contains("there are objective, seed"), "{told}");
}

#[test]
fn what_is_left_of_edits_is_drawn_by_their_age() {
    let here = Here::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let text = "
name: ages
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 6 } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: edits, plan: plan }
    with: { targets: { layer: 2, steps: 5 }, solve: { objective: memit, preservation: ridge, lambda: 10, batch_size: 2 } }
  scores: { uses: evaluate, inputs: { model: rounds, requests: edits }, with: { by_age: true, resamples: 0 } }
";
    fs::write(here.0.path().join("p.yaml"), text.replace("DEMO", demo.to_str().unwrap())).unwrap();
    here.told(0, &["run", "p.yaml"]);
    here.told(0, &["report", "--assets", "paper"]);
    let csv = here.read("paper/tables/scores-retention.csv");
    let ages: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!((csv.lines().next().unwrap().starts_with("later edits,S"), ages), (true, vec!["0", "2", "4"]), "{csv}");
    let figure = here.read("paper/figures/scores-retention.svg");
    assert!(figure.contains("later edits"), "{figure}");
    assert!(here.read("report.html").contains("by the number of edits that were made after an edit"));
}
