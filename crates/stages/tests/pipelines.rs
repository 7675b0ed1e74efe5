//! The pipelines that come with the program are without mistakes, and say what was published.

use std::path::{Path, PathBuf};

use palinode_engine::{ErrorKind, Pipeline, Source};
use palinode_stages::catalogue;
use serde_json::{Value, json};

fn pipelines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines")
}

/// Reads one where its model and data need not be.
fn check(path: &Path) -> Pipeline {
    let source = Source::read(path).unwrap();
    let (pipeline, absent) = Pipeline::check(&source, path.parent().unwrap(), &[], &catalogue())
        .unwrap_or_else(|mistakes| panic!("{}:\n{mistakes}", path.display()));
    assert!(absent.0.iter().all(|note| note.kind == ErrorKind::Input));
    pipeline
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        } else if std::fs::read_to_string(&path).unwrap().lines().any(|line| line.starts_with("name:")) {
            found.push(path);
        }
    }
}

#[test]
fn none_has_a_mistake() {
    let mut found = Vec::new();
    below(&pipelines(), &mut found);
    let in_folder = |folder: &str| found.iter().filter(|path| path.parent() == Some(&pipelines().join(folder))).count();
    assert_eq!(["gpt2-xl", "gpt-j-6b", "llama-2-7b"].map(in_folder), [4; 3]);
    assert_eq!(in_folder("ablations"), 8);
    assert_eq!(in_folder("methods"), 14);
    assert_eq!(in_folder("where"), 2);
    assert_eq!(in_folder("smollm2"), 5);
    for path in found {
        check(&path);
    }
}

/// What asks a question of the demo model asks it of the others too, with their `model.yaml` in the place of the demo's.
#[test]
fn ablations_are_the_same_for_every_model() {
    for model in ["gpt2-xl", "gpt-j-6b", "llama-2-7b", "smollm2"] {
        let mut found = Vec::new();
        below(&pipelines().join("ablations"), &mut found);
        for path in found {
            let text = std::fs::read_to_string(&path)
                .unwrap()
                .replace("../demo/model.yaml", &format!("../{model}/model.yaml"));
            let source = Source::new(path.display().to_string(), &text);
            let checked = Pipeline::check(&source, path.parent().unwrap(), &[], &catalogue());
            let (pipeline, _) = checked.unwrap_or_else(|mistakes| panic!("{model}, {}:\n{mistakes}", path.display()));
            assert!(pipeline.instances.len() > 10);
        }
    }
}

/// So do the files of methods.
#[test]
fn methods_are_the_same_for_every_model() {
    let mut found = Vec::new();
    below(&pipelines().join("methods"), &mut found);
    let names: Vec<String> = found.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    for name in [
        "pmet",
        "blue",
        "nas",
        "memit-merge",
        "ft-l",
        "ft-m",
        "locft-bf",
        "ultraedit",
        "anyedit",
        "memit-fe",
        "alphaedit",
        "encore",
        "memit_seq",
        "all",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    for model in ["gpt2-xl", "gpt-j-6b", "llama-2-7b"] {
        for path in &found {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains("include: ../demo/model.yaml"), "{}", path.display());
            let text = text.replace("../demo/model.yaml", &format!("../{model}/model.yaml"));
            let source = Source::new(path.display().to_string(), &text);
            let checked = Pipeline::check(&source, path.parent().unwrap(), &[], &catalogue());
            checked.unwrap_or_else(|mistakes| panic!("{model}, {}:\n{mistakes}", path.display()));
        }
    }
}

/// What a stage's instance is given.
fn with(pipeline: &Pipeline, instance: &str) -> Value {
    pipeline.instance(instance).unwrap().params.value.clone()
}

#[test]
fn they_have_the_published_numbers() {
    let rows = [
        // model, method, layers, clamp, steps, weight decay, λ, ε
        ("gpt2-xl", "emmet", json!([17]), 0.75, 20, 0.5, 1000.0, json!(0.1)),
        ("gpt-j-6b", "emmet", json!([5]), 0.75, 25, 0.5, 1.0, json!(0.1)),
        ("llama-2-7b", "emmet", json!([5]), 4.0, 25, 1e-3, 1.0, json!(0.1)),
        ("gpt2-xl", "memit", json!([13, 14, 15, 16, 17]), 0.75, 20, 0.5, 20000.0, Value::Null),
        ("gpt-j-6b", "memit", json!([3, 4, 5, 6, 7, 8]), 0.75, 25, 0.5, 15000.0, Value::Null),
        ("llama-2-7b", "memit", json!([4, 5, 6, 7, 8]), 4.0, 25, 1e-3, 15000.0, Value::Null),
        ("gpt2-xl", "rome", json!([17]), 4.0, 20, 0.5, 1.0, Value::Null),
        ("gpt-j-6b", "rome", json!([5]), 4.0, 20, 0.5, 1.0, Value::Null),
        ("llama-2-7b", "rome", json!([5]), 4.0, 25, 1e-3, 1.0, Value::Null),
    ];
    for (model, method, layers, clamp, steps, decay, lambda, epsilon) in rows {
        let pipeline = check(&pipelines().join(model).join(format!("{method}.yaml")));
        let (targets, solve) = (with(&pipeline, "targets"), with(&pipeline, "update"));
        let (plan, moments) = (with(&pipeline, "plan"), with(&pipeline, "moments"));
        let rome = method == "rome";
        let found = json!([
            plan["layers"],
            moments["layers"],
            moments["samples"],
            targets["layer"],
            targets["clamp"],
            targets["steps"],
            targets["weight_decay"],
            targets["learning_rate"],
            targets["kl_factor"],
            targets["site"],
            solve["objective"],
            solve["lambda"],
            solve["emmet_lambda"],
            plan["strategy"],
        ]);
        let site = if rome { "mlp_output" } else { "block_output" };
        let strategy = if method == "memit" { "memit" } else { "single" };
        let last = layers.as_array().unwrap().last().unwrap().clone();
        let expected = json!([
            layers, layers, 100_000, last, clamp, steps, decay, 0.5, 0.0625, site, method, lambda, epsilon, strategy
        ]);
        assert_eq!(found, expected, "{model} {method}");
        let generate = with(&pipeline, "contexts")["generate"].clone();
        let openings = |count: usize, length: usize| json!({ "count": count, "length": length });
        let expected = if rome { json!([openings(10, 5), openings(10, 10)]) } else { json!([openings(5, 10)]) };
        assert_eq!(generate, expected, "{model} {method}");
    }
}

#[test]
fn ablations_span_objective_and_distribution() {
    for (model, single, spread) in [("gpt2-xl", 17, 17), ("gpt-j-6b", 5, 8), ("llama-2-7b", 5, 8)] {
        let pipeline = check(&pipelines().join(model).join("ablation.yaml"));
        assert_eq!(pipeline.instances.iter().filter(|instance| instance.stage == "update").count(), 6);
        assert_eq!(with(&pipeline, "targets[strategy=single]")["layer"], single);
        assert_eq!(with(&pipeline, "targets[strategy=memit]")["layer"], spread);
        assert_eq!(with(&pipeline, "plan[strategy=single]")["layers"], json!([single]));
    }
}
