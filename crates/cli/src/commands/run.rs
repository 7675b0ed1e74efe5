//! `palinode run`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{
    Cluster, Diagnostic, Ended, Error, ErrorKind, Outcome, Pipeline, RunOptions, RunRecord, RunReport, Runs, Severity,
    Store, event_log,
};
use serde_json::json;

use crate::again;
use crate::command_error::{Failure, words};
use crate::executor::{ExecutorArgs, Where};
use crate::input::{NetworkArgs, PipelineArgs, SelectionArgs, StoreArgs, WaitArgs, load_beside};
use crate::terminal::{How, Style, clear, complain, errors, format, print, watch};
use crate::{detach, executor, interrupt, on_end, past, results};

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

    #[command(flatten)]
    executor: ExecutorArgs,

    /// Start the run and leave: it goes on by itself. `palinode status`, `logs --follow`, `attach` and `cancel` see to it from any terminal.
    #[arg(long, conflicts_with_all = ["json", "dry_run"])]
    detach: bool,

    /// This is the process that goes on.
    #[arg(long, hide = true)]
    detached: bool,

    /// With `--executor slurm`: print the scripts that would be submitted, and submit nothing.
    #[arg(long)]
    dry_run: bool,

    /// Do not look at the requests before the work begins.
    #[arg(long)]
    no_preflight: bool,

    /// Run COMMAND in a shell when the run has ended, however it ended, but for a second Ctrl-C; for example to send a message. It finds PALINODE_RUN,
    /// PALINODE_PIPELINE, PALINODE_ENDED (done, failed or stopped), PALINODE_SECONDS and PALINODE_STORE in its environment. The
    /// variable PALINODE_ON_END sets it for every run; a pipeline file cannot.
    #[arg(long, value_name = "COMMAND", env = "PALINODE_ON_END", hide_env_values = true)]
    on_end: Option<String>,

    /// Print the results also where they are those of an earlier run. Without it, a run that has nothing to do says so in a line.
    #[arg(long, conflicts_with_all = ["json", "quiet"])]
    results: bool,

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
    if args.detach && !args.detached {
        return detach::start(&args.store.store);
    }
    if args.detached {
        // Nothing that becomes of the terminal reaches it.
        let _ = rustix::process::setsid();
    }
    let interrupt = interrupt::watch();
    let executor = args.executor.chosen();
    let cluster = executor::cluster(&executor)?;
    if args.dry_run {
        let Some(cluster) = &cluster else {
            return Err(Error::new(ErrorKind::Usage, "there are scripts with `--executor slurm` alone").into());
        };
        return dry_run(args, cluster);
    }
    let load = || args.network.with(how, &interrupt, |network| args.pipeline.ready_for(&args.device, network));
    let (pipeline, store) = load_beside(load, &args.store, &args.wait)?;
    let store = Arc::new(store);
    let chosen = args.selection.selection().choose(&pipeline)?;
    if let Some(cluster) = &cluster {
        cluster.check(&pipeline, &palinode::catalogue(), |at| chosen.needed.contains(&at))?;
        if pipeline.environment.is_some() && args.device == "auto" {
            let message =
                "equal keys mean equal bits in this pipeline (`numerics: strict`), so its keys hold the device";
            return Err(Error::new(ErrorKind::Usage, message)
                .hint("say which one the cluster's machines have, with --device")
                .into());
        }
    }
    let (worker, shares) = match executor {
        Where::Processes(shares) => (Some(executor::attached()?), shares),
        Where::Threads | Where::Slurm(_) => (None, 1),
    };
    let options = RunOptions {
        device: if args.device == "auto" && cluster.is_none() {
            palinode::chosen_device().to_owned()
        } else {
            args.device.clone()
        },
        settings: args.blocks.settings(),
        keep_going: args.keep_going,
        interrupt: Arc::clone(&interrupt),
        selection: args.selection.selection(),
        jobs: args.jobs,
        worker,
        shares,
        share_devices: if shares > 1 { palinode::devices(&args.device) } else { Vec::new() },
        cluster,
        command: detach::command_line(),
        gate: (!args.no_preflight).then_some(palinode::admit),
        ..RunOptions::default()
    };
    if !args.no_preflight {
        check(&pipeline, &store, &options, how)?;
    }
    let report = palinode::run(&pipeline, &store, &options, &watch(how, &pipeline));
    clear();
    let report = report?;
    let shown = if how == How::Person { show(args, &pipeline, &report, &store) } else { Ok(()) };
    let ended = end(&pipeline, &report, interrupt.load(Ordering::Relaxed));
    if let Some(command) = args.on_end.as_deref().filter(|command| !command.trim().is_empty()) {
        on_end::run(command, &on_end::Told { pipeline: &pipeline.name, store: store.root(), report: &report });
    }
    ended?;
    shown
}

/// Prints the scripts that would be submitted, of all stages without a result.
fn dry_run(args: &Args, cluster: &Cluster) -> Result<(), Failure> {
    let pipeline = args.pipeline.load_for(&args.device)?;
    let chosen = args.selection.selection().choose(&pipeline)?;
    cluster.check(&pipeline, &palinode::catalogue(), |at| chosen.needed.contains(&at))?;
    let store = Store::make(&args.store.store)?;
    let mut text = String::new();
    for (asked, stages) in cluster.asked(&pipeline, |at| chosen.needed.contains(&at)) {
        let _ = writeln!(text, "# {}\n{}", stages.join(", "), cluster.script(&asked, "RUN", &pipeline.base, &store));
    }
    print(&text)
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

fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| "expected a number of stages, 1 or more".to_owned())
}

/// Prints what the run yielded.
fn show(args: &Args, pipeline: &Pipeline, report: &RunReport, store: &Store) -> Result<(), Failure> {
    let style = Style::stdout();
    if !args.results && found_all(report) && as_before(pipeline, report, store) {
        let look = again::on_store("palinode show latest");
        let more = style.dim(&format!("the results are as before: {look}, or --results here\n"));
        return print(&format!("{}\n{more}", style.bold(&summary(report))));
    }
    let mut text = results::show(pipeline, report, |digest| store.blob_path(digest), &style);
    text.push('\n');
    let log = event_log(&report.dir);
    text.push_str(&style.dim(&format!("events: {}\n", results::from_here(&log).display())));
    text.push_str(&style.dim(&cost(pipeline, report)));
    let _ = writeln!(text, "{}", style.bold(&summary(report)));
    print(&text)
}

/// Whether every stage of this run, one or more, was in the store.
fn found_all(report: &RunReport) -> bool {
    let cached = report.count(|outcome| matches!(outcome, Outcome::Cached));
    cached > 0 && cached + report.count(|outcome| matches!(outcome, Outcome::NotAsked)) == report.stages.len()
}

/// Earlier runs that are looked at for the last one of the same pipeline.
const EARLIER: usize = 20;

/// Whether the last run of this pipeline before this one ended with the same results.
fn as_before(pipeline: &Pipeline, report: &RunReport, store: &Store) -> bool {
    let runs = Runs::of(store.root());
    let Some(this) = runs.record(&report.run) else { return false };
    let names = runs.names();
    let earlier = names.iter().filter(|name| **name < report.run).take(EARLIER);
    let mut earlier = earlier.filter_map(|name| runs.record(name));
    let Some(last) = earlier.find(|run| run.pipeline == pipeline.name) else { return false };
    let results = |run: &RunRecord| -> Vec<_> {
        run.stages.iter().map(|stage| (stage.instance.clone(), stage.content)).collect()
    };
    last.ended == Ended::Done && results(&last) == results(&this)
}

/// The cost of a shorter run is not worth a line.
const WORTH_SAYING: f64 = 10.0;

/// "time: targets 1 min 10 s, moments 40 s; peak memory 1.2 GB; CPUs 3.1 Wh", of a run that took a while.
fn cost(pipeline: &Pipeline, report: &RunReport) -> String {
    if report.seconds < WORTH_SAYING {
        return String::new();
    }
    let mut stages: Vec<(&str, f64)> = Vec::new();
    for (stage, instance) in report.stages.iter().zip(&pipeline.instances) {
        if !matches!(stage.outcome, Outcome::Ran | Outcome::Failed { .. }) {
            continue;
        }
        match stages.iter_mut().find(|(name, _)| *name == instance.stage) {
            Some((_, seconds)) => *seconds += stage.seconds,
            None => stages.push((&instance.stage, stage.seconds)),
        }
    }
    stages.sort_by(|a, b| b.1.total_cmp(&a.1));
    // What took less than a hundredth of it is not what it took.
    stages.retain(|(_, seconds)| *seconds >= report.seconds / 100.0);
    let most = stages.iter().take(6).map(|(name, seconds)| format!("{name} {}", format::duration(*seconds)));
    let parts = [
        Some(most.collect::<Vec<_>>().join(", ")).filter(|most| !most.is_empty()).map(|most| format!("time: {most}")),
        report.cost.peak_memory.map(|peak| format!("peak memory {}", format::size(peak))),
        report.cost.joules.map(|joules| format!("CPUs {:.2} Wh", joules / 3600.0)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { parts.join("; ") + "\n" }
}

/// "ran 14, cached 3 in 2 min 12 s"
fn summary(report: &RunReport) -> String {
    let took = format::duration(report.seconds);
    let cached = report.count(|outcome| matches!(outcome, Outcome::Cached));
    if report.stages.is_empty() {
        return "nothing to do: the pipeline has no stages".to_owned();
    }
    let not_asked = report.count(|outcome| matches!(outcome, Outcome::NotAsked));
    if found_all(report) {
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
