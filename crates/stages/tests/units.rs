//! Cuts that parameters decide: whatever is interrupted, kept, computed apart or finished in another order, the bits are those of one
//! undisturbed run.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Bench, artifact};
use palinode_edit::Moments;
use palinode_engine::{
    Action, DescribeCx, Digest, Event, Observer, Outcome, RunOptions, Share, Silent, Store, WorkerCommand, run, work,
};
use palinode_math::SecondMoment;
use palinode_model::{Decoder, Text};
use palinode_stages::catalogue;
use serde_json::json;

/// Documents of a unit, and of a part.
const UNIT: usize = 64;
const PART: usize = 64 * UNIT;

/// Asks to stop once so many units were kept, in one store after the other.
struct StopAfter {
    left: AtomicU64,
    interrupt: Arc<AtomicBool>,
}

impl Observer for StopAfter {
    fn event(&self, event: &Event) {
        if matches!(event, Event::UnitDone { .. }) && self.left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.interrupt.store(true, Ordering::Relaxed);
        }
    }
}

/// Asks to stop when a stage has done so many items.
struct StopAt {
    stage: &'static str,
    items: u64,
    interrupt: Arc<AtomicBool>,
}

impl Observer for StopAt {
    fn event(&self, event: &Event) {
        if let Event::Progress { instance, done, what, .. } = event
            && instance == self.stage
            && what != "documents found"
            && *done >= self.items
        {
            self.interrupt.store(true, Ordering::Relaxed);
        }
    }

    /// Counts are judged here: each step must be told, however fast the machine is.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

/// Runs with an observer that may ask to stop; says whether all stages have results.
fn run_with(bench: &Bench, yaml: &str, observer: impl FnOnce(Arc<AtomicBool>) -> Arc<dyn Observer>) -> bool {
    let pipeline = bench.load(yaml).unwrap();
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    let interrupt = Arc::new(AtomicBool::new(false));
    let observer = observer(Arc::clone(&interrupt));
    let report =
        run(&pipeline, &catalogue(), &store, &RunOptions { interrupt, ..RunOptions::default() }, &observer).unwrap();
    report.stages.iter().all(|stage| stage.artifact.is_some())
}

/// More documents than a part has, of two words each.
fn long_corpus(bench: &Bench, documents: usize) {
    let words = ["river", "tower", "poet", "city", "old", "young", "bridge", "harbour", "lake", "sea", "was"];
    let mut text = String::new();
    for i in 0..documents {
        let _ = writeln!(text, "{} {} {}", words[i % 11], words[i / 11 % 11], words[(i * 7 + i / 121) % 11]);
    }
    std::fs::write(bench.path("corpus.txt"), text).unwrap();
}

fn moments(samples: usize, more: &str) -> String {
    format!(
        "
name: moments
stages:
  model: {{ uses: load_model, with: {{ path: gpt2 }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: corpus.txt, layers: [0, 1], samples: {samples}{more} }} }}
"
    )
}

#[test]
fn second_moments_are_the_same_however_often_they_are_interrupted() {
    const DOCUMENTS: usize = 2 * PART + 3 * UNIT + 5;
    let whole = Bench::new();
    long_corpus(&whole, DOCUMENTS);
    let expected = artifact(&whole.run(&moments(DOCUMENTS, "")), "moments").digest();

    // Stopped at the beginning, within a part, just before and at a part's end, and in the last, smaller unit.
    let bench = Bench::new();
    long_corpus(&bench, DOCUMENTS);
    let unit = UNIT as u64;
    for items in [1, 5 * unit, 63 * unit, 64 * unit, 65 * unit, 128 * unit, 130 * unit] {
        let ended = run_with(&bench, &moments(DOCUMENTS, ""), |interrupt| {
            Arc::new(StopAt { stage: "moments", items, interrupt })
        });
        assert!(!ended, "nothing was left to do after {items} documents");
    }
    assert!(artifact(&bench.run(&moments(DOCUMENTS, "")), "moments").digest() == expected);

    // Grown from a smaller sample, within a part and beyond it; then another layer.
    let bench = Bench::new();
    long_corpus(&bench, DOCUMENTS);
    for samples in [10 * UNIT, PART + 7] {
        bench.run(&moments(samples, "").replace("[0, 1]", "[1]"));
    }
    assert!(artifact(&bench.run(&moments(DOCUMENTS, "")), "moments").digest() == expected);
}

/// A sample that ends by itself ends at the same unit wherever it was interrupted, and has the sums of its documents.
#[test]
fn what_ends_a_sample_is_the_same_however_often_it_is_interrupted() {
    let auto = ", tokens: auto, tolerance: 0.08";
    let documents = |made: &palinode_engine::Artifact| made.meta["documents"].as_u64().unwrap();
    let whole = Bench::new();
    long_corpus(&whole, PART);
    let report = whole.run(&moments(PART, auto));
    let expected = artifact(&report, "moments");
    let taken = documents(expected);
    assert!((256..PART as u64).contains(&taken) && taken.is_multiple_of(UNIT as u64), "{taken}");

    let bench = Bench::new();
    long_corpus(&bench, PART);
    let unit = UNIT as u64;
    for items in [1, 2 * unit, 3 * unit, taken - unit] {
        let ended =
            run_with(&bench, &moments(PART, auto), |interrupt| Arc::new(StopAt { stage: "moments", items, interrupt }));
        assert!(!ended, "nothing was left to do after {items} documents");
    }
    assert_eq!(artifact(&bench.run(&moments(PART, auto)), "moments").digest(), expected.digest());

    // A smaller tolerance takes more, and the least that there can be takes all.
    let bench = Bench::new();
    long_corpus(&bench, PART);
    let more = documents(artifact(&bench.run(&moments(PART, &auto.replace("0.08", "0.05"))), "moments"));
    assert!(more > taken, "{more} after {taken}");
    let all = documents(artifact(&bench.run(&moments(PART / 2, &auto.replace("0.08", "1e-9"))), "moments"));
    assert_eq!(all, PART as u64 / 2);
}

/// The sums of all experts are kept and found again together, each with its halves.
#[test]
fn second_moments_by_expert_are_the_same_however_often_they_are_interrupted() {
    const DOCUMENTS: usize = 6 * UNIT + 5;
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures/mixtral-tiny");
    for more in ["", ", tokens: auto, tolerance: 1e-9"] {
        let yaml = moments(DOCUMENTS, more).replace("path: gpt2", &format!("path: \"{model}\""));
        let whole = Bench::new();
        long_corpus(&whole, DOCUMENTS);
        let report = whole.run(&yaml);
        let expected = artifact(&report, "moments");
        assert!(expected.meta["layers"][0]["halves"]["moment"].as_f64().is_some(), "{}", expected.meta);
        let bench = Bench::new();
        long_corpus(&bench, DOCUMENTS);
        let unit = UNIT as u64;
        for items in [1, 2 * unit, 3 * unit, 6 * unit] {
            let ended = run_with(&bench, &yaml, |interrupt| Arc::new(StopAt { stage: "moments", items, interrupt }));
            assert!(!ended, "nothing was left to do after {items} documents");
        }
        assert_eq!(artifact(&bench.run(&yaml), "moments").digest(), expected.digest(), "{more}");
    }
}

/// What a cluster does: each part by itself, in any order, then the parts' sums in order.
#[test]
fn parts_that_are_computed_apart_add_up_to_the_same_bits() {
    const DOCUMENTS: usize = 2 * PART + 100;
    let bench = Bench::new();
    long_corpus(&bench, DOCUMENTS);
    let yaml = moments(DOCUMENTS, "");
    let report = bench.run(&yaml);
    let made = artifact(&report, "moments");

    // The sample's order is the seed's: all documents are taken, so a file in that order gives them as they were read.
    let decoder = bench.decoder("gpt2");
    let documents = in_order(&bench, &decoder);
    let part = |range: std::ops::Range<usize>| {
        let mut moments = Moments::new();
        for layer in [0, 1] {
            moments.insert(&decoder, layer, SecondMoment::new(decoder.config().feed_forward)).unwrap();
        }
        documents[range].chunks(UNIT).for_each(|unit| {
            moments.add(&decoder, unit, 2048).unwrap();
        });
        moments.take().unwrap()
    };
    let mut parts: BTreeMap<usize, _> = BTreeMap::new();
    for number in [2, 0, 1] {
        parts.insert(number, part(number * PART..((number + 1) * PART).min(DOCUMENTS)));
    }
    let mut parts = parts.into_values();
    let mut total = parts.next().unwrap();
    for other in parts {
        for (layer, sum) in &mut total {
            sum.merge(&other[layer]).unwrap();
        }
    }
    for (layer, sum) in &total {
        let bytes = std::fs::read(bench.blob(made, &format!("layer{layer}.safetensors"))).unwrap();
        let kept = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let kept = kept.tensor("sum").unwrap();
        let ours: Vec<u8> =
            (0..sum.size()).flat_map(|i| sum.row(i).collect::<Vec<_>>()).flat_map(f64::to_le_bytes).collect();
        assert!(kept.data() == ours, "layer {layer}");
    }
}

/// Ends a stage right after it has kept so many units, as a kill does: nothing that it would do then is done. Counts what it measured.
struct KilledAfter {
    units: u64,
    kept: AtomicU64,
    measured: AtomicU64,
}

impl KilledAfter {
    fn new(units: u64) -> Arc<Self> {
        Arc::new(Self { units, kept: AtomicU64::new(0), measured: AtomicU64::new(0) })
    }

    fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    fn measured(&self) -> u64 {
        self.measured.load(Ordering::Relaxed)
    }
}

impl Observer for KilledAfter {
    fn event(&self, event: &Event) {
        match event {
            Event::UnitDone { .. } => {
                let kept = self.kept.fetch_add(1, Ordering::Relaxed) + 1;
                assert!(kept != self.units, "killed after {kept} units");
            }
            Event::Progress { what, done, kept, .. } if what == "documents" => {
                self.measured.store(done - kept, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

/// The action of the stage of second moments.
fn action_of_moments(bench: &Bench, yaml: &str) -> Action {
    bench.run(&yaml[..yaml.find("  moments:").unwrap()]);
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    // A worker that does nothing leaves its action.
    let worker = Some(WorkerCommand(vec!["false".into()]));
    let options = RunOptions { worker, ..RunOptions::default() };
    let observer: Arc<dyn Observer> = Arc::new(Silent);
    let report = run(&bench.load(yaml).unwrap(), &catalogue(), &store, &options, &observer).unwrap();
    Action::read(&report.dir.join("actions/0001-moments.json")).unwrap()
}

/// A bench where the moments of so many documents are to be computed, the action that does it, and what one process makes of it.
fn begun(documents: usize) -> (Bench, Action, Digest) {
    let yaml = moments(documents, "");
    let [whole, bench] = [Bench::new(), Bench::new()];
    for bench in [&whole, &bench] {
        long_corpus(bench, documents);
    }
    let expected = artifact(&whole.run(&yaml), "moments").digest();
    let action = action_of_moments(&bench, &yaml);
    (bench, action, expected)
}

/// Parts of shares are joined with one total written for each layer. A kill right after one was written, before the parts that are in it are let
/// go of and before the other layer is joined, loses nothing: neither the whole nor a share measures anything again.
#[test]
fn a_join_that_is_killed_loses_nothing() {
    const DOCUMENTS: usize = 3 * PART + 100;
    let (_bench, action, expected) = begun(DOCUMENTS);
    let works = |share: Option<Share>, observer: &Arc<KilledAfter>| {
        let observer: Arc<dyn Observer> = Arc::clone(observer) as _;
        work(&Action { share, ..action.clone() }, &catalogue(), &observer, &Arc::default())
    };
    let share = |number: usize, measures: u64| {
        let observer = KilledAfter::new(u64::MAX);
        works(Some(Share { number, of: 2 }), &observer).unwrap();
        assert_eq!(observer.measured(), measures, "share {number}");
    };
    share(0, 2 * PART as u64);
    share(1, PART as u64 + 100);
    for layer in 0..2 {
        let observer = KilledAfter::new(1);
        let error = works(None, &observer).unwrap_err().to_string();
        assert!(error.contains("killed after 1 units"), "layer {layer}: {error}");
        assert_eq!((observer.kept(), observer.measured()), (1, 0), "layer {layer}");
        share(0, 0);
        share(1, 0);
    }
    let observer = KilledAfter::new(u64::MAX);
    let made = works(None, &observer).unwrap().unwrap();
    assert_eq!((observer.kept(), observer.measured()), (0, 0));
    assert_eq!(made.content, expected);
}

/// A sum of a part that turns out to be damaged is measured again, and nothing else.
#[test]
fn a_part_that_is_damaged_is_measured_again() {
    const DOCUMENTS: usize = 3 * PART;
    let (bench, action, expected) = begun(DOCUMENTS);
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    for number in 0..3 {
        let share = Action { share: Some(Share { number, of: 3 }), ..action.clone() };
        work(&share, &catalogue(), &silent, &Arc::default()).unwrap();
    }
    let kept = units(&bench);
    assert_eq!(kept.len(), 6, "a sum for each part and layer");
    std::fs::write(&kept[2], "damaged").unwrap();
    let observer = KilledAfter::new(u64::MAX);
    let observed: Arc<dyn Observer> = Arc::clone(&observer) as _;
    let made = work(&action, &catalogue(), &observed, &Arc::default()).unwrap().unwrap();
    assert_eq!(made.content, expected);
    assert_eq!(observer.measured(), PART as u64);
}

/// Files of partial results in a store.
fn units(bench: &Bench) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(bench.path(".palinode/units")).unwrap().map(|folder| folder.unwrap().path());
    let mut files: Vec<_> =
        folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Token rows of all documents in the order in which the sample has them.
fn in_order(bench: &Bench, decoder: &Decoder) -> Vec<Vec<u32>> {
    use palinode_data::{Corpus, CorpusFile, Format, Reading, Sampling, Split};
    let text = Text::open(&bench.path("gpt2/tokenizer.json")).unwrap();
    let files = vec![CorpusFile { path: bench.path("corpus.txt"), format: Format::Text }];
    let reading = Reading { split: Split::Line, field: "text".into() };
    let mut corpus = Corpus::open(files, reading, Sampling { seed: 1, most: Some(usize::MAX) }, &mut |_| true).unwrap();
    let context = decoder.config().context;
    (0..corpus.len())
        .map(|i| {
            let mut ids = text.encode(&corpus.read(i).unwrap()).unwrap();
            ids.truncate(context);
            ids
        })
        .collect()
}

/// A batch stays within its unit: what is computed for two units is what is computed for each of them.
#[test]
fn no_batch_crosses_a_unit() {
    let tokens = |samples: &str| {
        let bench = Bench::new();
        // The second unit's documents are longer: a batch across the border would be padded to their length.
        let short = "a river\n".repeat(UNIT);
        let long = "the tower of the old city by the river and by the sea was said to be young\n".repeat(UNIT);
        let text = match samples {
            "first" => short,
            "second" => long,
            _ => format!("{short}{long}"),
        };
        let decoder = bench.decoder("gpt2");
        let tokenizer = Text::open(&bench.path("gpt2/tokenizer.json")).unwrap();
        let rows: Vec<Vec<u32>> = text.lines().map(|line| tokenizer.encode(line).unwrap()).collect();
        let mut moments = Moments::new();
        moments.insert(&decoder, 1, SecondMoment::new(decoder.config().feed_forward)).unwrap();
        let before = decoder.work();
        rows.chunks(UNIT).for_each(|unit| {
            moments.add(&decoder, unit, 4096).unwrap();
        });
        (decoder.work() - before).block_tokens
    };
    assert_eq!(tokens("first") + tokens("second"), tokens("both"));
}

const FACTS: usize = 40;

/// A pipeline of targets and scores for forty requests of different lengths.
fn facts(bench: &Bench, targets: &str, scores: &str) -> String {
    let mut text = String::new();
    for i in 0..FACTS {
        let long = "very ".repeat(i % 5);
        let _ = writeln!(
            text,
            "{}",
            json!({
                "id": format!("r{i}"), "subject": format!("The {long}old tower number {i}"), "prompt": "{} stands in",
                "target_new": "Rome", "target_true": "Paris", "paraphrases": [], "neighbors": [],
            })
        );
    }
    std::fs::write(bench.path("requests.jsonl"), text).unwrap();
    format!(
        "
name: facts
stages:
  model: {{ uses: load_model, with: {{ path: gpt2 }} }}
  edits: {{ uses: load_requests, with: {{ dataset: jsonl, path: requests.jsonl }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: edits }}, with: {{ layer: 1, steps: 3{targets} }} }}
  scores: {{ uses: evaluate, inputs: {{ model: model, requests: edits }}, with: {{ samples: 0{scores} }} }}
"
    )
}

#[test]
fn targets_and_scores_are_the_same_however_often_they_are_interrupted() {
    let whole = Bench::new();
    let yaml = facts(&whole, "", "");
    let report = whole.run(&yaml);
    let expected = ["targets", "scores"].map(|name| artifact(&report, name).digest());
    for units in [1, 2, 3] {
        let bench = Bench::new();
        facts(&bench, "", "");
        let mut runs = 0;
        while !run_with(&bench, &yaml, |interrupt| Arc::new(StopAfter { left: AtomicU64::new(units), interrupt })) {
            runs += 1;
            assert!(runs < 100, "units are not found again");
        }
        assert!(runs > 1, "nothing was interrupted");
        let report = bench.run(&yaml);
        assert!(["targets", "scores"].map(|name| artifact(&report, name).digest()) == expected, "after {units} units");
    }
}

/// Edits one by one: what was solved before an interruption is found again, and the bits are the same.
#[test]
fn solved_edits_are_kept() {
    let pipeline = |bench: &Bench| {
        facts(bench, "", "").replace(
            "  scores:",
            "  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1] } }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan }
    with: { objective: rome, lambda: 10 }
  scores:",
        )
    };
    let whole = Bench::new();
    let expected = artifact(&whole.run(&pipeline(&whole)), "update").digest();
    let bench = Bench::new();
    let yaml = pipeline(&bench);
    let stopped = |items| run_with(&bench, &yaml, |interrupt| Arc::new(StopAt { stage: "update", items, interrupt }));
    assert!(!stopped(7) && !stopped(23), "nothing was interrupted");
    let kept = Arc::new(Kept { of: "update", most: AtomicU64::new(0) });
    assert!(run_with(&bench, &yaml, |_| Arc::clone(&kept) as Arc<dyn Observer>));
    assert!(kept.most.load(Ordering::Relaxed) >= 23);
    assert!(artifact(&bench.run(&yaml), "update").digest() == expected);
}

/// As many as there are cores for, one batch after the other, or all: the same targets.
#[test]
fn requests_that_are_searched_for_in_parallel_do_not_show() {
    let digest = |with: &str| {
        let bench = Bench::new();
        let report = bench.run(&facts(&bench, with, ""));
        artifact(&report, "targets").digest()
    };
    let expected = digest("");
    for parallel in [8, 16, 1000] {
        assert!(digest(&format!(", parallel_requests: {parallel}")) == expected, "{parallel}");
    }
}

/// What a run under other settings kept is taken over, and under strict numerics only what no digit depends on.
#[test]
fn units_are_found_again_under_other_settings_unless_numerics_are_strict() {
    for (numerics, found) in [("portable", true), ("strict", false)] {
        let bench = Bench::new();
        let yaml = |targets: &str, scores: &str| format!("numerics: {numerics}{}", facts(&bench, targets, scores));
        // The evaluation is stopped after its first unit.
        let stopped =
            run_with(&bench, &yaml("", ""), |interrupt| Arc::new(StopAt { stage: "scores", items: 1, interrupt }));
        assert!(!stopped);
        let kept = Arc::new(Kept { of: "scores", most: AtomicU64::new(0) });
        assert!(run_with(&bench, &yaml("", ", batch_tokens: 64"), |_| Arc::clone(&kept) as Arc<dyn Observer>));
        assert_eq!(kept.most.load(Ordering::Relaxed) > 0, found, "{numerics}");
    }
}

/// The most records that were counted as found.
struct Kept {
    of: &'static str,
    most: AtomicU64,
}

impl Observer for Kept {
    fn event(&self, event: &Event) {
        if let Event::Progress { instance, kept, .. } = event
            && instance == self.of
        {
            self.most.fetch_max(*kept, Ordering::Relaxed);
        }
    }

    /// Counts are judged here: each step must be told, however fast the machine is.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

/// The old name of a parameter is read, with a warning that gives the new one, and finds the results made under it.
#[test]
fn an_old_name_is_read_with_a_warning() {
    let bench = Bench::new();
    let new = facts(&bench, ", parallel_requests: 16", "");
    let old = new.replace("parallel_requests", "at_once");
    let pipeline = bench.load(&old).unwrap();
    let [warning] = &pipeline.warnings.0[..] else { panic!("{}", pipeline.warnings) };
    assert!(warning.line().starts_with("pipeline.yaml:6:"), "{warning}");
    assert!(warning.message.contains("`at_once` of `targets` is now called `parallel_requests`"), "{warning}");
    assert!(bench.load(&new).unwrap().warnings.0.is_empty());
    bench.run(&old);
    let report = bench.run(&new);
    assert!(report.stages.iter().all(|stage| stage.outcome == Outcome::Cached));

    let both = new.replace("parallel_requests: 16", "parallel_requests: 16, at_once: 8");
    assert!(bench.load(&both).unwrap_err().to_string().contains("`at_once` is the old name of `parallel_requests`"));
    let zero = bench.load(&old.replace("at_once: 16", "at_once: 0")).unwrap_err().to_string();
    assert!(zero.contains("at_once: 0"), "{zero}");
}

/// How a stage is cut is known before it runs.
#[test]
fn plans_of_units_can_be_asked_for() {
    let stages = catalogue();
    let units = |uses: &str, with: serde_json::Value| {
        let stage = stages.get(uses).unwrap();
        let params = stage.params(with).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let facts = json!({ "requests": 130 });
        let inputs = BTreeMap::from([("requests", ("requests", &facts))]);
        let plan = stage.units(&params, &DescribeCx::new(std::path::Path::new("."), inputs))?;
        Some((plan.what, plan.items, plan.units(), plan.parts()))
    };
    assert_eq!(units("targets", json!({ "layer": 1 })), Some(("requests", 130, 3, 3)));
    assert_eq!(units("evaluate", json!({})), Some(("records", 130, 5, 5)));
    let with = json!({ "corpus": "a.txt", "layers": [1], "samples": 100_000 });
    assert_eq!(units("covariance", with), Some(("documents", 100_000, 1563, 25)));
    assert_eq!(units("covariance", json!({ "corpus": "a.txt", "layers": [1], "tokens": "10f" })), None);
    let with = json!({ "targets": { "layer": 1 }, "solve": { "objective": "memit", "lambda": 10, "batch_size": 10 } });
    assert_eq!(units("sequence", with), Some(("edits", 130, 13, 1)));
    let with = json!({ "objective": "rome", "lambda": 10 });
    assert_eq!(units("solve", with), Some(("requests", 130, 130, 130)));
    assert_eq!(units("load_model", json!({ "path": "." })), None);
}

/// A run says the warnings as events.
#[test]
fn runs_tell_warnings_of_old_names() {
    let bench = Bench::new();
    let yaml = facts(&bench, ", at_once: 16", "");
    let heard = Arc::new(Heard::default());
    run_with(&bench, &yaml, |_| Arc::clone(&heard) as Arc<dyn Observer>);
    assert_eq!(heard.0.load(Ordering::Relaxed), 1);
    run_with(&bench, &yaml.replace("at_once", "parallel_requests"), |_| Arc::new(Silent));
}

#[derive(Default)]
struct Heard(AtomicU64);

impl Observer for Heard {
    fn event(&self, event: &Event) {
        if let Event::Warning { message, .. } = event
            && message.contains("is now called")
        {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Factors, merged second moments and answers are kept layer by layer and prompt by prompt.
#[test]
fn stages_of_many_layers_and_prompts_go_on_where_they_were() {
    let yaml = "
name: many
stages:
  model: { uses: load_model, with: { path: gpt2 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [0, 1, 2] } }
  others: { uses: covariance, inputs: { model: model }, with: { corpus: requests.jsonl, format: text, layers: [0, 1, 2] } }
  merged: { uses: merge_moments, inputs: { moments: moments, other: others } }
  factors: { uses: factor, inputs: { moments: merged }, with: { lambda: 10 } }
  answers: { uses: ask, inputs: { model: model }, with: { prompts: [The river, The tower, A poet], tokens: 3 } }
";
    let expected = Bench::new().run(yaml);
    for stage in ["merged", "factors", "answers"] {
        let bench = Bench::new();
        let ended = run_with(&bench, yaml, |interrupt| Arc::new(StopAt { stage, items: 1, interrupt }));
        assert!(!ended, "{stage} was not stopped");
        let units = Arc::new(Counted { stage, units: AtomicU64::new(0) });
        let seen = Arc::clone(&units);
        assert!(run_with(&bench, yaml, |_| seen));
        assert!(units.units.load(Ordering::Relaxed) < 3, "{stage}: what was finished is not made again");
        let report = bench.run(yaml);
        for name in ["merged", "factors", "answers"] {
            assert!(artifact(&report, name).digest() == artifact(&expected, name).digest(), "{name} after {stage}");
        }
    }
}

/// Counts the units that a stage makes.
struct Counted {
    stage: &'static str,
    units: AtomicU64,
}

impl Observer for Counted {
    fn event(&self, event: &Event) {
        if matches!(event, Event::UnitDone { instance, .. } if instance == self.stage) {
            self.units.fetch_add(1, Ordering::Relaxed);
        }
    }
}
