//! Declarative pipelines: graph, keys, plan, store and execution. Knows stages and artifacts, never a language model.
//!
//! A [`Catalogue`] brings the stages; [`Pipeline::load`] turns a file into a checked graph of instances; [`plan`] says what
//! a run would do and why; [`run`] does it. Results lie in a [`Store`] under keys that cover all that can change them.

mod artifact;
mod catalogue;
mod context;
mod diagnostic;
mod digest;
mod encode;
mod error;
mod event;
mod field;
mod key;
mod log;
mod panics;
mod past;
mod pipeline;
mod plan;
mod progress;
mod run;
mod runid;
mod shared;
mod stage;
mod store;
mod suggest;

pub use artifact::{Artifact, Published};
pub use catalogue::{Catalogue, ErasedStage, Params, StageInfo};
pub use context::{ExternalFiles, RunContext, StageContext};
pub use diagnostic::{Diagnostic, Diagnostics, Source, Span};
pub use digest::{Digest, FileRef, Key};
pub use encode::Encoder;
pub use error::{DataPlace, ErrorKind, FieldError, StageError};
pub use event::{Event, Observer, Outcome, Silent};
pub use key::{Change, Preimage};
pub use panics::panic_is_caught;
pub use past::{PastRun, PastStage};
pub use pipeline::{Instance, Pipeline, pipeline_schema};
pub use plan::{Plan, PlanEntry, Reason, Status, plan};
pub use progress::Progress;
pub use run::{RunOptions, RunReport, StageReport, event_log, run};
pub use runid::utc;
pub use shared::SharedPool;
pub use stage::{ArtifactKind, DescribeCx, ExternalFile, Port, StageKind};
pub use store::{Damage, Holder, Manifest, Store, Verified};
pub use suggest::{did_you_mean, nearest, one_of};
