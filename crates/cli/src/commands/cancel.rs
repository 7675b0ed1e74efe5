//! `palinode cancel`

use std::thread;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use palinode::{Ended, Error, ErrorKind, ask_to_stop, cancel_jobs};

use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::terminal::print;

/// Stop a run
///
/// The run finishes the units that it is working on and stops, as after Ctrl-C; its jobs in a cluster do the same. Works from any machine
/// that sees the store. Where the process of the run is gone, its jobs are cancelled. What is finished is kept.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode cancel
  palinode cancel 20260131-235959-1f3a --now")]
pub struct Args {
    /// A run: its ID, any unambiguous prefix or suffix of it, or `latest`.
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,

    /// Do not wait until it has stopped.
    #[arg(long)]
    now: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// Between looks at whether it has stopped.
const LOOK: Duration = Duration::from_millis(300);

/// Stops a run.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs()?;
    let run = runs.open(&args.run)?;
    match run.ended {
        Ended::Not => {
            ask_to_stop(&runs.dir(&run.run))?;
            let began = Instant::now();
            while !args.now && args.store.runs()?.open(&run.run)?.ended == Ended::Not {
                // Its units may take a while.
                if began.elapsed() > Duration::from_hours(1) {
                    let message = format!("run {} has not stopped within an hour", run.run);
                    return Err(Error::new(ErrorKind::Limit, message).into());
                }
                thread::sleep(LOOK);
            }
            print(&format!("run {} {}\n", run.run, if args.now { "is to stop" } else { "has stopped" }))
        }
        Ended::Lost => {
            let jobs = cancel_jobs(runs.store(), &run.run)?;
            print(&format!(
                "the process of run {} is gone; jobs that were left of it and are cancelled: {jobs}\n",
                run.run
            ))
        }
        _ => print(&format!("run {} is over\n", run.run)),
    }
}
