//! Second moments that come from elsewhere, go elsewhere, are added up and factored: the edit is the same edit.

mod common;

use std::fs;

use common::{Bench, artifact};
use palinode_engine::{Artifact, Outcome, RunReport};
use serde_json::Value;

/// Where second moments are taken from is `MOMENTS`; `WITH` are parameters of the solve.
const EDIT: &str = "
name: edit
stages:
  model: { uses: load_model, with: { path: gpt2 } }
  edits: { uses: load_requests, with: { dataset: jsonl, path: requests.jsonl } }
  measured: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1, 2] } }
  MOMENTS
  targets: { uses: targets, inputs: { model: model, requests: edits }, with: { layer: 2, steps: 4 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan }
    with: { objective: memit, WITH }
";
const EXPORTED: &str =
    "moments: { uses: load_moments, inputs: { model: model }, with: { folder: stats, layers: [1, 2] } }";

fn edit(moments: &str, with: &str) -> String {
    let yaml = EDIT.replace("WITH", with);
    match moments {
        "" => yaml.replace("  MOMENTS\n", "").replace("moments: moments", "moments: measured"),
        stage => yaml.replace("MOMENTS", stage),
    }
}

/// What the solve changed, by content.
fn update(report: &RunReport) -> String {
    artifact(report, "update").files["factors.safetensors"].digest.to_string()
}

fn told(bench: &Bench, yaml: &str) -> String {
    let text = match bench.load(yaml) {
        Err(mistakes) => mistakes.to_string(),
        Ok(_) => match bench.run(yaml).failure() {
            Some((stage, _)) => {
                let Outcome::Failed { message, hint, .. } = &stage.outcome else { unreachable!() };
                format!(
                    "{} failed: {message}\n  = hint: {}\n",
                    stage.instance,
                    hint.as_ref().map(ToString::to_string).unwrap_or_default()
                )
            }
            None => "no mistake was found\n".to_owned(),
        },
    };
    text.replace(&bench.dir.path().display().to_string(), "DIR")
}

/// Writes second moments of layers 1 and 2.
fn export(bench: &Bench, precision: &str) -> Artifact {
    let out = format!(
        "out: {{ uses: export_moments, inputs: {{ model: model, moments: measured }}, with: {{ path: stats, precision: {precision} }} }}"
    );
    let yaml = edit("", "lambda: 10").replace("  targets:", &format!("  {out}\n  targets:"));
    artifact(&bench.run(&yaml), "out").clone()
}

#[test]
fn exported_moments_come_back() {
    let bench = Bench::new();
    let files = export(&bench, "float64").meta["files"].clone();
    assert_eq!(files[1], "stats/transformer.h.2.mlp.c_proj_float64_mom2_120.npz");
    let measured = bench.run(&edit("", "lambda: 10"));
    let loaded = bench.run(&edit(EXPORTED, "lambda: 10"));
    assert_eq!(update(&loaded), update(&measured));
    let (ours, theirs) = (artifact(&loaded, "moments"), artifact(&measured, "measured"));
    for field in ["base", "documents", "tokens"] {
        assert_eq!(ours.meta[field], theirs.meta[field], "{field}");
    }
    for (ours, theirs) in ours.meta["layers"].as_array().unwrap().iter().zip(theirs.meta["layers"].as_array().unwrap())
    {
        for field in ["layer", "tokens", "trace"] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
        // Documents that are left out fit as those that are in: there are ten tokens and more for a dimension.
        let held_out = theirs["held_out"].as_f64().unwrap();
        assert!((0.9..1.2).contains(&held_out), "{held_out}");
        // Whoever loads a file does not have its corpus.
        assert!(ours["held_out"].is_null());
    }
    // By name, and in single precision: the same contents under another name are the same result.
    let named = "moments: { uses: load_moments, inputs: { model: model }, with: { files: { 1: a.npz, 2: b.npz } } }";
    fs::rename(bench.path(files[0].as_str().unwrap()), bench.path("a.npz")).unwrap();
    fs::rename(bench.path(files[1].as_str().unwrap()), bench.path("b.npz")).unwrap();
    assert!(bench.ran(&edit(named, "lambda: 10")).is_empty());
    export(&bench, "float32");
    let single = bench.run(&edit(&EXPORTED.replace("layers: [1, 2]", "layers: [1, 2], samples: 120"), "lambda: 10"));
    let trace = |report: &RunReport| artifact(report, "moments").meta["layers"][0]["trace"].as_f64().unwrap();
    assert!((trace(&single) / trace(&loaded) - 1.0).abs() < 1e-6);
}

#[test]
fn factors_give_the_same_edit() {
    let bench = Bench::new();
    let factored = |factor: &str, solve: &str| {
        let stage = format!("moments: {{ uses: factor, inputs: {{ moments: measured }}, with: {{ {factor} }} }}");
        edit(&stage, solve)
    };
    // Without a ridge one set of factors serves every λ.
    for lambda in ["lambda: 10", "lambda: 0.3"] {
        assert_eq!(update(&bench.run(&factored("", lambda))), update(&bench.run(&edit("", lambda))), "{lambda}");
    }
    assert!(!bench.ran(&factored("lambda: 7", "lambda: 10")).contains(&"moments".to_owned()));
    let ridge = "lambda: 10, update_norm_lambda: 0.5";
    assert_eq!(update(&bench.run(&factored(ridge, ridge))), update(&bench.run(&edit("", ridge))));

    let rounds = |yaml: &str| {
        let (head, _) = yaml.split_once("  targets:").unwrap();
        let plan = "plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }";
        let moments = if head.contains("uses: factor") { "moments" } else { "measured" };
        format!(
            "{head}  {plan}\n  update:\n    uses: sequence\n    inputs: {{ model: model, requests: edits, moments: {moments}, plan: plan }}\n    \
             with: {{ targets: {{ layer: 2, steps: 3 }}, solve: {{ objective: memit, lambda: 10, batch_size: 2 }} }}\n"
        )
    };
    let (with, without) = (rounds(&factored("", "lambda: 10")), rounds(&edit("", "lambda: 10")));
    assert_eq!(update(&bench.run(&with)), update(&bench.run(&without)));

    let mut text = String::new();
    for (factor, solve) in [
        (ridge, "lambda: 20, update_norm_lambda: 0.5"),
        (ridge, "lambda: 10"),
        ("lambda: 10", ridge),
        ("update_norm_lambda: -1", "lambda: 10"),
        ("update_norm_lambda: 1, lambda: 0", "lambda: 10"),
    ] {
        text += &format!("── {factor}; then {solve}\n{}\n", told(&bench, &factored(factor, solve)));
    }
    text += &told(&bench, &rounds(&factored(ridge, "lambda: 10")));
    insta::assert_snapshot!(text);
}

#[test]
fn merged_halves_are_the_whole() {
    let bench = Bench::new();
    let corpus = fs::read_to_string(bench.path("corpus.txt")).unwrap();
    let half = corpus.lines().take(50).map(str::len).sum::<usize>() + 50;
    fs::create_dir(bench.path("parts")).unwrap();
    fs::write(bench.path("parts/a.txt"), &corpus[..half]).unwrap();
    fs::write(bench.path("parts/b.txt"), &corpus[half..]).unwrap();
    let yaml = |a: &str, b: &str, layers: &str| {
        format!(
            "
name: merge
stages:
  model: {{ uses: load_model, with: {{ path: gpt2 }} }}
  other: {{ uses: load_model, with: {{ path: gptj-tiny }} }}
  whole: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: parts, layers: [1, 2] }} }}
  a: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: {a}, layers: [1, 2] }} }}
  b: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: {b}, layers: {layers} }} }}
  both: {{ uses: merge_moments, inputs: {{ moments: a, other: b }} }}
"
        )
    };
    let report = bench.run(&yaml("parts/a.txt", "parts/b.txt", "[1, 2]"));
    let (both, whole) = (&artifact(&report, "both").meta, &artifact(&report, "whole").meta);
    for field in ["base", "documents", "tokens", "sources"] {
        assert_eq!(both[field], whole[field], "{field}");
    }
    let traces = |meta: &Value| -> Vec<f64> {
        meta["layers"].as_array().unwrap().iter().map(|layer| layer["trace"].as_f64().unwrap()).collect()
    };
    for (a, b) in traces(both).into_iter().zip(traces(whole)) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} and {b}");
    }
    let text = [
        ("one file on both sides", yaml("parts/a.txt", "'parts/*'", "[1, 2]")),
        ("other layers", yaml("parts/a.txt", "parts/b.txt", "[1]")),
        (
            "another model",
            yaml("parts/a.txt", "parts/b.txt", "[0, 1]")
                .replace(
                    "b: { uses: covariance, inputs: { model: model }",
                    "b: { uses: covariance, inputs: { model: other }",
                )
                .replace("layers: [1, 2]", "layers: [0, 1]"),
        ),
    ]
    .map(|(what, yaml)| format!("── {what}\n{}", told(&bench, &yaml)))
    .join("\n");
    insta::assert_snapshot!(text);
}

#[test]
fn mistakes_in_files() {
    let bench = Bench::new();
    export(&bench, "float64");
    let two = "transformer.h.2.mlp.c_proj_float64_mom2_120.npz";
    fs::copy(bench.path("stats").join(two), bench.path("stats").join(two.replace("_120", "_7"))).unwrap();
    fs::write(bench.path("text.npz"), "not an archive").unwrap();
    fs::create_dir(bench.path("empty")).unwrap();
    let text = [
        ("nothing to load", ""),
        ("named twice", "folder: stats, layers: [1], files: { 1: text.npz }"),
        ("no layers", "folder: stats"),
        ("a choice from files", "files: { 1: text.npz }, samples: 7"),
        ("no such folder", "folder: stat, layers: [1, 2]"),
        ("nothing in the folder", "folder: empty, layers: [1]"),
        ("two of a layer", "folder: stats, layers: [1, 2]"),
        ("none of so many documents", "folder: stats, layers: [1, 2], samples: 7"),
        ("no such file", "files: { 1: none.npz, 2: none.npz }"),
        ("not an archive", "files: { 1: text.npz }"),
        ("no such layer", "files: { 7: text.npz }"),
        ("layers that are not edited", "folder: stats, layers: [1]"),
        ("a layer that is no number", "files: { one: text.npz }"),
    ]
    .map(|(what, with)| {
        let stage = format!("moments: {{ uses: load_moments, inputs: {{ model: model }}, with: {{ {with} }} }}");
        format!("── {what}\n{}", told(&bench, &edit(&stage, "lambda: 10")))
    })
    .join("\n");
    insta::assert_snapshot!(text);
    let other = edit(EXPORTED, "lambda: 10")
        .replace("path: gpt2", "path: llama-tiny")
        .replace("[1, 2]", "[1]")
        .replace("layer: 2", "layer: 1");
    let other = told(&bench, &other);
    assert!(other.contains("it is of keys of size 128, but the model's are of size"), "{other}");
}
