//! What the user wants done when a run has ended.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use palinode::{ErrorKind, Outcome, RunReport};

use crate::terminal::{Style, complain};

/// What the command is told of the run.
pub struct Told<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The store's folder.
    pub store: &'a Path,
    /// How it went.
    pub report: &'a RunReport,
}

/// Runs a command in a shell, and waits for it. What it prints goes to stderr: stdout is the run's. That it fails is told, and changes
/// nothing of how the run ended.
pub fn run(command: &str, told: &Told<'_>) {
    let warn = |what: String| {
        complain(&format!("{} the command for the end of the run {what}\n", Style::stderr().yellow("!")));
    };
    let output = io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
    let done = Command::new("sh")
        .args(["-c", command])
        .env("PALINODE_RUN", &told.report.run)
        .env("PALINODE_PIPELINE", told.pipeline)
        .env("PALINODE_ENDED", ended(told.report))
        .env("PALINODE_SECONDS", format!("{:.0}", told.report.seconds))
        .env("PALINODE_STORE", told.store)
        .stdin(Stdio::null())
        .stdout(output)
        .status();
    match done {
        Ok(status) if status.success() => {}
        Ok(status) => warn(format!("failed: {status}")),
        Err(error) => warn(format!("cannot be run: {error}")),
    }
}

/// In the words of lists of runs.
fn ended(report: &RunReport) -> &'static str {
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed { kind, .. } if *kind != ErrorKind::Interrupted);
    let not_done = |outcome: &Outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::Skipped { .. });
    if report.count(failed) > 0 {
        "failed"
    } else if report.count(not_done) > 0 {
        "stopped"
    } else {
        "done"
    }
}
