//! `palinode attach`

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args as ClapArgs;
use palinode::{CommandLine, Ended, Error, ErrorKind, RunRecord};

use crate::command_error::Failure;
use crate::commands::logs::follow;
use crate::input::StoreArgs;
use crate::past;
use crate::terminal::{Style, complain};

/// Follow a run until it ends, and go on with it where its process is gone
///
/// A run that was started with `--detach`, or in another terminal, is followed: its stages' logs are shown as they grow. Ctrl-C leaves it,
/// and it goes on. Where the process of the run was killed, or its machine restarted, the same command is started again in its folder: jobs
/// that are still in the cluster are found, and what is finished is not done again. The exit code is that of the run.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode attach
  palinode attach 20260131-235959-1f3a")]
pub struct Args {
    /// A run: its ID, any unambiguous prefix or suffix of it, or `latest`.
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,

    #[command(flatten)]
    store: StoreArgs,
}

/// Follows a run, or goes on with it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs()?;
    let run = runs.open(&args.run)?;
    let style = Style::stderr();
    if run.ended == Ended::Not {
        follow(&args.store, &run, None, &Style::stdout())?;
    }
    let run = args.store.runs()?.open(&run.run)?;
    if run.ended == Ended::Lost {
        return go_on(&runs.dir(&run.run).join(CommandLine::FILE), &run);
    }
    let ended = past::ending_drawn(&run, &style);
    complain(&format!("run {} {ended} {}: {}\n", run.run, past::took(&run), past::counts(&run)));
    match failure(&run) {
        Some(kind) => Err(Failure::Told(kind)),
        None => Ok(()),
    }
}

fn failure(run: &RunRecord) -> Option<ErrorKind> {
    if run.ended == Ended::Interrupted {
        return Some(ErrorKind::Interrupted);
    }
    let kinds = run.stages.iter().filter_map(past::outcome).filter_map(|outcome| match outcome {
        palinode::Outcome::Failed { kind, .. } => Some(*kind),
        _ => None,
    });
    kinds.into_iter().next()
}

/// Starts the same command again.
fn go_on(path: &PathBuf, run: &RunRecord) -> Result<(), Failure> {
    let gone = format!("the process of run {} is gone", run.run);
    let bytes = fs::read(path).map_err(|_| {
        Error::new(ErrorKind::Usage, format!("{gone}, and how it was started is not written down"))
            .hint("give its command again: it goes on from what is finished")
    })?;
    let CommandLine { folder, words } = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(ErrorKind::Store, format!("{}: {error}", path.display())))?;
    complain(&format!("{gone}; the same command goes on from there\n"));
    let program = env::current_exe().map_err(|error| Error::internal("cannot find the program").source(error))?;
    // It is this process from now on: its exit code, its Ctrl-C.
    let error = Command::new(program).args(&words).current_dir(&folder).exec();
    Err(Error::internal(format!("cannot start the command in {}: {error}", folder.display())).into())
}
