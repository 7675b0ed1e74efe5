//! `numerics: strict`: equal keys are equal bits, whatever was set, kept or interrupted before.
//!
//! Parameters that are not in every key are of two kinds: those that never change a bit, and those that change last digits. Random settings of
//! all of them are run, each in a store of its own and one after the other in a store that they share, some of them interrupted; wherever a
//! key appears, its result must have the same digest.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::Bench;
use palinode_engine::{Digest, Event, Key, Observer, RunOptions, Store, run};
use palinode_stages::catalogue;
use serde_json::json;

/// What a CPU of two threads is called.
const CPU: &str = "some CPU (6/1), 2 threads";

/// A seeded stream of choices.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next(of.len())]
    }
}

/// Settings of one run: what no key covers, or only strict ones, and how much is asked for, which decides what is kept for the next run.
struct Settings {
    tokens: [&'static str; 8],
    requests: [&'static str; 2],
    limit: usize,
    samples: usize,
    interrupted: Option<u64>,
    copy: bool,
}

impl Settings {
    fn draw(random: &mut Random) -> Self {
        let tokens = ["", "batch_tokens: 2048", "batch_tokens: 4096", "batch_tokens: 300", "batch_tokens: 40"];
        let requests =
            ["", "parallel_requests: 1", "parallel_requests: 3", "parallel_requests: 8", "parallel_requests: 64"];
        Self {
            tokens: std::array::from_fn(|_| random.one(&tokens)),
            requests: std::array::from_fn(|_| random.one(&requests)),
            limit: [5, 9, 14][random.next(3)],
            samples: [64, 100, 120][random.next(3)],
            interrupted: (random.next(2) == 0).then(|| 1 + random.next(9) as u64),
            copy: random.next(2) == 0,
        }
    }

    fn pipeline(&self, numerics: &str) -> String {
        let [moments, scores, perplexity, probes, preflight, select, trace, reference] = self.tokens;
        let [targets, sequence] = self.requests;
        // Names of files and folders are in no key.
        let copy = if self.copy { "copy-" } else { "" };
        format!(
            "
name: strict
numerics: {numerics}
stages:
  model: {{ uses: load_model, with: {{ path: {copy}gpt2 }} }}
  edits: {{ uses: load_requests, with: {{ dataset: jsonl, path: {copy}requests.jsonl, limit: {limit} }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: {copy}corpus.txt, layers: [0, 1], samples: {samples}, {moments} }} }}
  known: {{ uses: select, inputs: {{ model: model, requests: edits }}, with: {{ where: p_new < 1, {select} }} }}
  before: {{ uses: preflight, inputs: {{ model: model, requests: edits }}, with: {{ layer: 1, {preflight} }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: edits }}, with: {{ layer: 1, steps: 4, {targets} }} }}
  plan: {{ uses: distribute, with: {{ strategy: memit, layers: [0, 1] }} }}
  update: {{ uses: solve, inputs: {{ model: model, requests: edits, moments: moments, targets: targets, plan: plan }}, with: {{ objective: memit, lambda: 10, batch_size: 7 }} }}
  rounds:
    uses: sequence
    inputs: {{ model: model, requests: edits, moments: moments, plan: plan }}
    with: {{ targets: {{ layer: 1, steps: 2, {sequence} }}, solve: {{ objective: memit, lambda: 10, batch_size: 7 }} }}
  scores: {{ uses: evaluate, inputs: {{ model: update, requests: edits }}, with: {{ samples: 2, resamples: 10, {scores} }} }}
  damage: {{ uses: perplexity, inputs: {{ model: update }}, with: {{ corpus: {copy}corpus.txt, samples: 70, resamples: 0, {perplexity} }} }}
  task: {{ uses: probes, inputs: {{ model: update }}, with: {{ path: {copy}task.jsonl, prompt: '{{text}} is', resamples: 0, {probes} }} }}
  seen: {{ uses: trace, inputs: {{ model: model, requests: edits }}, with: {{ all_prompts: true, draws: 2, window: 2, {trace} }} }}
  more: {{ uses: reference_metrics, inputs: {{ model: model, requests: edits }}, with: {{ sliding: 12, resamples: 0, {reference} }} }}
",
            limit = self.limit,
            samples = self.samples,
        )
    }
}

/// Parameters that never change a bit but are files by name, whose contents are in the key: read in tests of their own
/// (`tests/moments.rs`, `tests/patch.rs`, `crates/data/tests`); and how a server is called, which `crates/cli/tests/answers.rs` varies.
const FILES: [(&str, &str); 16] = [
    ("export", "overwrite"),
    ("export_moments", "overwrite"),
    ("judge", "most_calls"),
    ("judge", "parallel_calls"),
    ("judge", "retries"),
    ("judge", "timeout"),
    ("judge", "verdicts"),
    ("load_moments", "check_text"),
    ("load_moments", "files"),
    ("load_moments", "folder"),
    ("load_moments", "layers"),
    ("load_moments", "samples"),
    ("load_requests", "snippets"),
    ("load_update", "path"),
    ("reference_metrics", "corpus"),
    ("reference_metrics", "snippets"),
];

/// What the settings vary.
const VARIED: [(&str, &str); 15] = [
    ("covariance", "batch_tokens"),
    ("covariance", "corpus"),
    ("evaluate", "batch_tokens"),
    ("load_model", "path"),
    ("load_requests", "path"),
    ("perplexity", "batch_tokens"),
    ("perplexity", "corpus"),
    ("preflight", "batch_tokens"),
    ("probes", "batch_tokens"),
    ("probes", "path"),
    ("reference_metrics", "batch_tokens"),
    ("select", "batch_tokens"),
    ("sequence", "targets.parallel_requests"),
    ("targets", "parallel_requests"),
    ("trace", "batch_tokens"),
];

#[test]
fn every_parameter_that_is_not_in_all_keys_is_varied_here() {
    let stages = catalogue();
    let infos: Vec<_> = stages.iter().map(|kind| kind.info()).collect();
    let lists = infos.iter().flat_map(|info| {
        info.unkeyed.iter().chain(info.last_digits).map(|parameter| (info.name, *parameter)).collect::<Vec<_>>()
    });
    let mut have: Vec<_> = lists.collect();
    let mut known: Vec<_> = VARIED.into_iter().chain(FILES).collect();
    have.sort_unstable();
    known.sort_unstable();
    assert_eq!(have, known);
}

/// Asks to stop once so many units were kept.
struct StopAfter {
    left: AtomicU64,
    interrupt: Arc<AtomicBool>,
}

impl Observer for StopAfter {
    fn event(&self, event: &Event) {
        if matches!(event, Event::UnitDone { .. }) && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.interrupt.store(true, Ordering::Relaxed);
        }
    }
}

fn bench() -> Bench {
    let bench = Bench::new();
    let (mut requests, mut task) = (String::new(), String::new());
    for i in 0..14 {
        let long = "very ".repeat(i % 4);
        let record = json!({
            "id": format!("r{i}"), "subject": format!("The {long}old tower number {i}"), "prompt": "{} stands in",
            "target_new": "Rome by the sea", "target_true": "Paris", "paraphrases": ["They came to"], "neighbors": [],
        });
        let _ = writeln!(requests, "{record}");
        let label = ["old", "young"][i % 2];
        let _ = writeln!(task, "{}", json!({ "text": format!("A {long}tower"), "label": label }));
    }
    std::fs::write(bench.path("requests.jsonl"), requests).unwrap();
    std::fs::write(bench.path("task.jsonl"), task).unwrap();
    for name in ["requests.jsonl", "task.jsonl", "corpus.txt"] {
        std::fs::copy(bench.path(name), bench.path(&format!("copy-{name}"))).unwrap();
    }
    std::fs::create_dir(bench.path("copy-gpt2")).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(bench.path("gpt2").join(name), bench.path("copy-gpt2").join(name)).unwrap();
    }
    bench
}

/// Runs in a store; the results that are there afterwards, by stage and key.
fn results(bench: &Bench, settings: &Settings, numerics: &str, store: &Path) -> BTreeMap<(String, Key), Digest> {
    let store = Arc::new(Store::open(store).unwrap());
    for stop in [settings.interrupted, None] {
        let mut pipeline = bench.load(&settings.pipeline(numerics)).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        pipeline.compute_on(CPU);
        let interrupt = Arc::new(AtomicBool::new(false));
        let left = AtomicU64::new(stop.unwrap_or(u64::MAX));
        let observer: Arc<dyn Observer> = Arc::new(StopAfter { left, interrupt: Arc::clone(&interrupt) });
        let options = RunOptions { interrupt, ..RunOptions::default() };
        let report = run(&pipeline, &catalogue(), &store, &options, &observer).unwrap();
        if stop.is_none() {
            for stage in &report.stages {
                assert!(stage.artifact.is_some(), "{}: {:?}", stage.instance, stage.outcome);
            }
        }
    }
    let manifests = store.manifests().into_iter();
    manifests.map(|made| ((made.fingerprint.stage.clone(), made.key), made.output.digest())).collect()
}

/// Adds results to those known; the stages of which a key has two.
fn differing(known: &mut BTreeMap<(String, Key), Digest>, more: BTreeMap<(String, Key), Digest>) -> Vec<String> {
    let other = |((stage, key), digest): ((String, Key), Digest)| {
        let first = *known.entry((stage.clone(), key)).or_insert(digest);
        (first != digest).then_some(stage)
    };
    more.into_iter().filter_map(other).collect()
}

#[test]
fn equal_keys_are_equal_bits_under_strict_numerics() {
    const CASES: usize = 6;
    let bench = bench();
    let mut random = Random(11);
    let cases: Vec<Settings> = (0..CASES).map(|_| Settings::draw(&mut random)).collect();
    for numerics in ["strict", "portable"] {
        let mut known = BTreeMap::new();
        let mut found = Vec::new();
        for (number, settings) in cases.iter().enumerate() {
            let alone = bench.path(&format!("{numerics}-{number}"));
            found.extend(differing(&mut known, results(&bench, settings, numerics, &alone)));
            if numerics == "strict" {
                let shared = bench.path("shared");
                found.extend(differing(&mut known, results(&bench, settings, numerics, &shared)));
            }
        }
        found.sort_unstable();
        found.dedup();
        if numerics == "strict" {
            assert_eq!(found, Vec::<String>::new());
        } else {
            // Otherwise the settings drawn here could not show anything. What kernels compute is the same whatever stands beside it, so that
            // targets do not differ even here.
            assert!(found.iter().any(|name| name == "covariance"), "{found:?}");
        }
    }
}
