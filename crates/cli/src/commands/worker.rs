//! `palinode worker`

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Args as ClapArgs;
use palinode::{Action, Error, ErrorKind, work_aloud, work_job};

use crate::command_error::{Failure, exit_code};
use crate::{interrupt, threads};

/// Run one stage from an action file
///
/// An action file holds one stage with its parameters, the digests of its inputs, its key and the folder of its store.
/// `palinode run --executor processes` writes one for each stage that it runs, into runs/<run>/actions of the store, and starts a
/// worker for it. `--executor slurm` does the same on the machines of a cluster, where a worker takes a job of a list. docs/cluster.md has the format of both. A worker needs the files of the store and not its index, so
/// it can work while a run has the store open. It keeps finished units and publishes the result. It prints events on
/// stdout, one JSON object per line; the last one is `done` or `failed`.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode worker .palinode/runs/20260131-235959-1f3a/actions/0004-solve.json
  palinode worker action.json | jq -c '.event // . | select(.event != \"progress\")'

The exit codes are those of `palinode run`. SIGINT or SIGTERM once: finish the current unit and stop; twice: stop at once.")]
pub struct Args {
    /// The action file.
    #[arg(value_name = "ACTION", required_unless_present = "jobs")]
    action: Option<PathBuf>,

    /// Do a job of a list, and write its answer where the list says.
    #[arg(long, value_name = "LIST", requires = "job", conflicts_with_all = ["action", "attached"])]
    jobs: Option<PathBuf>,

    /// Which one, counted from 0.
    #[arg(long, value_name = "N", env = "PALINODE_JOB", hide_env = true)]
    job: Option<usize>,

    /// Take orders on stdin: the first line means Ctrl-C, the end of input means a second Ctrl-C.
    #[arg(long)]
    attached: bool,
}

/// Runs the stage.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let (Some(list), Some(job)) = (&args.jobs, args.job) {
        palinode::start_threads()?;
        let interrupt = interrupt::watch();
        return Ok(work_job(list, job, &palinode::catalogue(), &interrupt, &settle)?);
    }
    let Some(path) = &args.action else { return Ok(()) };
    let action = Action::read(path)?;
    palinode::start_threads()?;
    let interrupt = if args.attached { listen()? } else { interrupt::watch() };
    work_aloud(&action, &palinode::catalogue(), Box::new(io::stdout()), &interrupt).map_err(|error| {
        // Whoever it is attached to has heard of it.
        if args.attached { Failure::Told(error.kind) } else { error.into() }
    })
}

/// Decides what the machine decides: the device, which has to be the one that keys are of where equal keys are to mean equal bits.
fn settle(action: &mut Action) -> Result<(), Error> {
    if action.device == "auto" {
        palinode::chosen_device().clone_into(&mut action.device);
    }
    let Some(planned) = action.hardware() else { return Ok(()) };
    let here = palinode::hardware(&action.device)?;
    if here == planned {
        return Ok(());
    }
    let message = format!(
        "equal keys mean equal bits in this pipeline, and its keys are of {planned}; this machine computes on {here}"
    );
    Err(Error::new(ErrorKind::Usage, message)
        .hint("start the run on a machine like those that do its work, or have `numerics: portable`"))
}

/// Does what comes on stdin.
fn listen() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let listening = thread::Builder::new().spawn(move || {
        let mut byte = [0];
        while io::stdin().read(&mut byte).is_ok_and(|length| length > 0) {
            set.store(true, Ordering::Relaxed);
        }
        // The run is over or was killed: nobody waits for this any more, and the next run may want to do it.
        exit(i32::from(exit_code(ErrorKind::Interrupted)));
    });
    match listening {
        Ok(_) => Ok(flag),
        Err(error) => Err(threads::refused(&error)),
    }
}
