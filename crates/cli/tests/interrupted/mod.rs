//! A pipeline that takes a while, to be killed or to run out of disk, and what an uninterrupted run of it yields.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use palinode::{Attempt, Digest, Ended, Event, Outcome, Runs, StageState};
use tempfile::TempDir;

const PIPELINE: &str = "
name: killed
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 6 } }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 3, length: 10 }], seed: 1 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: [1, 2], samples: 1500 } }
  sure: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: [1], tokens: auto, tolerance: 0.12 } }
  targets: { uses: targets, inputs: { model: model, requests: edits, templates: contexts }, with: { layer: 2, steps: 20 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: memit, lambda: 100 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits } }
  seen: { uses: trace, inputs: { model: model, requests: edits }, with: { draws: 3, window: 2 } }
  tried:
    uses: locate
    inputs: { model: model, requests: edits, moments: moments, templates: contexts }
    with: { layers: [1, 2], steps: 5, clamps: [4] }
  out: { uses: export, inputs: { model: update }, with: { path: out } }
  edited:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with: { targets: { layer: 2, steps: 20 }, solve: { objective: emmet, batch_size: 2 } }
  after: { uses: evaluate, inputs: { model: edited, requests: edits }, with: { every: 2 } }
";

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap()
}

/// A folder with the pipeline.
pub fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.yaml"), PIPELINE.replace("DEMO", demo().to_str().unwrap())).unwrap();
    dir
}

/// The program, about to run it there with a store of its own.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.current_dir(dir).env_remove("PALINODE_STORE").env_remove("PALINODE_LOG");
    command
        .args(["run", "p.yaml", "--store", "store"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The contents of every result, and of every file that was written.
pub fn results(dir: &Path) -> BTreeMap<String, Digest> {
    let run = Runs::of(&dir.join("store")).open("latest").unwrap();
    let mut results = BTreeMap::new();
    for stage in run.stages {
        for published in &stage.published {
            let name = published.path.display().to_string();
            let mut file = fs::read(dir.join(&published.path)).unwrap();
            // A ledger says when, and the marker beside it which ledger.
            if name.ends_with("ledger.safetensors") {
                continue;
            }
            if name.ends_with("palinode.json") {
                let text = String::from_utf8(file).unwrap();
                file =
                    text.lines().filter(|line| !line.contains("ledger.safetensors")).collect::<String>().into_bytes();
            }
            results.insert(name, Digest::of(&file));
        }
        results.insert(
            stage.instance.clone(),
            stage.content.unwrap_or_else(|| panic!("{} has no result", stage.instance)),
        );
    }
    results
}

/// What an uninterrupted run yields, and how long it takes.
pub fn uninterrupted() -> (BTreeMap<String, Digest>, Duration) {
    let dir = folder();
    let started = Instant::now();
    let output = command(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (results(dir.path()), started.elapsed())
}

/// The log names a unit once it is kept; a unit that was kept is never computed again.
pub fn no_unit_was_done_twice(store: &Path) {
    let runs = Runs::of(store);
    let mut done = HashSet::new();
    for run in runs.names() {
        for (_, event) in runs.events(&run) {
            if let Event::UnitDone { unit, instance, .. } = event {
                assert!(done.insert(unit), "a unit of {instance} was done twice");
            }
        }
    }
    assert!(!done.is_empty());
}

/// The record of attempts knows of every result that a run made, and leaves open only what a kill left at work.
pub fn attempts_are_recorded(store: &Path) {
    let runs = Runs::of(store);
    for run in runs.list() {
        let attempts = runs.attempts(&run.run);
        for stage in run.stages.iter().filter(|stage| stage.state == StageState::Finished(Outcome::Ran)) {
            let done = |attempt: &Attempt| {
                attempt.instance == stage.instance
                    && Some(attempt.key) == stage.key
                    && attempt.end.as_ref().is_some_and(|end| end.failure.is_none())
            };
            assert!(attempts.iter().any(done), "no attempt of {} made its result: {attempts:?}", stage.instance);
        }
        let open = attempts.iter().filter(|attempt| attempt.end.is_none()).count();
        assert!(open == 0 || run.ended == Ended::Lost, "{open} attempts of {} are open: {:?}", run.run, run.ended);
    }
}
