//! Kinds of artifacts: their facts are what they have always been, and are read as types alone.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Bench, PIPELINE, artifact};
use palinode_engine::shown::Shown;
use serde_json::Value;

/// The shape of a value: names and types of its fields, and of the first item of a list.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if number.is_f64() => "float".to_owned(),
        Value::Number(_) => "int".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(items) => format!("[{}]", items.first().map(shape).unwrap_or_default()),
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let fields: Vec<_> = sorted.iter().map(|(name, value)| format!("{name}: {}", shape(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

/// Digests cover which fields there are and whether a number is a count, so the snapshot was made by the last program that wrote
/// facts by hand, and holds for each that comes after it.
#[test]
fn facts_have_the_fields_that_they_have_always_had() {
    let bench = Bench::new();
    let yaml = PIPELINE
        .replace("MODEL", "gpt2")
        .replace("[rome, memit, emmet]", "[emmet]")
        .replace("[single, memit]", "[memit]")
        .replace("${matrix.objective}-${matrix.strategy}", "edited");
    let yaml = format!("{yaml}{MORE}");
    let report = bench.run(&yaml);
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    for stage in &report.stages {
        let artifact = stage.artifact.as_ref().unwrap_or_else(|| panic!("{}: {:?}", stage.instance, stage.outcome));
        let files: Vec<_> = artifact.files.keys().map(String::as_str).collect();
        let name = stage.instance.split('[').next().unwrap_or_default();
        let mut text = format!("{}\n  {}", shape(&artifact.meta), files.join(" "));
        // What no arithmetic has touched is the same everywhere.
        if ["model", "requests", "plan"].contains(&artifact.kind.as_str()) {
            text = format!("{text}\n  {}", artifact.digest());
        }
        kinds.insert(format!("{} of {name}", artifact.kind), text);
        // What is shown of it is all that is shown: nothing is lost on the way through the type.
        let shown = serde_json::to_value(Shown::of(&artifact.meta)).unwrap();
        for (name, value) in shown.as_object().unwrap() {
            assert_eq!(value, &artifact.meta[name], "{name} of {}", stage.instance);
        }
    }
    // So are the bytes of what is written as JSON: sorted fields, and the digits of f64.
    let targets = artifact(&report, "targets");
    let traces = fs::read_to_string(bench.blob(targets, "traces.json")).unwrap();
    assert!(traces.starts_with("[{\"id\":\"tower\",\"steps\":[{\"decay\":0.0,"), "{traces}");
    let text: String = kinds.iter().map(|(name, facts)| format!("{name}\n  {facts}\n\n")).collect();
    insta::assert_snapshot!(text);
}

/// Stages of the other kinds, beside those of the common pipeline.
const MORE: &str = "
  factors: { uses: factor, inputs: { moments: moments }, with: { lambda: 10, update_norm_lambda: 0.5 } }
  rounds:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 1, steps: 2 }
      solve: { objective: memit, lambda: 10, batch_size: 1 }
      rounds: 2
  steps: { uses: evaluate, inputs: { model: rounds, requests: edits }, with: { every: 1, resamples: 10 } }
  text: { uses: perplexity, inputs: { model: rounds }, with: { corpus: corpus.txt, samples: 3, every: 1, resamples: 10 } }
  said: { uses: ask, inputs: { model: rounds }, with: { prompts: ['The tower'], tokens: 2, top: 2 } }
  first: { uses: preflight, inputs: { model: model, requests: edits, moments: moments }, with: { layer: 1 } }
";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A field of an artifact is read and written through the type of its kind: a name that is misspelt does not compile.
#[test]
fn facts_are_looked_up_by_no_string() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&folder, &mut found);
    assert!(found.len() > 40, "{found:?}");
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        for forbidden in
            ["meta[", "meta.get(", "meta = ", "Artifact::new(", ".input(\"", ".input_opt(\"", "accepts: &["]
        {
            assert!(!text.contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}
