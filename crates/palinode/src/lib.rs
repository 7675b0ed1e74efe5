//! Palinode as a library: edits of facts in language models, as pipelines of stages whose results are kept.
//!
//! A pipeline is built in code ([`PipelineBuilder`]) or read from a file; either is a [`Recipe`]. [`Recipe::check`] finds every mistake
//! before anything runs. [`Recipe::ready`] does the same and then fetches what the pipeline names of the Hugging Face Hub. [`plan`] says
//! what a run would do and why, [`run`] does it, an [`Observer`] hears of its progress, [`RunOptions::interrupt`] stops it, and [`Results`]
//! reads what came out. [`Runs`] has the records of earlier runs, [`apply`] and [`revert`] put an update onto a model's folder and take it
//! off again, [`inspect`] says what a model holds.
//!
//! ```
//! use palinode::{PipelineBuilder, Recipe, Silent, Status, Store, plan};
//! use serde_json::json;
//!
//! let mut build = PipelineBuilder::new("one fact");
//! let fact = json!([{ "subject": "Finland", "prompt": "{} is in", "target_new": "Africa" }]);
//! build.stage("fact", "requests").with("facts", fact);
//! build.stage("layers", "distribute").with("strategy", "single").with("layers", json!([2]));
//!
//! let folder = tempfile::tempdir()?;
//! let recipe = Recipe::built(build, folder.path());
//! let pipeline = recipe.check()?.complete()?;
//! let store = Store::open(&folder.path().join("store"))?;
//! let plan = plan(&pipeline, &store, &Silent)?;
//! assert!(plan.entries.iter().all(|entry| matches!(entry.status, Status::WillRun { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Mistakes point at the stage and the parameter of the builder:
//!
//! ```
//! use palinode::{PipelineBuilder, Recipe};
//!
//! let mut build = PipelineBuilder::new("one fact");
//! build.stage("layers", "distribute").with("strategy", "singel").with("layers", vec![2]);
//! let mistakes = Recipe::built(build, ".").check().unwrap_err();
//! assert!(mistakes.0[0].line().starts_with("stage `layers`, `strategy`: "), "{mistakes}");
//! ```

mod answer;
mod live;
mod load;
mod network;
mod preflight;
mod results;
mod run;
mod side_by_side;

// What a program needs of the engine: stores, plans, runs, events, records, errors.
pub use palinode_engine::*;
pub use palinode_stages::{
    Applied, Averages, BLOCKS, Best, EditLine, EditableWeight, Edits, Effects, ExpertId, Experts, Finding, Findings,
    How, Inspection, PUBLISHED_RATE, Paired, Provenance, Repeated, Restored, Scored, Severity, Start, StatedFact,
    Suggestion, TakeOff, TakenOff, TraceKind, apply, best, best_apart, candidates, carried, catalogue, chosen_device,
    condensed, corpus_of, cuda_findings, dataset_of, devices, edits, facts_in, free_memory, hardware, holm, inspect,
    is_shown, known_records, mean_and_deviation, over_repetitions, over_values, paired, paired_values, provenance,
    report, reports, revert, said_of_blocks, scored, suggest, take_off, throughput,
};

pub use answer::{Question, answer, can_be_asked};
pub use live::{Counted, Curve, Live};
pub use load::{Checked, LoadError, Recipe};
pub use network::{Download, Network, model_folder};
pub use preflight::{admit, preflight};
pub use results::Results;
pub use run::{run, start_threads};
pub use side_by_side::{Arm, Field, Role, SideBySide};
