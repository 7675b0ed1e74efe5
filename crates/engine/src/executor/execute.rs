//! Executes an action: the same in a thread of the run, in a process of its own, and on another machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::action::Action;
use crate::catalogue::ErasedStage;
use crate::context::{Endings, RunContext, StageContext};
use crate::share::Shared;
use crate::unit::Units;
use crate::watch::{Change, Watch};
use palinode_error::now_ms;
use palinode_error::panics;
use palinode_error::{Error, ErrorKind};
use palinode_pipeline::Params;
use palinode_store::Artifact;
use palinode_store::{FORMAT, Manifest, Store};

/// How often a stage begins again whose files were written while it read them, and hold what they did.
const AGAIN: u32 = 3;

/// Runs one stage and publishes what it yields, as [`make`] makes it.
pub(crate) fn execute(
    run: &RunContext,
    kind: &Arc<dyn ErasedStage>,
    params: &Params,
    action: &Arc<Action>,
    stop: &Arc<AtomicBool>,
) -> Result<Manifest, Error> {
    let manifest = make(run, kind, params, action, stop)?;
    run.store.publish(&manifest)?;
    Ok(manifest)
}

/// Runs one stage; what it yields is ready to be published. Everything it needs is in its arguments; a panic inside it is an error like
/// any other. Once `stop` is set, the stage finishes its unit and gives up.
///
/// Nothing is kept of a stage whose files changed. Where they were only written anew, with the same contents, it goes on from its last unit.
pub(crate) fn make(
    run: &RunContext,
    kind: &Arc<dyn ErasedStage>,
    params: &Params,
    action: &Arc<Action>,
    stop: &Arc<AtomicBool>,
) -> Result<Manifest, Error> {
    let started = Instant::now();
    let artifact = work(run, kind, params, action, stop)?;
    let absolute = kind.publishes(params).iter().any(|(_, path)| path.is_absolute());
    record(&run.store, (kind.info().output, absolute), action, artifact, started)
}

/// Lets one stage work, all of it or the share that its action names, and yields what it answers.
pub(crate) fn work(
    run: &RunContext,
    kind: &Arc<dyn ErasedStage>,
    params: &Params,
    action: &Arc<Action>,
    stop: &Arc<AtomicBool>,
) -> Result<Artifact, Error> {
    let info = kind.info();
    let mut again = AGAIN;
    loop {
        let context = StageContext {
            run: run.clone(),
            action: Arc::clone(action),
            stop: Arc::clone(stop),
            units: Units::new(action.forced),
            watch: Watch::begin(&run.store, action.files.values())?,
            shared: Shared::new(action.share),
            endings: Endings::default(),
        };
        let span = tracing::info_span!("stage", instance = %action.instance, uses = info.name, run = %action.run);
        let result = span.in_scope(|| panics::catch(|| kind.run(params, &context)));
        context.say_endings();
        // Whatever else went wrong, it went wrong with files that changed.
        let change = context.watch.change(&run.store);
        let stopped = matches!(&result, Ok(Err(error)) if error.kind == ErrorKind::Interrupted);
        match change.filter(|_| !stopped) {
            Some(change @ Change::Written(_)) if again > 0 => {
                again -= 1;
                let Error { message, .. } = change.error(&action.instance);
                context.warn(format!("{message}; it holds what it did, so the stage goes on from its last unit"));
            }
            Some(change) => return Err(change.error(&action.instance)),
            None => {
                return result.unwrap_or_else(|panic| {
                    Err(Error::internal(format!("`{}` panicked: {panic}", info.name))
                        .hint("this is a mistake in the program; please report it with the event log of this run"))
                });
            }
        }
    }
}

/// The record of the result, once that is what was promised.
fn record(
    store: &Store,
    (output, absolute): (&str, bool),
    action: &Action,
    mut artifact: Artifact,
    started: Instant,
) -> Result<Manifest, Error> {
    for published in &mut artifact.published {
        // Kept relative, so that the record is as true for a copy of the folder as for the folder itself. Where the parameters name one
        // place for all, so does the record.
        if !absolute && let Ok(inside) = published.path.strip_prefix(&action.base) {
            published.path = Path::to_owned(inside);
        }
    }
    if artifact.kind != output {
        return Err(Error::internal(format!("it yielded `{}` where `{output}` was promised", artifact.kind)));
    }
    for (name, file) in &artifact.files {
        let external = action.files.values().any(|(known, _)| known == file);
        if !external && store.find(file)?.is_none() {
            return Err(Error::internal(format!("its result `{name}` is neither in the store nor a file of its own")));
        }
    }
    Ok(Manifest {
        format: FORMAT,
        key: action.key,
        fingerprint: action.fingerprint.clone(),
        unkeyed: action.unkeyed.clone(),
        content: artifact.digest(),
        output: artifact,
        pipeline: action.pipeline.clone(),
        instance: action.instance.clone(),
        run: action.run.clone(),
        device: action.device.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        finished_ms: now_ms(),
        seconds: started.elapsed().as_secs_f64(),
    })
}
