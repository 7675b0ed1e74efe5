//! `palinode worker`

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Args as ClapArgs;
use palinode::{Action, ErrorKind, work_aloud};

use crate::command_error::{Failure, exit_code};
use crate::{interrupt, threads};

/// Run one stage from an action file
///
/// An action file holds one stage with its parameters, the digests of its inputs, its key and the folder of its store.
/// `palinode run --isolate` writes one for each stage that it runs, into runs/<run>/actions of the store, and starts a
/// worker for it. A cluster can do the same on other machines. A worker needs the files of the store and not its index, so
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
    #[arg(value_name = "ACTION")]
    action: PathBuf,

    /// Take orders on stdin: the first line means Ctrl-C, the end of input means a second Ctrl-C.
    #[arg(long)]
    attached: bool,
}

/// Runs the stage.
pub fn run(args: &Args) -> Result<(), Failure> {
    let action = Action::read(&args.action)?;
    palinode::start_threads()?;
    let interrupt = if args.attached { listen()? } else { interrupt::watch() };
    work_aloud(&action, &palinode::catalogue(), Box::new(io::stdout()), &interrupt).map_err(|error| {
        // Whoever it is attached to has heard of it.
        if args.attached { Failure::Told(error.kind) } else { error.into() }
    })
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
