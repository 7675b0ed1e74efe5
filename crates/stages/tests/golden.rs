//! Whole pipelines on the golden GPT-2, against the evaluation of the authors' own edits (skipped where the golden folder does not
//! lie beside the repository, since its records may not be copied).

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::Bench;
use palinode_engine::{Pipeline, RunOptions, Silent, Source, Store, run};
use palinode_stages::catalogue;
use serde_json::Value;

const PIPELINE: &str = "
name: golden
matrix:
  objective: OBJECTIVES
  layers: [one, three]
stages:
  model: { uses: load_model, with: { path: GOLDEN/gpt2/model } }
  edits: { uses: load_requests, with: { path: GOLDEN/REQUESTS, dataset: DATASET, limit: 8 } }
  contexts: { uses: templates, with: { groups: GROUPS } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: GOLDEN/data/mom2_corpus.txt, layers: [0, 1, 2] } }
  targets:
    uses: targets
    inputs: { model: model, requests: edits, templates: contexts }
    with: { layer: \"${{'one': 0, 'three': 2}[matrix.layers]}\", steps: STEPS, learning_rate: 0.5, clamp: 4, weight_decay: 0.5 }
  plan:
    uses: distribute
    with:
      strategy: \"${'single' if matrix.layers == 'one' else 'memit'}\"
      layers: \"${[0] if matrix.layers == 'one' else [0, 1, 2]}\"
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: '${matrix.objective}', lambda: 100, emmet_lambda: 0.1 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits } }
";

fn golden() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    if !folder.is_dir() {
        println!("skipped: no golden folder");
        return None;
    }
    Some(folder)
}

/// The metrics of every cell's `scores`, by the cell's name.
fn scores(golden: &Path, objectives: &str, requests: &str, dataset: &str, steps: usize) -> Vec<(String, Value)> {
    let bench = Bench::new();
    let templates = std::fs::read_to_string(golden.join("gpt2/templates.json")).unwrap();
    let templates: Value = serde_json::from_str(&templates).unwrap();
    let yaml = PIPELINE
        .replace("OBJECTIVES", objectives)
        .replace("REQUESTS", requests)
        .replace("DATASET", dataset)
        .replace("STEPS", &steps.to_string())
        .replace("GROUPS", &templates["memit_emmet"].to_string())
        .replace("GOLDEN", golden.to_str().unwrap());
    let pipeline = Pipeline::load(&Source::new("golden.yaml", &yaml), golden, &[], &catalogue())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    let observer: Arc<dyn palinode_engine::Observer> = Arc::new(Silent);
    let report = run(&pipeline, &store, &RunOptions::default(), &observer).unwrap();
    let scores = pipeline.instances.iter().zip(&report.stages).filter(|(instance, _)| instance.stage == "scores");
    scores
        .map(|(instance, stage)| (instance.name.clone(), stage.artifact.as_ref().unwrap().meta["metrics"].clone()))
        .collect()
}

#[test]
fn scores_are_those_of_the_authors_edits() {
    let Some(golden) = golden() else { return };
    let summary = std::fs::read_to_string(golden.join("gpt2/eval_summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let found = scores(&golden, "[memit, emmet]", "gpt2/requests.json", "counterfact", 25);
    let compared = [
        ("scores[objective=memit,layers=one]", "memit_b8_L0"),
        ("scores[objective=memit,layers=three]", "memit_b8_L0-1-2"),
        ("scores[objective=emmet,layers=one]", "emmet_b8_L0"),
    ];
    for (cell, theirs) in compared {
        let (_, ours) = found.iter().find(|(name, _)| name == cell).unwrap();
        let theirs = &summary[theirs];
        let names = [
            ("ES", "ES_success", 1e-9),
            ("PS", "PS_success", 1e-9),
            ("NS", "NS_success", 1e-9),
            ("EM", "ES_magnitude", 2e-3),
            ("PM", "PS_magnitude", 2e-3),
            ("NM", "NS_magnitude", 2e-3),
            ("S", "S_harmonic", 1e-6),
            ("before_ES", "", 1e-9),
        ];
        for (name, theirs_name, tolerance) in names {
            let theirs = theirs[theirs_name].as_f64().unwrap_or(0.0);
            let ours = ours[name].as_f64().unwrap();
            assert!((ours - theirs).abs() < tolerance, "{cell} {name}: {ours} against {theirs}");
        }
    }
}

/// Records of every layout load and run through all three objectives, on one layer and on three.
#[test]
fn samples_run_through_every_objective() {
    let Some(golden) = golden() else { return };
    let all = "[rome, memit, emmet]";
    let sets = [
        ("data/counterfact_sample_200.json", "counterfact", "ES"),
        ("data/zsre_sample_200.json", "zsre", "efficacy"),
        ("data/counterfact_sample_200_easyedit_flat.json", "knowedit", "locality"),
    ];
    for (requests, dataset, metric) in sets {
        let found = scores(&golden, all, requests, dataset, 5);
        assert_eq!(found.len(), 6);
        for (cell, metrics) in found {
            let value = metrics[metric].as_f64().unwrap_or_else(|| panic!("{cell}: {metrics}"));
            assert!((0.0..=1.0).contains(&value), "{cell} {metric}: {value}");
        }
    }
}
