//! Where stages work: the argument that says it.

use std::ffi::OsString;
use std::thread::available_parallelism;

use clap::Args;
use palinode::{Cluster, Error, WorkerCommand};

use crate::command_error::Failure;
use crate::{logging, settings};

/// Where stages work.
#[derive(Args)]
pub struct ExecutorArgs {
    /// Where stages work: `threads` of this process; `processes`, one for each stage, or `processes:N`, in which long stages part their
    /// work among N processes; `slurm`, or `slurm:PROFILE`, jobs of a cluster, with a profile of your settings. A process that dies, for
    /// example out of memory, fails alone. All give the same results, bit for bit.
    #[arg(long, value_name = "WHERE", default_value = "threads", value_parser = read)]
    pub executor: Where,

    /// The same as `--executor processes`.
    #[arg(long, conflicts_with = "executor")]
    isolate: bool,
}

/// Where stages work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In this process.
    Threads,
    /// In processes, and the work of one stage in so many at most.
    Processes(usize),
    /// In jobs of a cluster, as this profile of the user's settings says.
    Slurm(String),
}

impl ExecutorArgs {
    /// Where.
    pub fn chosen(&self) -> Where {
        if self.isolate { Where::Processes(1) } else { self.executor.clone() }
    }
}

/// What starts a worker that this process attends to: this program.
pub fn attached() -> Result<WorkerCommand, Failure> {
    let mut command = program()?;
    command.push("--attached".into());
    command.extend(logging::argument().map(Into::into));
    Ok(WorkerCommand(command))
}

/// The cluster, where stages work in one.
pub fn cluster(chosen: &Where) -> Result<Option<Cluster>, Failure> {
    let Where::Slurm(profile) = chosen else { return Ok(None) };
    let profile = settings::profile(profile)?;
    let mut program: Vec<String> = program()?.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    program.push("--jobs".to_owned());
    Ok(Some(Cluster::find(profile, program)?))
}

/// What starts a worker anywhere.
fn program() -> Result<Vec<OsString>, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Error::internal("cannot find the program to start for each stage").source(error))?;
    Ok(vec![program.into(), "worker".into()])
}

fn read(text: &str) -> Result<Where, String> {
    let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    match (name, rest) {
        ("threads", None) => Ok(Where::Threads),
        ("processes", None) => Ok(Where::Processes(1)),
        ("processes", Some(count)) => {
            if let Ok(count @ 1..) = count.parse() {
                return Ok(Where::Processes(count));
            }
            let cores = available_parallelism().map_or(1, usize::from);
            Err(format!("expected a number of processes, 1 or more, as in `processes:{cores}`"))
        }
        ("slurm", None) => Ok(Where::Slurm("default".to_owned())),
        ("slurm", Some(profile)) if !profile.is_empty() => Ok(Where::Slurm(profile.to_owned())),
        _ => Err("expected threads, processes, processes:N, slurm or slurm:PROFILE".to_owned()),
    }
}
