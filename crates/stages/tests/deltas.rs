//! Changes that are not low-rank, from after-care to everything that takes an update.

mod common;

use std::fs;

use common::{Bench, PIPELINE, artifact};
use palinode_engine::Overwrite;
use palinode_model::Text;
use palinode_stages::{Restored, apply, provenance, revert};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// A pipeline whose update is treated, and everything behind it reads what came of that.
fn treated(family: &str, keep: &str) -> String {
    let rect =
        format!("  treated: {{ uses: rect, inputs: {{ update: update }}, with: {{ keep: {keep} }} }}\n  scores:");
    PIPELINE
        .replace("MODEL", family)
        .replace("[rome, memit, emmet]", "[emmet]")
        .replace("[single, memit]", "[memit]")
        .replace("  scores:", &rect)
        .replace("inputs: { model: update", "inputs: { model: treated")
}

fn metrics(bench: &Bench, yaml: &str, stage: &str) -> Value {
    let report = bench.run(yaml);
    artifact(&report, &format!("{stage}[objective=emmet,strategy=memit]")).meta["metrics"].clone()
}

#[test]
fn a_change_of_any_form_goes_through() {
    for (family, keep, part) in [("gpt2", "0.4", "at"), ("llama-tiny", "0.4", "values"), ("gpt2", "0.8", "dense")] {
        let bench = Bench::new();
        let yaml = treated(family, keep);
        let found = metrics(&bench, &yaml, "treated");
        let solved = metrics(&bench, &yaml, "update");
        let number = |of: &Value, name: &str| of[name].as_f64().unwrap();
        let share: f64 = keep.parse().unwrap();
        assert!((number(&found, "changed") - share).abs() < 0.01, "{found}");
        assert!(number(&found, "norm") < number(&solved, "norm"));
        assert!(found["error_after"].is_null() && found["preservation"].is_null() && found["distance_after"].is_null());
        assert!(found["distance_before"] == solved["distance_before"]);
        let scores = metrics(&bench, &yaml, "scores");
        assert!(scores["EM"] != scores["before_EM"]);

        // What is exported is what was evaluated, and the update goes on and comes off.
        let at = |name: &str| bench.path(name);
        let update = at("out/emmet-memit/update.safetensors");
        let bytes = fs::read(&update).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(file.names().iter().any(|name| name.ends_with(&format!(".weight.{part}"))), "{:?}", file.names());
        assert!(!file.names().iter().any(|name| name.ends_with(".left")));
        let said = provenance(&update).unwrap();
        assert_eq!((said.format.as_str(), &said.care), ("update.v2", &json!([{ "rect": { "keep": share } }])));
        let weights = |folder: &str| fs::read(at(folder).join("model.safetensors")).unwrap();
        apply(&update, &at(family), &at("edited"), false, Overwrite::Refused).unwrap();
        assert!(weights("edited") == weights("out/emmet-memit"));
        assert_eq!(
            revert(&update, &at("edited"), Some(&at(family)), &at("again"), false, Overwrite::Refused).unwrap().weights,
            Some(Restored::FromBase)
        );
        assert!(weights("again") == weights(family));
        revert(&update, &at("edited"), None, &at("near"), false, Overwrite::Refused).unwrap();
        assert!(largest_difference(&weights("near"), &weights(family)) < 1e-6);

        // Read again, it is the edit that it was.
        let load = format!(
            "name: again\nstages:\n  model: {{ uses: load_model, with: {{ path: {family} }} }}\n  \
             edits: {{ uses: load_requests, with: {{ dataset: jsonl, path: requests.jsonl }} }}\n  \
             update: {{ uses: load_update, inputs: {{ model: model }}, with: {{ path: out/emmet-memit/update.safetensors }} }}\n  \
             scores: {{ uses: evaluate, inputs: {{ model: update, requests: edits }} }}\n"
        );
        let report = bench.run(&load);
        let again = &artifact(&report, "scores").meta["metrics"];
        assert!((number(again, "EM") - number(&scores, "EM")).abs() < 1e-6, "{again} {scores}");
    }
}

#[test]
fn the_edited_model_differs_in_the_entries_that_were_kept() {
    let bench = Bench::new();
    bench.ran(&treated("llama-tiny", "0.25"));
    let read = |folder: &str| fs::read(bench.path(folder).join("model.safetensors")).unwrap();
    let (before, after) = (read("llama-tiny"), read("out/emmet-memit"));
    let (before, after) = (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
    for name in before.names() {
        let (old, new) = (before.tensor(name).unwrap(), after.tensor(name).unwrap());
        let changed = old.data().chunks(4).zip(new.data().chunks(4)).filter(|(a, b)| a != b).count();
        let share = changed as f64 / (old.data().len() / 4) as f64;
        let edited = name.ends_with("down_proj.weight") && (name.contains(".0.") || name.contains(".1."));
        // Some changes are smaller than half a unit of the weight's last place.
        assert!(if edited { share > 0.2 && share < 0.26 } else { changed == 0 }, "{name}: {share}");
    }
    let text = Text::open(&bench.path("llama-tiny/tokenizer.json")).unwrap();
    assert!(!text.encode("The tall tower").unwrap().is_empty());
}

#[test]
fn keeping_all_changes_nothing() {
    let bench = Bench::new();
    let report = bench.run(&treated("gpt2", "1"));
    let cell = |stage: &str| artifact(&report, &format!("{stage}[objective=emmet,strategy=memit]"));
    let factors = |stage: &str| cell(stage).files["factors.safetensors"].digest;
    assert_eq!(factors("treated"), factors("update"));
    let norm = |stage: &str| cell(stage).meta["metrics"]["norm"].clone();
    assert_eq!(norm("treated"), norm("update"));
}

#[test]
fn a_dense_change_is_no_adapter() {
    let bench = Bench::new();
    let yaml = treated("gpt2", "0.4").replace("batch: 0 }", "batch: 0, formats: [peft] }");
    let told = format!("{:?}", bench.load(&yaml).unwrap_err());
    assert!(told.contains("an adapter holds low-rank changes") && told.contains("leave `peft` out"), "{told}");
    let wrong = format!("{:?}", bench.load(&treated("gpt2", "1.5")).unwrap_err());
    assert!(wrong.contains("`keep` is 1.5"), "{wrong}");
}

#[test]
fn a_treated_sequence_is_measured_as_a_whole() {
    let yaml = "
name: rounds
stages:
  model: { uses: load_model, with: { path: gpt2 } }
  edits: { uses: load_requests, with: { dataset: jsonl, path: requests.jsonl } }
  plan: { uses: distribute, with: { strategy: memit, layers: [0, 1] } }
  update:
    uses: sequence
    inputs: { model: model, requests: edits, plan: plan }
    with: { targets: { layer: 1, steps: 6 }, solve: { objective: memit, preservation: ridge, batch_size: 2 } }
  treated: { uses: rect, inputs: { update: update } }
  scores: { uses: evaluate, inputs: { model: treated, requests: edits } }
";
    let bench = Bench::new();
    let report = bench.run(yaml);
    let rounds = &artifact(&report, "treated").meta["rounds"];
    assert_eq!(rounds, &json!([{ "edits": 2, "rank": {} }, { "edits": 4, "rank": {} }]));
    assert!(artifact(&report, "scores").meta["metrics"]["S"].is_number());
    let report = bench.run(&yaml.replace("requests: edits } }\n", "requests: edits }, with: { every: 1 } }\n"));
    let (failed, _) = report.failure().unwrap();
    assert_eq!(failed.instance, "scores");
}

fn largest_difference(a: &[u8], b: &[u8]) -> f32 {
    let values = |bytes: &[u8]| -> Vec<f32> {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let mut names: Vec<_> = file.names();
        names.sort_unstable();
        names
            .into_iter()
            .flat_map(|name| {
                let view = file.tensor(name).unwrap();
                assert_eq!(view.dtype(), Dtype::F32);
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
            })
            .collect()
    };
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
