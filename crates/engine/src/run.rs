//! Runs a pipeline.
//!
//! What a run is asked to do and what it did; how it goes about it is the owner's part.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::event::{Event, Observer, Outcome, warn};
use crate::isolate::WorkerCommand;
use crate::log::{EventLog, Tee};
use crate::machine::Machine;
use crate::owner::Owner;
use crate::runid;
use crate::runs::Recorder;
use crate::shared::SharedPool;
use palinode_error::{ErrorKind, StageError};
use palinode_pipeline::Pipeline;
use palinode_pipeline::Selection;
use palinode_store::Artifact;
use palinode_store::Store;

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The device that stages are asked to use; recorded, not part of any key.
    pub device: String,
    /// What stages are to know of how they shall work and that changes no bit of a result, by name; in no key.
    pub settings: BTreeMap<String, String>,
    /// Whether stages that do not need a failed one still run.
    pub keep_going: bool,
    /// Set it to stop after the unit that is being worked on.
    pub interrupt: Arc<AtomicBool>,
    /// Which stages the run is about.
    pub selection: Selection,
    /// How many stages may work at once; as many as there are cores if not given.
    pub jobs: Option<usize>,
    /// What the stages share.
    pub machine: Machine,
    /// Runs each stage in a process of its own, started like this; if not given, in a thread of this one.
    pub worker: Option<WorkerCommand>,
    /// How long such a process may take to finish its unit once its time is up.
    pub grace: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            settings: BTreeMap::new(),
            keep_going: false,
            interrupt: Arc::default(),
            selection: Selection::default(),
            jobs: None,
            machine: Machine::this(),
            worker: None,
            grace: Duration::from_secs(30),
        }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct RunReport {
    /// Its id.
    pub run: String,
    /// The folder with its event log.
    pub dir: PathBuf,
    /// What happened to each instance, in the order of [`Pipeline::instances`].
    pub stages: Vec<StageReport>,
    /// How long all of it took.
    pub seconds: f64,
}

/// What a run did with one instance.
#[derive(Debug)]
pub struct StageReport {
    /// The instance.
    pub instance: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its result, if it has one.
    pub artifact: Option<Arc<Artifact>>,
    /// How long it worked.
    pub seconds: f64,
}

impl RunReport {
    /// Number of stages with an outcome like this.
    pub fn count(&self, like: impl Fn(&Outcome) -> bool) -> usize {
        self.stages.iter().filter(|stage| like(&stage.outcome)).count()
    }

    /// The first failure, which decides the exit code.
    pub fn failure(&self) -> Option<(&StageReport, ErrorKind)> {
        self.stages.iter().find_map(|stage| match &stage.outcome {
            Outcome::Failed { kind, .. } => Some((stage, *kind)),
            _ => None,
        })
    }
}

/// Refuses stages that would publish into the store, or over it.
fn keeps_out(pipeline: &Pipeline, store: &Store) -> Result<(), StageError> {
    let root = store.root().canonicalize().unwrap_or_else(|_| store.root().to_owned());
    let harmful =
        pipeline.published().into_iter().find(|(_, _, place)| place.starts_with(&root) || root.starts_with(place));
    harmful.map_or(Ok(()), |(instance, field, place)| {
        let message =
            format!("`{field}` of `{}` is {}, where the store {} lies", instance.name, place.display(), root.display());
        Err(StageError::new(ErrorKind::Pipeline, message).hint("give a path outside the store"))
    })
}

/// Runs a pipeline: every stage whose result is not in the store.
///
/// `catalogue` holds the stages that the pipeline was checked against. A failed stage is in the report, not an error of this function.
///
/// # Errors
/// When the selection names a stage that is not there, or the run itself cannot be kept: the store cannot be written.
pub fn run(
    pipeline: &Pipeline,
    catalogue: &Catalogue,
    store: &Arc<Store>,
    options: &RunOptions,
    observer: &Arc<dyn Observer>,
) -> Result<RunReport, StageError> {
    let started = Instant::now();
    let chosen = options.selection.choose(pipeline)?;
    keeps_out(pipeline, store)?;
    let id = runid::new();
    let dir = store.run_dir(&id);
    let log = EventLog::create(&dir)?;
    // Whoever reads the record has to find its holder alive.
    store.note_run(&id);
    store.share(&dir);
    let recorder = Arc::new(Recorder::start(&id, pipeline, &options.device, store, observer)?);
    let recorded: Arc<dyn Observer> = recorder.clone();
    let observer: Arc<dyn Observer> = Arc::new(Tee::new(log, &recorded));
    observer.event(&Event::RunStarted {
        run: id.clone(),
        pipeline: pipeline.name.clone(),
        stages: pipeline.instances.len(),
    });
    let context = RunContext {
        store: Arc::clone(store),
        base: pipeline.base.clone(),
        device: options.device.clone(),
        settings: options.settings.clone(),
        observer: Arc::clone(&observer),
        interrupt: Arc::clone(&options.interrupt),
        pool: Arc::new(SharedPool::default()),
    };
    warn(pipeline, observer.as_ref());
    for message in store.take_notes() {
        observer.event(&Event::warning(message));
    }
    let stages = thread::scope(|scope| {
        // What runs is written down while it begins.
        let resolved = scope.spawn(|| Recorder::resolved(&id, pipeline, store));
        let stages = Owner::new(pipeline, catalogue, &context, &id, options, &chosen).run();
        if let Err(error) = resolved.join().unwrap_or_else(|panic| resume_unwind(panic)) {
            observer.event(&Event::warning(format!("the run's pipeline is not written down: {error}")));
        }
        stages
    });
    drop(context);
    store.flush();
    store.share(&dir);
    let report = RunReport { run: id, dir, stages, seconds: started.elapsed().as_secs_f64() };
    observer.event(&Event::RunFinished {
        ran: report.count(|outcome| matches!(outcome, Outcome::Ran)),
        cached: report.count(|outcome| matches!(outcome, Outcome::Cached)),
        failed: report.count(|outcome| matches!(outcome, Outcome::Failed { .. })),
        skipped: report.count(|outcome| matches!(outcome, Outcome::Skipped { .. })),
        seconds: report.seconds,
    });
    if let Err(error) = recorder.finish(store, &report.stages) {
        observer.event(&Event::warning(format!("the record of this run is not complete: {error}")));
    }
    Ok(report)
}

/// The name under which a run's event log lies in its folder.
pub fn event_log(dir: &Path) -> PathBuf {
    dir.join(crate::log::NAME)
}
