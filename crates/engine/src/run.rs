//! Runs a pipeline: what stands around the work of its stages, from the first line of the record to the last.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::cost::Meter;
use crate::driver::Driver;
use crate::event::{Event, Observer, Outcome, warn};
use crate::executor::{Executor, InJobs, Local, Processes};
use crate::log::{EventLog, Tee};
use crate::machine::Capacity;
use crate::options::{CommandLine, RunOptions};
use crate::outputs::may_be_written;
use crate::report::RunReport;
use crate::runid;
use crate::runs::Recorder;
use crate::shared::SharedPool;
use palinode_error::{Error, ErrorKind};
use palinode_pipeline::Pipeline;
use palinode_store::Store;

/// Refuses stages that would publish into the store, or over it.
fn keeps_out(pipeline: &Pipeline, store: &Store) -> Result<(), Error> {
    let root = store.root().canonicalize().unwrap_or_else(|_| store.root().to_owned());
    let harmful =
        pipeline.published().into_iter().find(|(_, _, place)| place.starts_with(&root) || root.starts_with(place));
    harmful.map_or(Ok(()), |(instance, field, place)| {
        let message =
            format!("`{field}` of `{}` is {}, where the store {} lies", instance.name, place.display(), root.display());
        Err(Error::new(ErrorKind::Pipeline, message).hint("give a path outside the store"))
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
) -> Result<RunReport, Error> {
    let started = Instant::now();
    let meter = Meter::start();
    let chosen = options.selection.choose(pipeline)?;
    keeps_out(pipeline, store)?;
    may_be_written(pipeline, &chosen, store)?;
    let id = runid::new();
    let dir = store.run_dir(&id);
    let log = EventLog::create(&dir)?;
    // Whoever reads the record has to find its holder alive.
    store.note_run(&id);
    store.share(&dir);
    if let Some(command) = &options.command {
        let bytes = serde_json::to_vec(command).unwrap_or_default();
        store.write_file(&dir.join(CommandLine::FILE), &bytes)?;
    }
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
        let write = || Recorder::resolved(&id, pipeline, store);
        let resolved = thread::Builder::new().spawn_scoped(scope, write);
        let capacity =
            Capacity { machine: options.machine, jobs: options.jobs.unwrap_or(options.machine.cores).max(1) };
        let executor: Box<dyn Executor> = match (&options.cluster, &options.worker) {
            (Some(cluster), _) => Box::new(InJobs::new(&context, catalogue, &id, cluster)),
            (None, Some(worker)) => Box::new(Processes::new(
                &context,
                catalogue,
                &id,
                (worker, options.shares, &options.share_devices),
                capacity,
            )),
            (None, None) => Box::new(Local::new(&context, catalogue, capacity)),
        };
        let stages = Driver::new(pipeline, &context, &id, options, &chosen, executor).run();
        let resolved = match resolved {
            Ok(resolved) => resolved.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => write(),
        };
        if let Err(error) = resolved {
            observer.event(&Event::warning(format!("the run's pipeline is not written down: {error}")));
        }
        stages
    });
    drop(context);
    store.flush();
    store.share(&dir);
    let cost = meter.stop(options.worker.is_none());
    let report = RunReport { run: id, dir, stages, seconds: started.elapsed().as_secs_f64(), cost };
    observer.event(&Event::RunFinished {
        ran: report.count(|outcome| matches!(outcome, Outcome::Ran)),
        cached: report.count(|outcome| matches!(outcome, Outcome::Cached)),
        failed: report.count(|outcome| matches!(outcome, Outcome::Failed { .. })),
        skipped: report.count(|outcome| matches!(outcome, Outcome::Skipped { .. })),
        seconds: report.seconds,
    });
    if let Err(error) = recorder.finish(store, &report.stages, report.cost) {
        observer.event(&Event::warning(format!("the record of this run is not complete: {error}")));
    }
    Ok(report)
}

/// The name under which a run's event log lies in its folder.
pub fn event_log(dir: &Path) -> PathBuf {
    dir.join(crate::log::NAME)
}
