//! What a run has to report: its artifacts, read for people. What each file in an artifact means is known by the stage that
//! writes it, so it is read here; how it looks is `palinode-report`'s.

mod doubts;
mod edits;
mod found;
mod layers;
mod measured;
mod provenance;
mod samples;
pub mod scored;
mod traced;
mod traces;

use std::cell::RefCell;

use palinode_engine::{PastRun, Store};
use palinode_report::Report;

use found::Found;

fn found<'a>(run: &'a PastRun, store: &'a Store) -> Found<'a> {
    let manifests =
        run.stages.iter().map(|stage| stage.key.and_then(|key| store.manifest(&key).ok().flatten())).collect();
    Found { run, store, manifests, lost: RefCell::default() }
}

/// Several runs beside each other, as one report: the run is an axis of all that they measured. They stand in the order that they are given
/// in, each under the name beside it.
pub fn reports(runs: &[(String, PastRun)], store: &Store) -> Report {
    let all: Vec<(Option<String>, Found<'_>)> =
        runs.iter().map(|(name, run)| (Some(name.clone()), found(run, store))).collect();
    let parts = runs.iter().map(|(name, run)| (name.clone(), report(run, store)));
    let mut report = Report::beside(parts.collect());
    report.measured = measured::all(&all);
    report
}

/// Collects what a run has to report. What the store no longer has is left out, and said to be.
pub fn report(run: &PastRun, store: &Store) -> Report {
    let found = found(run, store);
    let alone = [(None, found)];
    let measured = measured::all(&alone);
    let [(_, found)] = alone;
    let mut report = Report {
        title: run.pipeline.clone(),
        description: run.description.clone(),
        facts: Vec::new(),
        doubts: doubts::all(&found),
        measured,
        layers: layers::all(&found),
        losses: traces::all(&found),
        traced: traced::all(&found),
        edits: edits::all(&found),
        samples: samples::all(&found),
        stages: provenance::stages(&found),
        resolved: run.resolved.clone(),
    };
    report.facts = provenance::facts(&found);
    report
}
