//! `palinode run`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{
    Diagnostic, Error, ErrorKind, Outcome, Pipeline, RunOptions, RunReport, Severity, Store, WorkerCommand, event_log,
};
use serde_json::json;

use crate::again;
use crate::command_error::{Failure, words};
use crate::input::{NetworkArgs, PipelineArgs, SelectionArgs, StoreArgs, WaitArgs, load_beside};
use crate::terminal::{How, Style, clear, complain, errors, format, print, watch};
use crate::{interrupt, logging, past, results};

/// Run a pipeline: every stage whose result is not in the store
///
/// Finished work is kept. After a failure, an interrupt or a power cut, the same command resumes where it stopped, also
/// within long stages. At the end it prints the scores, a few samples, and the files that it wrote. Progress goes to
/// stderr, results to stdout.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode run pipeline.yaml
  palinode run pipeline.yaml --set vars.layers=[5] --set stages.edits.with.limit=10
  palinode run pipeline.yaml --json | jq -c 'select(.event == \"stage_finished\")'
  palinode run pipeline.yaml --until targets                   targets and its inputs
  palinode run pipeline.yaml --from 'solve[objective=rome]'    these cells and all stages after them
  palinode run pipeline.yaml --only scores --force scores      scores alone, again

Stages that do not depend on each other run in parallel when the machine has the resources. Stages
that compute with a model run one at a time, because each uses all cores.

Press Ctrl-C once to finish the current unit and stop, twice to stop at once. Finished work is never lost.")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    store: StoreArgs,

    /// The device that computes: auto, cpu, cuda or cuda:N. It is recorded with each result. Another device is no reason to
    /// compute a result again, except under `numerics: strict`.
    #[arg(long, default_value = "auto")]
    device: String,

    /// Where a model's blocks are while stages compute with them. Resident blocks are all in memory, which is fast. Streamed blocks
    /// are read from the model's files in every pass. This is slower, but the model may be larger than memory. Both give the same results, bit for bit. By default, blocks are resident if the model fits into memory.
    #[arg(long, value_enum, default_value_t = Blocks::Auto, value_name = "WHERE")]
    blocks: Blocks,

    /// After a failure, run all stages that do not depend on the failed stage.
    #[arg(long)]
    keep_going: bool,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Run at most N stages in parallel [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    jobs: Option<usize>,

    /// Run each stage in a process of its own. A process that dies, for example out of memory, fails alone. A stage that
    /// exceeds its `timeout` is stopped even in the middle of a unit. Nothing stays loaded from one stage to the next.
    #[arg(long)]
    isolate: bool,

    /// Do not look at the requests before the work begins.
    #[arg(long)]
    no_preflight: bool,

    /// Print every event as one JSON line on stdout, and nothing else.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print only warnings and errors.
    #[arg(short, long)]
    quiet: bool,
}

/// Where blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Blocks {
    /// Resident if the model fits into memory, otherwise streamed, with a warning.
    Auto,
    /// In memory.
    Resident,
    /// Read when they are needed.
    Streamed,
}

impl Blocks {
    /// As stages know it.
    fn settings(self) -> BTreeMap<String, String> {
        let value = match self {
            Self::Auto => return BTreeMap::new(),
            Self::Resident => "resident",
            Self::Streamed => "streamed",
        };
        BTreeMap::from([(palinode::BLOCKS.to_owned(), value.to_owned())])
    }
}

/// Runs the pipeline and tells how it went.
pub fn run(args: &Args) -> Result<(), Failure> {
    let how = match (args.json, args.quiet) {
        (true, _) => How::Json,
        (_, true) => How::Quiet,
        _ => How::Person,
    };
    let interrupt = interrupt::watch();
    let load = || args.network.with(how, &interrupt, |network| args.pipeline.ready_for(&args.device, network));
    let (pipeline, store) = load_beside(load, &args.store, &args.wait)?;
    let store = Arc::new(store);
    let options = RunOptions {
        device: if args.device == "auto" { palinode::chosen_device().to_owned() } else { args.device.clone() },
        settings: args.blocks.settings(),
        keep_going: args.keep_going,
        interrupt: Arc::clone(&interrupt),
        selection: args.selection.selection(),
        jobs: args.jobs,
        worker: args.isolate.then(worker).transpose()?,
        ..RunOptions::default()
    };
    if !args.no_preflight {
        check(&pipeline, &store, &options, how)?;
    }
    let report = palinode::run(&pipeline, &store, &options, &watch(how, &pipeline));
    clear();
    let report = report?;
    let shown = if how == How::Person { show(&pipeline, &report, &store) } else { Ok(()) };
    end(&pipeline, &report, interrupt.load(Ordering::Relaxed))?;
    shown
}

/// Looks at the requests of stages that will run, tells all that is found, and ends where something cannot work.
pub fn check(pipeline: &Pipeline, store: &Store, options: &RunOptions, how: How) -> Result<(), Failure> {
    let findings = palinode::preflight(pipeline, store, options)?;
    let style = Style::stderr();
    for finding in &findings {
        if how == How::Json {
            let line = json!({ "event": "finding", "finding": finding });
            print(&format!("{line}\n"))?;
            continue;
        }
        let label = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note if how == How::Quiet => continue,
            Severity::Note => "note",
        };
        let about = finding.request.as_ref().map(|id| format!("request {id}"));
        let place: Vec<String> =
            about.into_iter().chain(Some(finding.at.clone()).filter(|at| !at.is_empty())).collect();
        let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(", ")) };
        complain(&format!("{}: {place}{} ({})\n", style.bold(label), finding.words, finding.kind));
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors == 0 {
        let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
        if pipeline.strict_checks && warnings > 0 {
            let found = format!(
                "nothing was run: {}, and the pipeline says `checks: strict`",
                format::count(warnings, "warning")
            );
            let hint = "mend what they are about, or set `checks: lenient`; --no-preflight does not look";
            return Err(Error::new(ErrorKind::Doubtful, found).hint(hint).into());
        }
        return Ok(());
    }
    let found = format!("nothing was run: {} of the requests cannot work", format::count(errors, "prompt"));
    Err(Error::new(ErrorKind::Unworkable, found)
        .hint("mend or leave out these requests; --no-preflight runs up to them")
        .into())
}

/// What starts a worker: this program.
fn worker() -> Result<WorkerCommand, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Error::internal("cannot find the program to start for each stage").source(error))?;
    let mut command = vec![program.into(), "worker".into(), "--attached".into()];
    command.extend(logging::argument().map(Into::into));
    Ok(WorkerCommand(command))
}

fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| "expected a number of stages, 1 or more".to_owned())
}

/// Prints what the run yielded.
fn show(pipeline: &Pipeline, report: &RunReport, store: &Store) -> Result<(), Failure> {
    let style = Style::stdout();
    let mut text = results::show(pipeline, report, |digest| store.blob_path(digest), &style);
    text.push('\n');
    let log = event_log(&report.dir);
    text.push_str(&style.dim(&format!("events: {}\n", results::from_here(&log).display())));
    let _ = writeln!(text, "{}", style.bold(&summary(report)));
    print(&text)
}

/// "ran 14, cached 3 in 2 min 12 s"
fn summary(report: &RunReport) -> String {
    let took = format::duration(report.seconds);
    let cached = report.count(|outcome| matches!(outcome, Outcome::Cached));
    if report.stages.is_empty() {
        return "nothing to do: the pipeline has no stages".to_owned();
    }
    let not_asked = report.count(|outcome| matches!(outcome, Outcome::NotAsked));
    if cached + not_asked == report.stages.len() {
        return format!("nothing to do: all {} cached ({took})", format::count(cached, "stage"));
    }
    let interrupted = report.count(past::is_stopped);
    let parts = [
        (report.count(past::is_failed), "failed"),
        (interrupted, "stopped"),
        (report.count(|outcome| matches!(outcome, Outcome::Ran)), "ran"),
        (cached, "cached"),
        (report.count(|outcome| matches!(outcome, Outcome::Skipped { .. })), "not reached"),
        (not_asked, "not selected"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} {count}")).collect();
    format!("{} in {took}", parts.join(", "))
}

/// Tells what failed, where, and how to go on.
pub fn end(pipeline: &Pipeline, report: &RunReport, interrupted: bool) -> Result<(), Failure> {
    let style = Style::stderr();
    let skipped = report.count(|outcome| matches!(outcome, Outcome::Skipped { .. }));
    let mut failed = 0;
    for (stage, instance) in report.stages.iter().zip(&pipeline.instances) {
        let Outcome::Failed { kind, message, hint } = &stage.outcome else { continue };
        if *kind == ErrorKind::Interrupted {
            continue;
        }
        failed += 1;
        let needs = report.count(
            |outcome| matches!(outcome, Outcome::Skipped { because: Some(because) } if *because == instance.name),
        );
        let label = match needs {
            0 => "this stage".to_owned(),
            _ => format!("{} not reached because of it", format::count(needs, "stage")),
        };
        let told = Diagnostic::new(&instance.source, instance.place, format!("`{}` failed: {message}", instance.name));
        complain(&format!("\n{}", errors::one(&told.label(label).hint(hint.as_ref().map(words)), &style)));
    }
    let stopped = interrupted && (skipped > 0 || report.count(past::is_stopped) > 0);
    if failed == 0 && !stopped {
        return Ok(());
    }
    let what = if failed == 0 {
        "interrupted: what was finished is kept, and"
    } else {
        "what was finished is kept: once mended,"
    };
    complain(&format!("\n{what} the same command goes on from there:\n  {}\n", again::whole()));
    let elsewhere = report.count(|outcome| matches!(outcome, Outcome::Skipped { because: None }));
    if failed > 0 && elsewhere > 0 && !stopped {
        let others = format::count(elsewhere, "stage");
        complain(&format!("{others} not reached would run without the failed one: --keep-going\n"));
    }
    let kind = report.failure().map(|(_, kind)| kind).filter(|_| !stopped);
    Err(Failure::Told(kind.unwrap_or(ErrorKind::Interrupted)))
}
