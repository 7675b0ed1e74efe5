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
    // Below each mean stands its interval.
    let ends = scores.lines().filter(|line| line.trim_start().starts_with('[')).count();
    assert!(ends >= 2 && scores.contains("below them, 95 % intervals over repetitions and records"), "{scores}");
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

    // What was written is one line and one row for all repetitions, too.
    let layers = here.read("paper/tables/update-layers.csv");
    assert!(layers.starts_with("objective,layer,batches,") && layers.lines().count() == 3, "{layers}");
    assert!(
        page.contains("means over batches and values of seed")
            || page.contains("Means over batches and values of seed")
    );

    // Two runs beside each other: the run is an axis.
    here.told(0, &["run", "p.yaml", "--set", "stages.targets.with.steps=3"]);
    here.told(0, &["report", "latest~1", "latest", "--assets", "both", "-o", "both.html"]);
    let csv = here.read("both/tables/scores.csv");
    assert!(csv.starts_with("run,objective,"), "{csv}");
    assert_eq!(csv.lines().filter(|line| line.contains(",memit,") || line.contains(",emmet,")).count(), 4, "{csv}");
    // Both are of one pipeline: they are called by the ends of their IDs, and repetition is said once.
    let names: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert!(names.iter().filter(|name| **name != "unedited").all(|name| name.len() == 4), "{csv}");
    let page = here.read("both.html");
    assert!(page.contains("values of seed,") && !page.contains("seed, seed"), "the axis of repetition stands once");
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

/// Cells that differ along `replicates` alone are one experiment to `diff` and `show`.
#[test]
fn experiments_are_compared_over_their_repetitions() {
    let here = Here::new();
    here.told(0, &["run", "p.yaml", "--until", "scores"]);
    let (told, _) = here.told(0, &["diff", "scores[objective=memit]", "scores[objective=emmet]"]);
    for part in
        ["scores[objective=memit], 3 repetitions", "over 3 pairs of repetitions (seed 1, 2, 3)", "95 % INTERVAL"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let table = |json: &str| -> Value { serde_json::from_str(json).unwrap() };
    let (json, _) = here.told(0, &["diff", "scores[objective=memit]", "scores[objective=emmet]", "--json"]);
    let told = table(&json);
    let of = |metrics: &Value, name: &str| metrics.as_array().unwrap().iter().find(|m| m["metric"] == name).cloned();
    // The means are those of single cells.
    let mean = |objective: &str| {
        let (shown, _) = here.told(0, &["show", &format!("scores[objective={objective}]"), "--json"]);
        let results = table(&shown)["results"].as_object().unwrap().clone();
        assert_eq!(results.len(), 3, "{shown}");
        results.values().map(|one| one["output"]["meta"]["metrics"]["EM"].as_f64().unwrap()).sum::<f64>() / 3.0
    };
    let em = of(&told["metrics"], "EM").unwrap();
    for (side, objective) in [("a", "memit"), ("b", "emmet")] {
        assert!((em[side].as_f64().unwrap() - mean(objective)).abs() < 1e-12, "{em}");
    }
    // A run beside itself with other targets: one comparison for each experiment, and not for each seed.
    here.told(0, &["run", "p.yaml", "--until", "scores", "--set", "stages.targets.with.steps=3"]);
    let (json, _) = here.told(0, &["diff", "latest~1", "latest", "--json"]);
    let stages: Vec<String> = table(&json)["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| metric["stage"].as_str().unwrap().to_owned())
        .filter(|stage| stage.starts_with("scores"))
        .collect();
    assert!(!stages.is_empty() && stages.iter().all(|stage| !stage.contains("seed")), "{stages:?}");
    // Cells that are several experiments are none to compare, and a cell that is not there is one of a stage that is.
    let (_, said) = here.told(2, &["diff", "scores[seed=1]", "scores[seed=2]"]);
    assert!(said.contains("has 2 cells"), "{said}");
    let (_, said) = here.told(2, &["show", "scores[objective=mend]"]);
    assert!(said.contains("`scores` has no cell `scores[objective=mend]`") && said.contains("hint"), "{said}");
}

/// A comparison is of pairs: what one side lacks is left out on the other side too, and named.
#[test]
fn repetitions_that_one_side_lacks_are_named_and_left_out() {
    let here = Here::new();
    let some = ["scores[objective=memit]", "scores[objective=emmet,seed=1]", "scores[objective=emmet,seed=2]"];
    let until: Vec<&str> =
        ["run", "p.yaml"].into_iter().chain(some.iter().flat_map(|cell| ["--until", *cell])).collect();
    here.told(0, &until);
    let both = ["scores[objective=memit]", "scores[objective=emmet]"];
    let (told, _) = here.told(0, &["diff", both[0], both[1]]);
    for part in [
        "scores[objective=memit], 3 repetitions",
        "scores[objective=emmet], 2 of 3 repetitions",
        "! scores: 2 of 3 repetitions are compared, seed 1, 2: B has no result of seed 3",
        "over 2 pairs of repetitions (seed 1, 2)",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (json, _) = here.told(0, &["diff", both[0], both[1], "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let pairs = &json["repetitions"][0];
    assert_eq!(pairs["compared"], serde_json::json!(["seed 1", "seed 2"]), "{pairs}");
    assert_eq!((&pairs["a_lacks"], &pairs["b_lacks"]), (&serde_json::json!([]), &serde_json::json!(["seed 3"])));
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1);
    // The mean of the side that has all is over the pairs as well.
    let of = |seed: u8| -> f64 {
        let (shown, _) = here.told(0, &["show", &format!("scores[objective=memit,seed={seed}]"), "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let result = shown["results"].as_object().unwrap().values().next().unwrap().clone();
        result["output"]["meta"]["metrics"]["EM"].as_f64().unwrap()
    };
    let em = json["metrics"].as_array().unwrap().iter().find(|metric| metric["metric"] == "EM").unwrap();
    assert!((em["a"].as_f64().unwrap() - of(1).midpoint(of(2))).abs() < 1e-12 && em["repetitions"] == 2, "{em}");
    // One side has nothing of what the other has: nothing is compared, and nothing is called better.
    let (told, _) = here.told(0, &["diff", "scores[objective=memit]", "scores[objective=emmet,seed=3]"]);
    assert!(told.contains("no repetition has a result on both sides, so nothing is compared"), "{told}");
    assert!(!told.contains("better") && !told.contains("worse"), "{told}");
    // A single cell beside three repetitions is one pair.
    let (told, _) = here.told(0, &["diff", "scores[objective=memit]", "scores[objective=emmet,seed=2]"]);
    assert!(told.contains("1 of 3 repetitions is compared, seed 2: B has no result of seed 1, 3"), "{told}");
    // A run beside itself without a seed says so of the experiment.
    here.told(0, &["run", "p.yaml", "--until", "scores"]);
    let (told, _) = here.told(0, &["diff", "latest~1", "latest"]);
    assert!(
        told.contains("scores[objective=emmet]: 2 of 3 repetitions are compared, seed 1, 2: A has no result of"),
        "{told}"
    );
    // Two seeds of one experiment are two experiments beside each other, and no repetitions.
    let (told, _) = here.told(0, &["diff", "scores[objective=memit,seed=1]", "scores[objective=memit,seed=2]"]);
    assert!(told.contains("seed 1 of A with seed 2 of B"), "{told}");
}

/// Records that one side has alone are no part of a comparison either.
#[test]
fn records_that_one_side_lacks_are_left_out() {
    let here = Here::new();
    here.told(0, &["run", "p.yaml", "--until", "scores[seed=1]"]);
    here.told(0, &["run", "p.yaml", "--until", "scores[seed=1]", "--set", "stages.edits.with.limit=6"]);
    let cell = "scores[objective=memit,seed=1]";
    let (json, _) = here.told(0, &["diff", &format!("latest~1:{cell}"), &format!("latest:{cell}"), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let warnings = json["warnings"].as_array().unwrap();
    assert_eq!(warnings[0], "scores: A has 8 records and B 6; the 6 that both have are compared", "{warnings:?}");
    for metric in json["metrics"].as_array().unwrap().iter().filter(|metric| metric["interval"].is_array()) {
        let [low, high] = [0, 1].map(|end| metric["interval"][end].as_f64().unwrap());
        let change = metric["b"].as_f64().unwrap() - metric["a"].as_f64().unwrap();
        assert!(low - 1e-9 <= change && change <= high + 1e-9 && metric["n"] == 6, "{metric}");
    }
}

/// Two stages are compared whatever they are called, with what they take in; where that cannot be, it is said.
#[test]
fn stages_of_two_names_stand_beside_each_other() {
    let here = Here::new();
    here.write(|text| {
        let text = text.replace("matrix: { objective: [memit, emmet], seed: [1, 2, 3] }\nreplicates: seed\n", "");
        let text = text.replace("'${matrix.seed}'", "1").replace("'${matrix.objective}'", "memit");
        let at = text.find("  update:").unwrap();
        let more = text[at..].replace("  update:", "  other:").replace("  scores:", "  judged:");
        let more = more.replace("model: update,", "model: other,").replace("lambda: 10,", "lambda: 20,");
        text.clone()
            + &more
            + "  text: { uses: perplexity, inputs: { model: other }, with: { corpus: DEMO/corpus.txt, samples: 8 } }\n"
    });
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let text = here.read("p.yaml").replace("DEMO", demo.to_str().unwrap());
    fs::write(here.0.path().join("p.yaml"), text).unwrap();
    here.told(0, &["run", "p.yaml"]);
    let (told, _) = here.told(0, &["diff", "scores", "judged"]);
    assert!(told.contains("compared under two names: scores with judged, update with other"), "{told}");
    assert!(told.contains("update / other  lambda") && !told.contains("no parameter"), "{told}");
    assert!(!told.contains("only in"), "{told}");
    let (json, _) = here.told(0, &["diff", "scores", "judged", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let lambda = json["parameters"].as_array().unwrap().iter().find(|one| one["name"] == "lambda").unwrap();
    assert_eq!((lambda["a"].as_f64(), lambda["b"].as_f64()), (Some(10.0), Some(20.0)));
    let metrics = json["metrics"].as_array().unwrap();
    assert!(
        !metrics.is_empty() && metrics.iter().all(|one| one["a"].is_number() && one["b"].is_number()),
        "{metrics:?}"
    );
    let (told, _) = here.told(0, &["diff", "scores", "text"]);
    assert!(told.contains("`scores` is of the kind `evaluate`, and `text` of the kind `perplexity`"), "{told}");
    assert!(told.contains("no parameter of the stages that both have differs"), "{told}");
}

/// Nothing is called better, and nothing has a star, without an interval or a test; where there is one value, it is no mean.
#[test]
fn nothing_is_marked_without_an_interval() {
    let here = Here::new();
    here.write(|text| text.replace("seed: [1, 2, 3]", "seed: [1]"));
    let (ran, _) = here.told(0, &["run", "p.yaml"]);
    let update = ran.split("\nupdate\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(!update.contains('*'), "norms of single updates have no interval: {update}");
    assert!(ran.contains("seed 1 alone") && !ran.contains("means over"), "{ran}");
    let (told, _) = here.told(0, &["diff", "update[objective=memit]", "update[objective=emmet]", "--all"]);
    assert!(!told.contains("better") && !told.contains("worse"), "{told}");
    here.told(0, &["report", "--assets", "paper"]);
    let page = here.read("report.html");
    assert!(page.contains("All of seed 1 alone.") && !page.contains("Means over"));
    assert!(!page.contains("The best of each column"));
    for table in ["update", "scores"] {
        let tex = here.read(&format!("paper/tables/{table}.tex"));
        let tested = tex.contains("Bold:");
        assert!(tested || !tex.contains("\\textbf"), "{tex}");
    }
}

/// What was measured on the way is a mean over repetitions as well, and not the first of them.
#[test]
fn steps_of_repetitions_are_means() {
    let here = Here::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let text = "
name: curves
matrix: { seed: [1, 2] }
replicates: seed
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 4, shuffle: '${matrix.seed}' } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: edits, plan: plan }
    with: { targets: { layer: 2, steps: 5 }, solve: { objective: memit, preservation: ridge, lambda: 10, batch_size: 2 } }
  scores: { uses: evaluate, inputs: { model: rounds, requests: edits }, with: { every: 1, resamples: 50 } }
";
    fs::write(here.0.path().join("p.yaml"), text.replace("DEMO", demo.to_str().unwrap())).unwrap();
    let (ran, _) = here.told(0, &["run", "p.yaml"]);
    let steps = ran.split("\nscores, step by step\n").nth(1).unwrap();
    assert!(steps.starts_with("round") && !steps.lines().next().unwrap().contains("seed"), "{steps}");
    here.told(0, &["report", "--assets", "paper"]);
    let csv = here.read("paper/tables/scores-steps.csv");
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let at = rows[0].iter().position(|name| *name == "EM").unwrap();
    assert!(rows.len() == 3 && rows[0].contains(&"EM sd"), "two rounds: {csv}");
    let of = |seed: u8| -> f64 {
        let (shown, _) = here.told(0, &["show", &format!("scores[seed={seed}]"), "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let result = shown["results"].as_object().unwrap().values().next().unwrap().clone();
        result["output"]["meta"]["series"]["rows"][0]["EM"].as_f64().unwrap()
    };
    let mean = of(1).midpoint(of(2));
    assert!((rows[1][at].parse::<f64>().unwrap() - mean).abs() < 1e-12 && of(1) != of(2), "{csv}");
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
