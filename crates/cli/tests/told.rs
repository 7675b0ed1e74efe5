//! What the program says in passing: hints that can be typed as they stand, counts that add up, numbers that can be compared.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PIPELINE: &str = "
name: words
vars: { layer: 2 }
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 3 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: ['${vars.layer}'], samples: 3000, batch_tokens: 64 } }
  targets: { uses: targets, inputs: { model: model, requests: edits }, with: { layer: '${vars.layer}', steps: 5 } }
  plan: { uses: distribute, with: { strategy: single, layers: ['${vars.layer}'] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan }
    with: { objective: rome }
  scores: { uses: evaluate, inputs: { model: update, requests: edits }, with: { resamples: 0 } }
  out: { uses: export, inputs: { model: update }, with: { path: out, batch: 1, formats: [update] } }
";

struct Here(TempDir);

struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Here {
    fn new() -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("p.yaml"), PIPELINE.replace("DEMO", demo.to_str().unwrap())).unwrap();
        std::os::unix::fs::symlink(demo, folder.path().join("demo")).unwrap();
        Self(folder)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.current_dir(&self.0).env_remove("PALINODE_STORE").env_remove("PALINODE_LOG").args(args);
        command
    }

    fn palinode(&self, args: &[&str]) -> Told {
        self.command(args).output().unwrap().into()
    }

    fn run(&self, args: &[&str]) -> Told {
        let told = self.palinode(&[&["run", "p.yaml"], args].concat());
        assert_eq!(told.code, Some(0), "{}", told.err);
        told
    }
}

#[test]
fn hints_keep_the_options_that_were_given() {
    let here = Here::new();
    let given = ["--store", "a store", "--set", "vars.layer=1"];
    let plan = here.palinode(&[&["plan", "p.yaml"][..], &given].concat());
    let line = plan.out.lines().find_map(|line| line.strip_prefix("in full: ")).expect("a hint").to_owned();
    assert_eq!(line, "palinode why p.yaml model --set vars.layer=1 --store 'a store'");
    let typed = line.replace("palinode", env!("CARGO_BIN_EXE_palinode"));
    let told: Told = Command::new("sh").args(["-c", &typed]).current_dir(&here.0).output().unwrap().into();
    assert!(told.code == Some(0) && told.out.contains("no earlier result in the store"), "{}", told.err);
    here.run(&[&given[..], &["--until", "plan"]].concat());
    let show = here.palinode(&["show", "latest", "--store=a store"]);
    assert!(show.out.contains("palinode logs ") && show.out.contains(" --store 'a store'"), "{}", show.out);
    let none = here.palinode(&["show", "nothing", "--store", "a store"]);
    assert!(none.code == Some(2) && none.err.contains("`palinode runs --store 'a store'`"), "{}", none.err);
}

#[test]
fn work_that_was_begun_is_told_of() {
    let here = Here::new();
    let mut run = here.command(&["run", "p.yaml", "--json", "--jobs", "1"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(run.stdout.take().unwrap()));
    let mut units = 0;
    for line in lines {
        if line.unwrap().contains("\"unit_done\"") {
            units += 1;
        }
        if units == 1 {
            Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
            units += 1;
        }
    }
    assert_eq!(run.wait().unwrap().code(), Some(130));
    for args in [&["plan", "p.yaml"][..], &["why", "p.yaml", "moments"]] {
        let told = here.palinode(args).out;
        assert!(told.contains("not finished: ") && told.contains(" of its work kept"), "{told}");
        assert!(!told.contains("moments   will run  no earlier result"), "{told}");
    }
    let show = here.palinode(&["show", "latest"]).out;
    assert!(show.contains("stopped 1") && show.contains("stopped after") && !show.contains("failed"), "{show}");
    let status = here.palinode(&["status"]).out;
    assert!(status.contains("stopped 1") && !status.contains("failed"), "{status}");
}

#[test]
fn a_stage_is_shown_in_the_last_run_that_has_a_result_of_it() {
    let here = Here::new();
    here.run(&["--until", "plan"]);
    here.run(&["--until", "edits"]);
    let told = here.palinode(&["show", "plan"]);
    assert!(told.code == Some(0) && told.out.contains("distribute"), "{}{}", told.out, told.err);
    assert!(told.err.contains("has no result of `plan`"), "{}", told.err);
    let records = fs::read_dir(here.0.path().join(".palinode/runs")).unwrap();
    let newest = records.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(newest.join("run.json"), "{}").unwrap();
    let damaged = here.palinode(&["show", "latest"]);
    assert!(damaged.code == Some(6) && damaged.err.contains("missing or damaged"), "{}", damaged.err);
}

#[test]
fn scores_say_what_stands_behind_them_and_differences_are_in_points() {
    let here = Here::new();
    let told = here.run(&[]).out;
    let title = told.lines().find(|line| line.contains("models  edits")).expect("a table with both");
    let at = told.lines().skip_while(|line| *line != title).nth(1).unwrap();
    assert!(at.split_whitespace().rev().take(2).eq(["3", "3"]), "{told}");
    assert!(told.contains("each of another of its 3 models"), "{told}");
    assert!(told.contains("; batch 1 of 3: 1 edit"), "{told}");
    assert!(!told.contains("e-2%") && !told.contains("e-1%"), "{told}");
    here.run(&["--set", "vars.layer=1"]);
    let diff = here.palinode(&["diff", "latest~1", "latest", "--all"]).out;
    assert!(diff.contains(" pt"), "{diff}");
    here.run(&["--until", "plan"]);
    let unlike = here.palinode(&["diff", "latest~1", "latest"]).out;
    assert!(unlike.contains("no metric was compared") && !unlike.contains("no metric differs"), "{unlike}");
    fs::write(
        here.0.path().join("q.yaml"),
        "name: q\nstages: { layers: { uses: distribute, with: { strategy: single, layers: [1] } } }",
    )
    .unwrap();
    assert_eq!(here.palinode(&["run", "q.yaml"]).code, Some(0));
    let unlike = here.palinode(&["diff", "latest~1", "latest"]).out;
    assert!(unlike.contains("nothing in common"), "{unlike}");
}

#[test]
fn mistakes_of_the_command_line_are_its_own() {
    let here = Here::new();
    let fact = ["--subject", "Chile", "--prompt", "{} is in", "--target", "Asia"];
    let cases: [(&[&str], i32, &str); 8] = [
        (&["edit", "demo/model", "--layer", "99"], 2, "expected a layer from 0 to 5"),
        (&["edit", "demo/model", "--layer", "-1"], 2, "expected a whole number, 0 or more"),
        (&["edit", "nomodel"], 4, "there is no file or folder nomodel"),
        (&["edit", "demo/model", "--corpus", "none.txt"], 4, "cannot read none.txt"),
        (&["ask", "demo/model", "hello", "--tokens", "many"], 2, "expected a whole number, 0 or more"),
        (&["run", "p.yaml", "--set", "=1"], 3, "there is no path before the `=`"),
        (&["cache", "gc", "--size", "50"], 2, "expected a size with its unit"),
        (
            &[
                "run",
                "p.yaml",
                "--set",
                "stages.scores.with.every=2",
                "--set",
                "stages.update.with.objective=memit",
                "--set",
                "stages.out.with.batch=0",
            ],
            0,
            "`every` has no effect",
        ),
    ];
    for (args, code, words) in cases {
        let fact: &[&str] = if args[0] == "edit" { &fact } else { &[] };
        let told = here.palinode(&[args, fact].concat());
        assert!(told.code == Some(code) && told.err.contains(words), "{args:?}: {:?} {}", told.code, told.err);
        assert!(!told.err.contains("pipeline file's folder"), "{args:?}: {}", told.err);
    }
    let odd = here.palinode(&["validate", "p.yaml", "--set", "stages.plan.with=1"]);
    assert!(odd.code == Some(3) && !odd.err.contains("reads the axis"), "{}", odd.err);

    // A line of thousands of characters, and a value of as many.
    let long = "x".repeat(4000);
    for with in [format!("strategy: single, layers: [-1], note: {long}"), format!("strategy: {long}, layers: [1]")] {
        let text = format!("name: p\nstages: {{ layers: {{ uses: distribute, with: {{ {with} }} }} }}\n");
        fs::write(here.0.path().join("long.yaml"), text).unwrap();
        let told = here.palinode(&["validate", "long.yaml"]);
        let longest = told.err.lines().map(|line| line.chars().count()).max();
        assert!(told.code == Some(3) && longest < Some(900) && told.err.contains("long.yaml:2:"), "{}", told.err);
    }
}

#[test]
fn what_was_removed_is_not_said_to_have_never_run() {
    let here = Here::new();
    assert_eq!(here.run(&["--until", "edits"]).code, Some(0));
    assert_eq!(here.palinode(&["cache", "gc", "--size", "0B"]).code, Some(0));
    let told = here.palinode(&["plan", "p.yaml"]);
    assert!(!told.out.contains("never run"), "{}", told.out);
    assert!(told.out.contains("no earlier result in the store"), "{}", told.out);
}

/// What `runs` calls the best of a run is the best of its cells, in the words of the table.
#[test]
fn the_best_of_a_run_stands_in_its_row() {
    let here = Here::new();
    let text = fs::read_to_string(here.0.path().join("p.yaml")).unwrap();
    // One step is worse than twenty.
    let text =
        text.replace("steps: 5", "steps: '${matrix.steps}'").replace("stages:", "matrix: { steps: [1, 20] }\nstages:");
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("  out:")).collect();
    fs::write(here.0.path().join("p.yaml"), text.join("\n")).unwrap();
    here.run(&[]);
    let shown = here.palinode(&["show", "scores"]).out;
    let row = |steps: &str| -> Vec<&str> {
        let mut rows = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.find(|words| words.first() == Some(&steps) && words.len() > 10).unwrap_or_else(|| panic!("{shown}"))
    };
    let (one, twenty) = (row("1"), row("20"));
    assert!(one[2] == "0.0%" && twenty[2] == "100.0%", "{shown}");
    let runs = here.palinode(&["runs"]).out;
    assert_eq!(runs.lines().count(), 2, "{runs}");
    let said = format!("S {}, ES {}", twenty[1], twenty[2]);
    assert!(runs.trim_end().ends_with(&said), "{runs}: {said}");
}
