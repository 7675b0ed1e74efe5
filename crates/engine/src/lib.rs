//! Declarative pipelines: graph, keys, plan, store and execution. Knows stages and artifacts, never a language model.
//!
//! A [`Catalogue`] brings the stages; [`Pipeline::load`] turns a file into a checked graph of instances; [`plan`] says what
//! a run would do and why; [`run`] does it. Results lie in a [`Store`] under keys that cover all that can change them.

mod action;
mod artifact;
mod catalogue;
mod context;
mod diagnostic;
mod digest;
mod encode;
mod environment;
mod error;
mod event;
mod field;
mod isolate;
mod key;
mod limits;
mod log;
mod migrate;
mod owner;
mod panics;
mod past;
mod perform;
mod pipeline;
mod plan;
mod progress;
mod renamed;
mod run;
mod runid;
mod runs;
mod select;
mod shared;
mod size;
mod stage;
mod stagelog;
mod stop;
mod store;
mod suggest;
mod takes;
mod time;
mod unit;
mod unit_plan;
mod worker;

pub use action::Action;
pub use artifact::{Artifact, Published};
pub use catalogue::{Catalogue, ErasedStage, Params, StageInfo};
pub use context::{ExternalFiles, RunContext, StageContext};
pub use diagnostic::{Diagnostic, Diagnostics, Source, Span};
pub use digest::{Digest, FileRef, Key};
pub use encode::Encoder;
pub use error::{DataPlace, ErrorKind, FieldError, StageError};
pub use event::{Event, Observer, Outcome, Silent};
pub use isolate::WorkerCommand;
pub use key::{Change, Fingerprint};
pub use limits::{Limits, read_duration};
pub use migrate::{Migrated, migrate};
pub use panics::panic_is_caught;
pub use past::{PastRun, PastStage};
pub use pipeline::{Disk, Files, Instance, Pipeline, pipeline_schema};
pub use plan::{Plan, PlanEntry, Reason, Status, plan};
pub use progress::Progress;
pub use renamed::Renames;
pub use run::{RunOptions, RunReport, StageReport, event_log, run};
pub use runs::{
    Count, Ended, RECORD, RESOLVED, ResolvedPipeline, ResolvedStage, RunRecord, Runs, StageRecord, StageState,
};
pub use select::Selection;
pub use shared::SharedPool;
pub use size::{read_size, size};
pub use stage::{ArtifactKind, DescribeCx, ExternalFile, Port, StageKind};
pub use stagelog::stage_log;
pub use store::{
    Damage, Dead, Exported, Garbage, Holder, Imported, Manifest, Pin, Place, Rebuilt, Retention, STORE_VERSION, Store,
    Verified, Waiting, ensure_room,
};
pub use suggest::{did_you_mean, nearest, one_of};
pub use takes::{Cores, Machine, Takes};
pub use time::{now_ms, utc};
pub use unit_plan::UnitPlan;
pub use worker::{work, work_aloud};
