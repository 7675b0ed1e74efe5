//! Pipelines built in code: mistakes point at stages and parameters, files that are written load to the same keys, results are read.

use std::path::Path;
use std::sync::Arc;

use palinode::{Observer, Outcome, PipelineBuilder, Recipe, Results, RunOptions, Silent, Status, Store, plan, run};
use serde_json::{Value, json};
use tempfile::TempDir;

fn facts(prompt: &str) -> Value {
    json!([{ "subject": "Finland", "prompt": prompt, "target_new": "Africa" }])
}

#[test]
fn mistakes_name_the_stage_and_the_parameter() {
    let check = |build: &dyn Fn(&mut PipelineBuilder), expect: &[&str]| {
        let mut builder = PipelineBuilder::new("p");
        build(&mut builder);
        let mistakes = Recipe::built(builder, ".").check().unwrap_err();
        let found: Vec<String> = mistakes.0.iter().map(palinode::Diagnostic::line).collect();
        assert_eq!(found.len(), expect.len(), "{found:#?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found} does not begin with {expect}");
        }
    };
    check(
        &|build| {
            build.stage("a", "distribut").done();
        },
        &["stage `a`: there is no stage kind `distribut`"],
    );
    check(
        &|build| {
            build.stage("a", "distribute").with("strategy", "single").with("layer", vec![1]);
            build.stage("a", "requests").with("facts", facts("{} is in"));
        },
        &["stage `a`: two stages are named `a`", "stage `a`, `layer`: `distribute` has no parameter `layer`"],
    );
    check(
        &|build| {
            let fact = build.stage("fact", "requests").with("facts", facts("{} is in")).done();
            build.stage("ask", "ask").input("model", &fact).with("prompts", vec!["a"]);
        },
        &["stage `ask`, input `model`: input `model` does not take `requests`"],
    );
    check(
        &|build| {
            build.stage("fact", "requests").with("facts", facts("Norway is in"));
        },
        &["stage `fact`, `facts[0].prompt`: the subject is not in the prompt"],
    );
    // Values can be given names of their own, and parts of values too.
    check(
        &|build| {
            let stage = build.stage("fact", "requests").with("facts", facts("Norway is in"));
            stage.from("facts[0].prompt", "--prompt");
        },
        &["--prompt: "],
    );
}

#[test]
fn a_pipeline_that_is_written_down_has_the_same_keys() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut build = PipelineBuilder::new("yes").strict();
    // Texts are taken as they are, whatever they would mean in a file.
    for (at, text) in ["{} costs ${5}", "{}: \"is\"\n\tin 'it' # no", "{} ${vars.x} \\ é 🦀"].iter().enumerate() {
        build.stage(format!("fact{at}"), "requests").with("facts", facts(text));
    }
    build
        .stage("no", "distribute")
        .with("strategy", "weights")
        .with("layers", vec![1, 2])
        .with("weights", json!([1e-7, 0.5]));
    let path = folder.path().join("p.yaml");
    std::fs::write(&path, build.to_yaml()).unwrap();
    let keys = |recipe: &Recipe| -> Vec<String> {
        let pipeline = recipe.check().unwrap().complete().unwrap();
        let plan = plan(&pipeline, &store, &Silent).unwrap();
        let key = |status: &Status| match status {
            Status::WillRun { key, .. } => key.to_string(),
            other => panic!("{other:?}"),
        };
        plan.entries.iter().map(|entry| key(&entry.status)).collect()
    };
    let built = keys(&Recipe::built(build, folder.path()));
    assert_eq!(built.len(), 4);
    assert_eq!(built, keys(&Recipe::file(&path, &[]).unwrap()));
}

#[test]
fn what_ran_is_read() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(&folder.path().join("store")).unwrap());
    let mut build = PipelineBuilder::new("p");
    build.stage("fact", "requests").with("facts", facts("{} is in"));
    build.stage("plan", "distribute").with("strategy", "single").with("layers", vec![3]);
    let pipeline = Recipe::built(build, Path::new(".")).check().unwrap().complete().unwrap();
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let report = run(&pipeline, &store, &RunOptions::default(), &silent).unwrap();
    assert_eq!(report.count(|outcome| *outcome == Outcome::Ran), 2);
    let results = Results::of(&report, &store);
    let layers = results.facts("plan");
    assert!(layers.to_string().contains('3'), "{layers}");
    assert!(results.facts("none").is_null() && results.metrics().is_empty());
    let (name, _) = results.artifact("fact").unwrap().files.iter().next().expect("requests are kept in a file");
    let file = results.file("fact", name).unwrap().unwrap();
    assert!(std::fs::read_to_string(file).unwrap().contains("Finland"));
}
