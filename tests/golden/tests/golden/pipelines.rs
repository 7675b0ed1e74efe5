//! Whole pipelines on the trained GPT-2, against the evaluation of the authors' own edits.

use std::path::Path;
use std::sync::Arc;

use palinode_engine::{Pipeline, RunOptions, Silent, Source, Store, run};
use palinode_golden::Folder;
use palinode_stages::catalogue;
use serde_json::Value;

/// Eight requests edited in one batch, at one layer and over three, and scored. The words in capitals are to be replaced.
pub const PIPELINE: &str = "
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

/// The metrics of every cell's `scores`, by the cell's name.
fn scores(golden: &Folder, objectives: &str, requests: &str, dataset: &str, steps: usize) -> Vec<(String, Value)> {
    let folder = tempfile::tempdir().unwrap();
    let templates = golden.folder("gpt2").json("templates.json").field("memit_emmet");
    let yaml = PIPELINE
        .replace("OBJECTIVES", objectives)
        .replace("REQUESTS", requests)
        .replace("DATASET", dataset)
        .replace("STEPS", &steps.to_string())
        .replace("GROUPS", &templates.value().to_string())
        .replace("GOLDEN", golden.path().to_str().unwrap());
    let found = facts(&yaml, folder.path(), "scores");
    found.into_iter().map(|(name, facts)| (name, facts["metrics"].clone())).collect()
}

/// Runs a pipeline in a folder; the facts of every instance of a stage, by the instance's name.
pub fn facts(yaml: &str, folder: &Path, stage: &str) -> Vec<(String, Value)> {
    let pipeline = Pipeline::load(&Source::new("golden.yaml", yaml), folder, &[], &catalogue())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let store = Arc::new(Store::open(&folder.join(".palinode")).unwrap());
    let observer: Arc<dyn palinode_engine::Observer> = Arc::new(Silent);
    let report = run(&pipeline, &catalogue(), &store, &RunOptions::default(), &observer).unwrap();
    let members = pipeline.instances.iter().zip(&report.stages).filter(|(instance, _)| instance.stage == stage);
    let fact = |(instance, report): (&palinode_engine::Instance, &palinode_engine::StageReport)| {
        let artifact = report.artifact.as_ref().unwrap_or_else(|| panic!("{}: {:?}", instance.name, report.outcome));
        (instance.name.clone(), artifact.meta.clone())
    };
    members.map(fact).collect()
}

#[test]
fn scores_are_those_of_the_authors_edits() {
    let golden = Folder::given();
    let summary = golden.folder("gpt2").json("eval_summary.json");
    let found = scores(&golden, "[memit, emmet]", "gpt2/requests.json", "counterfact", 25);
    let compared = [
        ("scores[objective=memit,layers=one]", "memit_b8_L0"),
        ("scores[objective=memit,layers=three]", "memit_b8_L0-1-2"),
        ("scores[objective=emmet,layers=one]", "emmet_b8_L0"),
    ];
    for (cell, theirs) in compared {
        let (_, ours) = found.iter().find(|(name, _)| name == cell).unwrap();
        let theirs = summary.field(theirs);
        let names = [
            ("ES", "ES_success", 1e-9),
            ("PS", "PS_success", 1e-9),
            ("NS", "NS_success", 1e-9),
            ("EM", "ES_magnitude", 2e-3),
            ("PM", "PS_magnitude", 2e-3),
            ("NM", "NS_magnitude", 2e-3),
            ("S", "S_harmonic", 1e-6),
        ];
        for (name, theirs_name, tolerance) in names {
            let theirs = theirs.field(theirs_name).number();
            let ours = ours[name].as_f64().unwrap();
            assert!((ours - theirs).abs() < tolerance, "{cell} {name}: {ours} against {theirs}");
        }
        let before = summary.field("before").field("ES_success").number();
        assert!((ours["before_ES"].as_f64().unwrap() - before).abs() < 1e-9, "{cell}");
    }
}

/// Records of every layout load and run through all three objectives, on one layer and on three.
#[test]
fn samples_run_through_every_objective() {
    let golden = Folder::given();
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
