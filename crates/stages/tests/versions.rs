//! A stage's version says what its parameters, its results and their files are like. `versions.txt` is the record: a line for every version
//! of every stage. A change of a stage without a new version fails here, and so does a stage that is not in the record. `numbers.txt` has
//! numbers of stages whose arithmetic is rounded, each with its tolerance.
//!
//! Lines are added and never changed: results of a version lie in people's stores. Where a new version leaves results as good as they were,
//! its stage says so (`StageKind::carries`), and nobody computes anything again.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use common::{Bench, artifact};
use palinode_engine::Digest;
use palinode_stages::catalogue;
use serde_json::Value;

const RECORD: &str = include_str!("versions.txt");

/// Numbers of stages whose last digits differ between machines, each with its tolerance.
const NUMBERS: &str = include_str!("numbers.txt");

/// Stages whose results a tiny pipeline shows: fields of their facts, and their files.
const MEASURED: &str = "
name: all
stages:
  model: { uses: load_model, with: { path: gpt2 } }
  edits: { uses: load_requests, with: { dataset: jsonl, path: requests.jsonl } }
  facts: { uses: requests, with: { facts: [{ subject: The tower, prompt: '{} stands in', target_new: Rome }] } }
  contexts: { uses: templates, with: { groups: [['{}'], ['It is. {}', 'So. {}']] } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1, 2] } }
  below: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [0, 1] } }
  others: { uses: covariance, inputs: { model: model }, with: { corpus: requests.jsonl, format: text, layers: [1, 2] } }
  merged: { uses: merge_moments, inputs: { moments: moments, other: others } }
  factors: { uses: factor, inputs: { moments: moments }, with: { lambda: 10 } }
  checked: { uses: preflight, inputs: { model: model, requests: edits }, with: { layer: 1 } }
  targets: { uses: targets, inputs: { model: model, requests: edits, templates: contexts }, with: { layer: 1, steps: 2 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  lower: { uses: distribute, with: { strategy: memit, layers: [0, 1] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: below, targets: targets, plan: lower, templates: contexts }
    with: { objective: emmet, lambda: 10, emmet_lambda: 0.1 }
  treated: { uses: rect, inputs: { update: update } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: edits, moments: below, plan: lower, templates: contexts }
    with: { targets: { layer: 1, steps: 2 }, solve: { objective: memit, lambda: 10, batch_size: 2 } }
  scores: { uses: evaluate, inputs: { model: update, requests: edits } }
  text: { uses: perplexity, inputs: { model: update }, with: { corpus: corpus.txt, samples: 4 } }
  answers: { uses: ask, inputs: { model: update }, with: { prompts: [The river], tokens: 2 } }
  seen: { uses: trace, inputs: { model: model, requests: edits }, with: { all_prompts: true, draws: 2, window: 2 } }
  located: { uses: locate, inputs: { model: model, requests: edits, moments: below }, with: { layers: [0, 1], steps: 2 } }
  more:
    uses: reference_metrics
    inputs: { model: update, requests: edits, targets: targets, templates: contexts }
    with: { sliding: 12, corpus: corpus.txt, tokens: 200, generation: { length: 10 } }
  out: { uses: export, inputs: { model: update }, with: { path: out } }
  published: { uses: export_moments, inputs: { model: model, moments: moments }, with: { path: stats } }
";

/// Stages whose arithmetic is exact, so that their results are the same on every machine, with the result's digest.
const EXACT: [&str; 4] = ["edits", "facts", "contexts", "plan"];

/// A schema without what only people read.
fn bare(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, value)| {
                let words = ["description", "title"].contains(&name.as_str()) && value.is_string();
                !words
            });
            Value::Object(kept.map(|(name, value)| (name.clone(), bare(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(bare).collect()),
        other => other.clone(),
    }
}

/// The names of fields, dotted, without those of maps whose keys are data.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let data = name.contains('.') || name.parse::<usize>().is_ok();
                let path = format!("{at}.{}", if data { "*" } else { name });
                found.insert(path.clone());
                fields(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, at, found)),
        _ => {}
    }
}

/// What the record says now: a line for each stage, `name version parameters result contents`.
fn now() -> BTreeMap<String, (u32, String)> {
    let bench = Bench::new();
    let report = bench.run(MEASURED);
    let pipeline = bench.load(MEASURED).unwrap();
    let short = |text: &str| Digest::of(text.as_bytes()).to_string()[..12].to_owned();
    let mut results: BTreeMap<&str, (String, String)> = BTreeMap::new();
    for instance in &pipeline.instances {
        let made = artifact(&report, &instance.name);
        let mut shape = BTreeSet::from([made.kind.clone()]);
        fields(&made.meta, "", &mut shape);
        shape.extend(made.files.keys().map(|name| format!("/{name}")));
        let shape: Vec<String> = shape.into_iter().collect();
        let exact = EXACT.contains(&instance.name.as_str());
        let contents = if exact { made.digest().to_string()[..12].to_owned() } else { "-".to_owned() };
        // Of two instances of a kind, the one whose contents are known speaks for it.
        let kind = instance.kind.info().name;
        if exact || !results.contains_key(kind) {
            results.insert(kind, (short(&shape.join("\n")), contents));
        }
    }
    let kinds = catalogue();
    let line = |info: &palinode_engine::StageInfo| {
        let parameters = short(&bare(&info.schema).to_string());
        let (shape, contents) = results.get(info.name).cloned().unwrap_or(("-".to_owned(), "-".to_owned()));
        (info.name.to_owned(), (info.version, format!("{parameters} {shape} {contents}")))
    };
    kinds.iter().map(|kind| line(kind.info())).collect()
}

#[test]
fn a_changed_stage_has_a_new_version() {
    let now = now();
    let mut known: BTreeMap<(&str, u32), &str> = BTreeMap::new();
    for line in RECORD.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut parts = line.splitn(3, ' ');
        let (name, version) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
        assert!(known.insert((name, version), parts.next().unwrap()).is_none(), "{name} {version} stands there twice");
    }
    let mut wrong = String::new();
    for (name, (version, digests)) in &now {
        match known.get(&(name.as_str(), *version)) {
            Some(recorded) if recorded == digests => {}
            Some(recorded) => {
                let parts = ["parameters", "fields or files of the result", "contents of the result"];
                let changed = parts.iter().zip(recorded.split(' ').zip(digests.split(' ')));
                let changed: Vec<&str> = changed.filter(|(_, (old, new))| old != new).map(|(part, _)| *part).collect();
                writeln!(
                    wrong,
                    "`{name}`: its {} changed, and its version is still {version}. Raise VERSION; where earlier results are as good, name the \
                     version before in `carries`. Then add to versions.txt:\n{name} {} {digests}",
                    changed.join(" and "),
                    version + 1
                )
                .unwrap();
            }
            None => {
                writeln!(wrong, "`{name}`: version {version} is not in versions.txt. Add:\n{name} {version} {digests}")
                    .unwrap();
            }
        }
    }
    let gone: Vec<&str> = known.keys().map(|(name, _)| *name).filter(|name| !now.contains_key(*name)).collect();
    assert!(gone.is_empty(), "stages that are no more: {gone:?}");
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn wording_is_no_change_and_a_bound_is() {
    let schema = |text: &str| bare(&serde_json::from_str(text).unwrap());
    let a = schema(r#"{"title": "A", "properties": {"description": {"type": "number", "description": "words"}}}"#);
    let b = schema(r#"{"title": "B", "properties": {"description": {"type": "number", "description": "others"}}}"#);
    let c = schema(r#"{"title": "A", "properties": {"description": {"type": "number", "minimum": 0}}}"#);
    assert_eq!(a, b);
    assert_ne!(a, c);
}

/// Stages whose arithmetic is rounded, with the tolerance that a new number gets: what other machines, batches and libraries change.
const ROUNDED: [(&str, f64); 12] = [
    ("moments", 1e-5),
    ("merged", 1e-5),
    ("factors", 1e-5),
    ("checked", 1e-3),
    ("targets", 1e-3),
    ("update", 2e-3),
    ("treated", 2e-3),
    ("rounds", 5e-3),
    ("scores", 5e-3),
    ("text", 1e-4),
    ("answers", 1e-3),
    ("more", 5e-3),
];

/// The numbers in a value by their path.
fn numbers(value: &Value, at: &str, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| numbers(value, &format!("{at}.{name}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| numbers(item, &format!("{at}.{i}"), found));
        }
        Value::Number(number) => {
            found.insert(at.trim_start_matches('.').to_owned(), number.as_f64().unwrap());
        }
        _ => {}
    }
}

/// Arithmetic that changes by more than last digits is another version: results of one version are compared with each other, and taken for
/// each other.
#[test]
fn changed_arithmetic_has_a_new_version() {
    let bench = Bench::new();
    let report = bench.run(MEASURED);
    let pipeline = bench.load(MEASURED).unwrap();
    let mut known: BTreeMap<(&str, &str, u32, &str), (f64, f64)> = BTreeMap::new();
    for line in NUMBERS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let [instance, stage, version, path, value, tolerance] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not a line of six: {line}")
        };
        let numbers = (value.parse().unwrap(), tolerance.parse().unwrap());
        known.insert((instance, stage, version.parse().unwrap(), path), numbers);
    }
    let (mut wrong, mut missing) = (String::new(), String::new());
    for (name, tolerance) in ROUNDED {
        let info = pipeline.instance(name).unwrap().kind.info();
        let mut found = BTreeMap::new();
        numbers(&artifact(&report, name).meta, "", &mut found);
        for (path, value) in &found {
            match known.get(&(name, info.name, info.version, path.as_str())) {
                Some((before, allowed)) if (value - before).abs() <= allowed * before.abs().max(1e-3) => {}
                Some((before, allowed)) => writeln!(
                    wrong,
                    "`{}` {path}: {value}, and {before} in the table, which is more than {allowed:e} away: raise VERSION, and add the new numbers",
                    info.name
                )
                .unwrap(),
                None => writeln!(missing, "{name} {} {} {path} {value} {tolerance:e}", info.name, info.version).unwrap(),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(missing.is_empty(), "not in numbers.txt, add:\n{missing}");
}
