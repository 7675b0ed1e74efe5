//! Plans pipelines and runs them. Knows stages and artifacts, never a language model.
//!
//! A [`Catalogue`] brings the stages; [`Pipeline::load`] turns a file into a checked graph of instances; [`plan()`] says what
//! a run would do and why; [`run()`] does it. Results lie in a [`Store`] under keys that cover all that can change them.
//!
//! ```
//! # use std::path::Path;
//! # use std::sync::Arc;
//! # use palinode_engine::{Artifact, Catalogue, Kind, Outcome, artifact, Pipeline, RunOptions, Silent, Source};
//! # use palinode_engine::{StageContext, Error, StageKind, Store, run};
//! # use schemars::JsonSchema;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Greeting {
//!     name: String,
//! }
//!
//! /// Texts: they say nothing of themselves, and nothing is known of them before they are there.
//! struct Text;
//!
//! impl Kind for Text {
//!     const NAME: &'static str = "text";
//!     type Facts = ();
//!     type Planned = ();
//! }
//!
//! struct Greet;
//!
//! impl StageKind for Greet {
//!     type Params = Greeting;
//!     const NAME: &'static str = "greet";
//!     const VERSION: u32 = 1;
//!     const SUMMARY: &'static str = "Greets.";
//!     const DOC: &'static str = "Writes a greeting.";
//!     type Output = Text;
//!
//!     fn run(params: &Greeting, cx: &StageContext) -> Result<Artifact, Error> {
//!         let text = cx.put_bytes(format!("Hello, {}!", params.name).as_bytes())?;
//!         Ok(artifact::<Text>(&())?.with_file("text", text))
//!     }
//! }
//!
//! let mut catalogue = Catalogue::new();
//! catalogue.register::<Greet>();
//! let file = Source::new("p.yaml", "name: p\nstages: { a: { uses: greet, with: { name: you } } }");
//! let pipeline = Pipeline::load(&file, Path::new("."), &[], &catalogue)?;
//! # let folder = tempfile::tempdir()?;
//! let store = Arc::new(Store::open(&folder.path().join("store"))?);
//! for outcome in [Outcome::Ran, Outcome::Cached] {
//!     let report = run(&pipeline, &catalogue, &store, &RunOptions::default(), &(Arc::new(Silent) as Arc<_>))?;
//!     assert_eq!(report.stages[0].outcome, outcome);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod alone;
mod attempts;
mod catalogue;
mod context;
mod cost;
mod driver;
mod environment;
mod estimate;
mod event;
mod executor;
mod given;
mod keep;
mod keyed;
mod log;
mod machine;
mod migrate;
mod options;
mod outputs;
mod past;
mod plan;
mod progress;
mod report;
mod run;
mod runid;
mod runs;
mod scheduler;
mod share;
mod shared;
mod stage;
mod stagelog;
mod stop;
mod unfinished;
mod unit;
mod watch;

pub use action::Action;
pub use alone::alone;
pub use attempts::{ATTEMPTS, Attempt, AttemptEnd, AttemptFailure};
pub use catalogue::{Catalogue, ErasedStage};
pub use context::{ExternalFiles, RunContext, StageContext};
pub use cost::Cost;
pub use estimate::{Estimate, estimate};
pub use event::{Event, Observer, Outcome, Silent};
pub use executor::{Asked, Cluster, Looked, Profile, Queue, WorkerCommand, work, work_aloud, work_job};
pub use given::{Given, artifact};
pub use keep::{Exported, Imported, RunRetention, collect, export, garbage, import, pin};
pub use machine::Machine;
pub use migrate::{Migrated, migrate};
pub use options::{CommandLine, Gate, RunOptions};
pub use outputs::OVERWRITE;
pub use past::{PastRun, PastStage};
pub use plan::{Plan, PlanEntry, Reason, Status, plan};
pub use progress::Progress;
pub use report::{RunReport, StageReport};
pub use run::{event_log, run};
pub use runs::{
    Count, Ended, RECORD, RESOLVED, ResolvedPipeline, ResolvedStage, RunRecord, Runs, StageRecord, StageState,
};
pub use scheduler::Backoff;
pub use share::{Inputs, Share};
pub use shared::SharedPool;
pub use stage::{Planned, StageKind};
pub use stagelog::stage_log;
pub use stop::{ask_to_stop, cancel_jobs};

// A stage author and whoever runs pipelines needs these as well.
pub use palinode_error::panics::panic_is_caught;
pub use palinode_error::{
    DataPlace, Error, ErrorKind, Fetch, FieldError, Hint, did_you_mean, nearest, now_ms, one_of, read_size, size, utc,
};
pub use palinode_fingerprint::{Change, Digest, Encoder, FileRef, Fingerprint, Key};
pub use palinode_pipeline::bounds;
pub use palinode_pipeline::{
    Accept, ArtifactKind, Beside, Cores, DescribeCx, Diagnostic, Diagnostics, Disk, Excerpt, ExternalFile, Files,
    Instance, Kind, Limits, Origin, Params, Part, Pipeline, PipelineBuilder, Port, PortOf, Renames, Resources,
    Selection, Setting, Source, Span, Stage, StageBuilder, StageInfo, StageName, Taken, UnitPlan, part_schema,
    pipeline_schema, read_duration, read_yaml,
};
pub use palinode_store::shown;
pub use palinode_store::{
    Artifact, Damage, Dead, Garbage, Holder, MARKER, Maker, Manifest, Output, Overwrite, Pin, Place, Published,
    Rebuilt, Retention, STORE_VERSION, Single, Store, Verified, Waiting, available, ensure_room, inside, real, way,
    write_files,
};
