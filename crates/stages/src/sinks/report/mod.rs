//! What a run has to report: its artifacts, read for people. What each file in an artifact means is known by the stage that
//! writes it, so it is read here; how it looks is `palinode-report`'s.

mod doubts;
mod edits;
mod found;
mod layers;
mod measured;
mod provenance;
mod samples;
mod traces;

use std::cell::RefCell;

use palinode_engine::{PastRun, Store};
use palinode_report::Report;

use found::Found;

/// Collects what a run has to report. What the store no longer has is left out, and said to be.
pub fn report(run: &PastRun, store: &Store) -> Report {
    let manifests =
        run.stages.iter().map(|stage| stage.key.and_then(|key| store.manifest(&key).ok().flatten())).collect();
    let found = Found { run, store, manifests, lost: RefCell::default() };
    let mut report = Report {
        title: run.pipeline.clone(),
        description: run.description.clone(),
        facts: Vec::new(),
        doubts: doubts::all(&found),
        measured: measured::all(&found),
        layers: layers::all(&found),
        losses: traces::all(&found),
        edits: edits::all(&found),
        samples: samples::all(&found),
        stages: provenance::stages(&found),
        resolved: run.resolved.clone(),
    };
    report.facts = provenance::facts(&found);
    report
}
