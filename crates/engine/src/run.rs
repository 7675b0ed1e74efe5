//! Runs a pipeline.
//!
//! One loop owns the state: which instances have results, which failed, what was told. What runs a stage owns nothing but
//! its own action, so that it can move to a thread or to another process without the loop noticing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::artifact::Artifact;
use crate::context::{RunContext, StageContext};
use crate::error::{ErrorKind, StageError};
use crate::event::{Event, Observer, Outcome};
use crate::key::Preimage;
use crate::log::{EventLog, Tee};
use crate::pipeline::{Instance, Pipeline};
use crate::plan::{Action, Planner};
use crate::runs::Recorder;
use crate::shared::SharedPool;
use crate::store::{FORMAT, Manifest, Store};
use crate::{panics, runid};

/// How many loaded resources are kept between stages.
const POOL: usize = 3;

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The device that stages are asked to use; recorded, not part of any key.
    pub device: String,
    /// Whether stages that do not need a failed one still run.
    pub keep_going: bool,
    /// Set it to stop after the unit that is being worked on.
    pub interrupt: Arc<AtomicBool>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { device: "auto".to_owned(), keep_going: false, interrupt: Arc::default() }
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

/// Runs a pipeline: every stage whose result is not in the store.
///
/// A failed stage is in the report, not an error of this function.
///
/// # Errors
/// When the run itself cannot be kept: the store cannot be written.
pub fn run(
    pipeline: &Pipeline,
    store: &Arc<Store>,
    options: &RunOptions,
    observer: &Arc<dyn Observer>,
) -> Result<RunReport, StageError> {
    let started = Instant::now();
    let id = runid::new();
    let dir = store.run_dir(&id);
    let log = EventLog::create(&dir)?;
    // Whoever reads the record has to find its holder alive.
    store.note_run(&id);
    let recorder = Arc::new(Recorder::start(&id, pipeline, &options.device, store)?);
    let recorded: Arc<dyn Observer> = Arc::new(Tee(Arc::clone(&recorder), Arc::clone(observer)));
    let observer: Arc<dyn Observer> = Arc::new(Tee(log, recorded));
    observer.event(&Event::RunStarted {
        run: id.clone(),
        pipeline: pipeline.name.clone(),
        stages: pipeline.instances.len(),
    });
    let context = RunContext {
        store: Arc::clone(store),
        base: pipeline.base.clone(),
        device: options.device.clone(),
        observer: Arc::clone(&observer),
        interrupt: Arc::clone(&options.interrupt),
        pool: Arc::new(SharedPool::new(POOL)),
    };
    let stages = Loop { pipeline, context, id: &id, keep_going: options.keep_going }.run();
    store.flush();
    let report = RunReport { run: id, dir, stages, seconds: started.elapsed().as_secs_f64() };
    observer.event(&Event::RunFinished {
        ran: report.count(|outcome| matches!(outcome, Outcome::Ran)),
        cached: report.count(|outcome| matches!(outcome, Outcome::Cached)),
        failed: report.count(|outcome| matches!(outcome, Outcome::Failed { .. })),
        skipped: report.count(|outcome| matches!(outcome, Outcome::Skipped { .. })),
        seconds: report.seconds,
    });
    if let Err(error) = recorder.finish(store, &report.stages) {
        observer.event(&Event::Warning { message: format!("the record of this run is not complete: {error}") });
    }
    Ok(report)
}

struct Loop<'a> {
    pipeline: &'a Pipeline,
    context: RunContext,
    id: &'a str,
    keep_going: bool,
}

impl Loop<'_> {
    fn run(&self) -> Vec<StageReport> {
        let store = Arc::clone(&self.context.store);
        let observer = Arc::clone(&self.context.observer);
        let mut planner = Planner::new(self.pipeline, &store, observer.as_ref());
        let mut stages: Vec<StageReport> = Vec::new();
        let mut stopped = false;
        for instance in &self.pipeline.instances {
            stopped |= self.context.interrupt.load(Ordering::Relaxed);
            let without = instance.inputs.values().find(|&&from| stages[from].artifact.is_none());
            let report = match without {
                Some(&from) => skipped(instance, self.root_of(&stages, from)),
                None if stopped => skipped(instance, None),
                None => self.settle(instance, &mut planner, &stages),
            };
            for message in store.take_notes() {
                observer.event(&Event::Warning { message });
            }
            if let Outcome::Failed { kind, .. } = &report.outcome {
                stopped |= !self.keep_going || matches!(kind, ErrorKind::Interrupted | ErrorKind::Store);
            }
            stages.push(report);
        }
        stages
    }

    /// The failed stage that those after `from` are skipped for, if one failed.
    fn root_of(&self, stages: &[StageReport], from: usize) -> Option<String> {
        match &stages[from].outcome {
            Outcome::Skipped { because } => because.clone(),
            _ => Some(self.pipeline.instances[from].name.clone()),
        }
    }

    /// Finds the result of an instance or makes it.
    fn settle(&self, instance: &Instance, planner: &mut Planner<'_>, stages: &[StageReport]) -> StageReport {
        let started = Instant::now();
        let action = match planner.action(instance, &|from| stages[from].artifact.clone()) {
            Ok(action) => action,
            Err(error) => return self.finished(instance, None, failed(&error), None, started),
        };
        let key = Some(action.key);
        match &action.found {
            Ok(manifest) => {
                let artifact = Arc::new(manifest.output.clone());
                self.finished(instance, key, Outcome::Cached, Some(artifact), started)
            }
            Err(reasons) => {
                self.context.observer.event(&Event::StageStarted {
                    instance: instance.name.clone(),
                    uses: instance.kind.info().name.to_owned(),
                    reasons: reasons.iter().map(ToString::to_string).collect(),
                });
                let inputs = instance.inputs.iter();
                let inputs =
                    inputs.filter_map(|(port, &from)| Some((port.clone(), stages[from].artifact.clone()?))).collect();
                let made = perform(&self.context, instance, &action, inputs)
                    .and_then(|artifact| self.publish(instance, &action, artifact, started));
                match made {
                    Ok(artifact) => self.finished(instance, key, Outcome::Ran, Some(artifact), started),
                    Err(error) => self.finished(instance, key, failed(&error), None, started),
                }
            }
        }
    }

    fn publish(
        &self,
        instance: &Instance,
        action: &Action,
        mut artifact: Artifact,
        started: Instant,
    ) -> Result<Arc<Artifact>, StageError> {
        for published in &mut artifact.published {
            // Kept relative, so that the record is as true for a copy of the folder as for the folder itself.
            if let Ok(inside) = published.path.strip_prefix(&self.pipeline.base) {
                published.path = inside.to_owned();
            }
        }
        let output = instance.kind.info().output;
        if artifact.kind != output {
            let message = format!("it yielded `{}` where `{output}` was promised", artifact.kind);
            return Err(StageError::internal(message));
        }
        let store = &self.context.store;
        for (name, file) in &artifact.files {
            let external = action.files.values().any(|known| known == file);
            if !external && store.find(file)?.is_none() {
                return Err(StageError::internal(format!(
                    "its result `{name}` is neither in the store nor a file of its own"
                )));
            }
        }
        let manifest = Manifest {
            format: FORMAT,
            key: action.key,
            preimage: Preimage::clone(&action.preimage),
            unkeyed: action.unkeyed.clone(),
            content: artifact.digest(),
            output: artifact,
            pipeline: self.pipeline.name.clone(),
            instance: instance.name.clone(),
            run: self.id.to_owned(),
            device: self.context.device.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            finished_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            seconds: started.elapsed().as_secs_f64(),
        };
        store.publish(&manifest)?;
        Ok(Arc::new(manifest.output))
    }

    fn finished(
        &self,
        instance: &Instance,
        key: Option<crate::Key>,
        outcome: Outcome,
        artifact: Option<Arc<Artifact>>,
        started: Instant,
    ) -> StageReport {
        let seconds = started.elapsed().as_secs_f64();
        self.context.observer.event(&Event::StageFinished {
            instance: instance.name.clone(),
            outcome: outcome.clone(),
            key,
            seconds,
        });
        StageReport { instance: instance.name.clone(), outcome, artifact, seconds }
    }
}

/// Runs one stage. Everything it needs is in its arguments; a panic inside it is an error like any other.
fn perform(
    run: &RunContext,
    instance: &Instance,
    action: &Action,
    inputs: BTreeMap<String, Arc<Artifact>>,
) -> Result<Artifact, StageError> {
    let info = instance.kind.info();
    let path_of = |name: &str| instance.files.iter().find(|file| file.name == name).map(|file| file.path.clone());
    let files = action.files.iter();
    let context = StageContext {
        run: run.clone(),
        instance: instance.name.clone(),
        kind: info.name,
        version: info.version,
        inputs,
        files: files.filter_map(|(name, file)| Some((name.clone(), (*file, path_of(name)?)))).collect(),
        scratch: OnceLock::new(),
    };
    let span = tracing::info_span!("stage", instance = %instance.name, uses = info.name);
    let result = span.in_scope(|| panics::catch(|| instance.kind.run(&instance.params, &context)));
    result.unwrap_or_else(|panic| {
        Err(StageError::internal(format!("`{}` panicked: {panic}", info.name))
            .hint("this is a mistake in the program; please report it with the event log of this run"))
    })
}

fn skipped(instance: &Instance, because: Option<String>) -> StageReport {
    let outcome = Outcome::Skipped { because };
    StageReport { instance: instance.name.clone(), outcome, artifact: None, seconds: 0.0 }
}

fn failed(error: &StageError) -> Outcome {
    let mut message = error.message.clone();
    let mut source = error.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
    while let Some(cause) = source {
        let text = cause.to_string();
        // Many messages repeat their cause.
        if !message.contains(&text) && error.source.as_ref().is_none_or(|source| !source.is::<std::io::Error>()) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    if let Some(at) = &error.at {
        message = format!("{at}: {message}");
    }
    Outcome::Failed { kind: error.kind, message, hint: error.hint.clone() }
}

/// The name under which a run's event log lies in its folder.
pub fn event_log(dir: &Path) -> PathBuf {
    dir.join(crate::log::NAME)
}
