//! Rounds of edits: what one round is, where a stopped sequence goes on, and what a longer one reuses.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Bench, artifact};
use palinode_engine::{ErrorKind, Event, Observer, RunOptions, RunReport, Store, run};
use safetensors::SafeTensors;

const SEQUENCE: &str = "
name: rounds
stages:
  model: { uses: load_model, with: { path: gpt2 } }
  edits: { uses: load_requests, with: { dataset: jsonl, path: requests.jsonl } }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 3, length: 6 }], seed: 7 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [0, 1] } }
  plan: { uses: distribute, with: { strategy: memit, layers: [0, 1] } }
  update:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with: { targets: { layer: 1, steps: 6 }, solve: { objective: memit, lambda: 10, batch_size: 1 } }
  scores: { uses: evaluate, inputs: { model: update, requests: edits }, with: { samples: 1, every: 2 } }
  out: { uses: export, inputs: { model: update }, with: { path: out } }
";

/// Asks to stop when the sequence tells that its first round is done.
struct Stopper(Arc<AtomicBool>);

impl Observer for Stopper {
    fn event(&self, event: &Event) {
        if let Event::Progress { instance, .. } = event
            && instance == "update"
        {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Counts are judged here: each step must be told, however fast the machine is.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn one_round_is_a_solve() {
    let bench = Bench::new();
    let round = SEQUENCE.replace(", batch_size: 1", "").replace(", every: 2", "");
    let sequence = bench.run(&round);
    let solved = bench.run(
        &round
            .replace("  update:\n    uses: sequence", "  targets: { uses: targets, inputs: { model: model, requests: edits, templates: contexts }, with: { layer: 1, steps: 6 } }\n  update:\n    uses: solve")
            .replace("inputs: { model: model, requests: edits, moments", "inputs: { model: model, requests: edits, targets: targets, moments")
            .replace("with: { targets: { layer: 1, steps: 6 }, solve: { objective: memit, lambda: 10 } }", "with: { objective: memit, lambda: 10 }"),
    );
    let factors = |report: &RunReport| artifact(report, "update").files["factors.safetensors"].digest;
    assert_eq!(factors(&sequence), factors(&solved));
    let scores = |report: &RunReport| artifact(report, "scores").meta["metrics"].clone();
    assert_eq!(scores(&sequence), scores(&solved));
}

#[test]
fn a_stopped_sequence_goes_on_to_the_same_end() {
    let expected = Bench::new().run(SEQUENCE);
    let bench = Bench::new();
    let pipeline = bench.load(SEQUENCE).unwrap();
    let interrupt = Arc::new(AtomicBool::new(false));
    let observer: Arc<dyn Observer> = Arc::new(Stopper(Arc::clone(&interrupt)));
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    let report = run(
        &pipeline,
        &palinode_stages::catalogue(),
        &store,
        &RunOptions { interrupt, ..RunOptions::default() },
        &observer,
    )
    .unwrap();
    drop(store);
    let (failed, kind) = report.failure().expect("the sequence was not stopped");
    assert_eq!((failed.instance.as_str(), kind), ("update", ErrorKind::Interrupted));
    let report = bench.run(SEQUENCE);
    for name in ["update", "scores"] {
        assert!(artifact(&report, name).digest() == artifact(&expected, name).digest(), "{name}");
    }
}

#[test]
fn a_longer_sequence_is_a_shorter_one_and_what_was_added() {
    let expected = Bench::new().run(SEQUENCE);
    let bench = Bench::new();
    let shorter = SEQUENCE.replace("batch_size: 1 }", "batch_size: 1 }, rounds: 2");
    let report = bench.run(&shorter);
    assert_eq!(artifact(&report, "update").meta["rounds"].as_array().unwrap().len(), 2);
    // Judged by the two edits that it made, not by the four that were asked.
    assert_eq!(artifact(&report, "scores").meta["series"]["rows"].as_array().unwrap().len(), 1);
    let report = bench.run(SEQUENCE);
    assert!(artifact(&report, "update").digest() == artifact(&expected, "update").digest());
    let rows = artifact(&report, "scores").meta["series"]["rows"].clone();
    let edits: Vec<u64> = rows.as_array().unwrap().iter().map(|row| row["edits"].as_u64().unwrap()).collect();
    assert_eq!(edits, [2, 4]);
}

#[test]
fn the_exported_model_holds_every_round() {
    let bench = Bench::new();
    bench.ran(SEQUENCE);
    let bytes = std::fs::read(bench.path("out/update.safetensors")).unwrap();
    let update = SafeTensors::deserialize(&bytes).unwrap();
    // Four rounds of one edit each: rank 4 on every layer of the plan.
    let shapes: Vec<_> = update.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
    assert_eq!(shapes.len(), 4, "{shapes:?}");
    for (name, shape) in shapes {
        assert_eq!(shape[usize::from(name.ends_with("left"))], 4, "{name}");
    }
}

#[test]
fn mistakes_point_into_both_parts() {
    let bench = Bench::new();
    let wrong = SEQUENCE.replace("layer: 1, steps", "layer: 2, steps").replace("lambda: 10", "lambda: -1");
    let told = bench.load(&wrong.replace("batch_size: 1 }", "batch_size: 1 }, rounds: 9")).unwrap_err().to_string();
    for part in ["targets", "solve", "rounds"] {
        assert!(told.contains(part), "{told}");
    }
    insta::assert_snapshot!(told);
}
