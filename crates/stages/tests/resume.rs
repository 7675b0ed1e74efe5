//! Long stages go on where they were, and end where an uninterrupted run ends.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Bench, PIPELINE, artifact};
use palinode_engine::{ErrorKind, Event, Observer, RunOptions, RunReport, Store, run};

/// Asks to stop when a stage tells of its first step.
struct Stopper {
    stage: &'static str,
    interrupt: Arc<AtomicBool>,
}

impl Observer for Stopper {
    fn event(&self, event: &Event) {
        if let Event::Progress { instance, .. } = event
            && instance == self.stage
        {
            self.interrupt.store(true, Ordering::Relaxed);
        }
    }

    /// Counts are judged here: each step must be told, however fast the machine is.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

fn yaml() -> String {
    PIPELINE
        .replace("MODEL", "gpt2")
        .replace("[rome, memit, emmet]", "[memit]")
        .replace("[single, memit]", "[single]")
        .replace("layer: 1, steps: 6", "layer: 1, steps: 6, parallel_requests: 1")
}

fn run_until(bench: &Bench, yaml: &str, stage: &'static str) -> RunReport {
    let pipeline = bench.load(yaml).unwrap();
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    let interrupt = Arc::new(AtomicBool::new(false));
    let observer: Arc<dyn Observer> = Arc::new(Stopper { stage, interrupt: Arc::clone(&interrupt) });
    run(&pipeline, &palinode_stages::catalogue(), &store, &RunOptions { interrupt, ..RunOptions::default() }, &observer)
        .unwrap()
}

const SCORES: &str = "scores[objective=memit,strategy=single]";

#[test]
fn an_interrupted_run_ends_like_one_that_was_not() {
    let whole = Bench::new();
    let expected = whole.run(&yaml());
    for stage in ["moments", "targets", SCORES] {
        let bench = Bench::new();
        let report = run_until(&bench, &yaml(), stage);
        let (failed, kind) = report.failure().unwrap_or_else(|| panic!("{stage} was not stopped"));
        assert_eq!((failed.instance.as_str(), kind), (stage, ErrorKind::Interrupted));
        let report = bench.run(&yaml());
        for name in ["moments", "targets", SCORES] {
            let (ours, theirs) = (artifact(&report, name), artifact(&expected, name));
            assert!(ours.digest() == theirs.digest(), "{name} differs after {stage} was stopped");
        }
    }
}

#[test]
fn a_grown_corpus_and_added_layers_reuse_what_is_there() {
    let expected = Bench::new().run(&yaml());
    let bench = Bench::new();
    let fewer = yaml().replace("corpus: corpus.txt, layers: [0, 1]", "corpus: corpus.txt, layers: [1], samples: 64");
    bench.run(&fewer);
    // More documents for layer 1, all of them for layer 0; then nothing but what was added.
    let report = bench.run(&yaml());
    assert!(artifact(&report, "moments").digest() == artifact(&expected, "moments").digest());
    let bigger = std::fs::read_to_string(bench.path("requests.jsonl")).unwrap();
    let two = bigger.lines().take(2).collect::<Vec<_>>().join("\n");
    let bench = Bench::new();
    std::fs::write(bench.path("requests.jsonl"), two).unwrap();
    bench.run(&yaml());
    std::fs::write(bench.path("requests.jsonl"), bigger).unwrap();
    let report = bench.run(&yaml());
    assert!(artifact(&report, "targets").digest() == artifact(&expected, "targets").digest());
}

/// How many requests were counted as found from an earlier run.
struct Found(AtomicU64);

impl Observer for Found {
    fn event(&self, event: &Event) {
        if let Event::Progress { instance, kept, .. } = event
            && instance == "targets"
        {
            self.0.fetch_max(*kept, Ordering::Relaxed);
        }
    }

    /// Counts are judged here: each step must be told, however fast the machine is.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn targets_are_found_once_however_requests_are_cut_into_blocks() {
    let bench = Bench::new();
    let together = yaml().replace(", parallel_requests: 1", "");
    bench.run(&together.replace("path: requests.jsonl", "path: requests.jsonl, limit: 3"));
    let pipeline = bench.load(&together).unwrap();
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    let found = Arc::new(Found(AtomicU64::new(0)));
    let observer: Arc<dyn Observer> = Arc::clone(&found) as Arc<dyn Observer>;
    let report = run(&pipeline, &palinode_stages::catalogue(), &store, &RunOptions::default(), &observer).unwrap();
    assert_eq!(artifact(&report, "targets").meta["requests"], 4);
    assert_eq!(found.0.load(Ordering::Relaxed), 3);
}
