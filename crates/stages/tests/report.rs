//! What a run has to report, from a small model's results.

mod common;

use common::{Bench, PIPELINE};
use palinode_engine::{PastRun, RunReport, Runs, Silent, Store, plan};
use palinode_report::{Level, Outcome, Report, render};

fn past(bench: &Bench, report: &RunReport) -> (PastRun, Report) {
    let store = Store::open(&bench.path(".palinode")).unwrap();
    let runs = Runs::of(store.root());
    let past = PastRun::open(&runs, &runs.open(&report.run).unwrap()).unwrap();
    let report = palinode_stages::report(&past, &store);
    (past, report)
}

#[test]
fn every_part_of_a_run_is_found() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2");
    let (past, report) = past(&bench, &bench.run(&yaml));
    assert_eq!(past.stages.len(), 5 + 2 + 3 * 6);
    let scores = &report.measured[0];
    assert!(scores.result && scores.stage == "scores" && scores.rows.len() == 6);
    let text = |value: &str| Level::Text(value.to_owned());
    let cell = vec![("objective".to_owned(), text("rome")), ("strategy".to_owned(), text("single"))];
    assert_eq!(scores.rows[0].cell, cell);
    assert!(scores.rows.iter().all(|row| row.values[0].value.is_some() && row.values[0].interval.is_some()));
    // rome edits each of the four requests in a batch of its own.
    let rome = report.layers[0].rows.iter().find(|row| row.cell == cell).unwrap();
    assert_eq!((rome.layer, rome.batches), (1, 4));
    assert_eq!(report.losses[0].traces.len(), 4);
    assert_eq!(report.losses[0].traces[0].label, "The tall tower → Rome");
    assert_eq!((report.edits.rows.len(), report.edits.cells.len()), (6 * 4, 6));
    let edit = &report.edits.rows[0];
    assert_eq!((edit.subject.as_str(), edit.old.as_deref()), ("The tall tower", Some("Paris")));
    assert!(edit.p_new.iter().chain(&edit.p_old).all(|p| p.is_some_and(|p| (0.0..=1.0).contains(&p))));
    assert_eq!((report.samples.len(), report.samples[0].after.len()), (2, 6));
    let contexts = report.stages.iter().find(|stage| stage.name == "contexts").unwrap();
    assert_eq!(contexts.instances[0].seeds, [("seed".to_owned(), "7".to_owned())]);
    assert_eq!(contexts.instances[0].outcome, Outcome::Ran);
    assert!(render(&report).unwrap().html.contains("‖Δ‖/‖W‖"));
}

#[test]
fn a_pipeline_is_reported_as_its_runs_are() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2").replace("[rome, memit, emmet]", "[memit]");
    let (_, of_run) = past(&bench, &bench.run(&yaml));
    let store = Store::open(&bench.path(".palinode")).unwrap();
    let pipeline = bench.load(&yaml).unwrap();
    let planned = PastRun::planned(&pipeline, &plan(&pipeline, &store, &Silent).unwrap());
    let report = palinode_stages::report(&planned, &store);
    assert_eq!(format!("{:?}", report.measured), format!("{:?}", of_run.measured));
    assert_eq!(format!("{:?}", report.edits), format!("{:?}", of_run.edits));
}

#[test]
fn what_was_lost_is_said() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2").replace("[rome, memit, emmet]", "[memit]");
    let ran = bench.run(&yaml);
    let stage = ran.stages.iter().find(|stage| stage.instance.starts_with("scores[")).unwrap();
    std::fs::remove_file(bench.blob(stage.artifact.as_ref().unwrap(), "records.jsonl")).unwrap();
    let (_, report) = past(&bench, &ran);
    let lost = report.facts.iter().find(|(name, _)| name == "no longer in the store");
    assert!(lost.is_some_and(|(_, what)| what.contains("records.jsonl of scores[")), "{:?}", report.facts);
    assert!(!report.edits.rows.is_empty() && !report.measured.is_empty());
}
