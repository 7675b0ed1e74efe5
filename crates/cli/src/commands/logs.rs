//! `palinode logs`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args as ClapArgs;
use palinode::{Attempt, Ended, Error, ErrorKind, Outcome, RunRecord, Runs, StageState, did_you_mean, stage_log};

use crate::again;
use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::terminal::format::duration;
use crate::terminal::{Style, complain, print};

/// Show the logs of the stages of a run
///
/// A stage writes a log when it runs: why it ran, its counts, its warnings, and how it ended. For a cached stage, shows the
/// log of the run that computed the result. Times are in UTC.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode logs                           every stage that ran in the latest run
  palinode logs latest 'solve[objective=rome]'
  palinode logs latest moments --follow     from another terminal, while it runs")]
pub struct Args {
    /// A run: its ID, any unambiguous prefix or suffix of it, or `latest`.
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,

    /// A stage, or one cell of it.
    #[arg(value_name = "STAGE")]
    stage: Option<String>,

    /// Follow the log until the run ends.
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// Time between looks at a log that grows.
const LOOK: Duration = Duration::from_millis(300);

/// Prints logs.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs()?;
    let run = runs.open(&args.run)?;
    let style = Style::stdout();
    if args.follow {
        return follow(&args.store, &run, args.stage.as_deref(), &style);
    }
    let chosen = choose(&run, args.stage.as_deref())?;
    let mut text = String::new();
    let mut cached = 0;
    for (instance, state) in &chosen {
        let is_cached = *state == StageState::Finished(Outcome::Cached);
        let maker = if is_cached && args.stage.is_some() { maker(&runs, &run, instance) } else { None };
        let (log, note) = match &maker {
            Some((id, made_for)) => (stage_log(&runs.dir(id), made_for), format!(" (cached; made by run {id})")),
            None => (stage_log(&runs.dir(&run.run), instance), String::new()),
        };
        match fs::read_to_string(&log) {
            Ok(log) => {
                let tries = style.dim(&attempts(&runs, &run, instance));
                text.push_str(&format!("{}{}\n{log}{tries}\n", style.bold(instance), style.dim(&note)));
            }
            Err(_) if is_cached => cached += 1,
            Err(_) if args.stage.is_none() => {}
            Err(_) => text.push_str(&format!("{} was not reached\n", style.bold(instance))),
        }
    }
    if cached > 0 && args.stage.is_none() {
        let one = again::on_store(&format!("palinode logs {} STAGE", run.run));
        text.push_str(&style.dim(&format!("{cached} cached; for the log of one: {one}\n")));
    } else if cached > 0 {
        text.push_str("its result was there, and the run that made it left no log\n");
    }
    if text.is_empty() {
        text.push_str("no stage worked in this run\n");
    }
    print(&text)
}

/// The instances that are meant, with how far they got.
fn choose(run: &RunRecord, stage: Option<&str>) -> Result<Vec<(String, StageState)>, Failure> {
    let all = run.stages.iter();
    let named = |name: &str| {
        let exact: Vec<_> = all.clone().filter(|stage| stage.instance == name).collect();
        if exact.is_empty() { all.clone().filter(|stage| stage.stage == name).collect() } else { exact }
    };
    let chosen = stage.map_or_else(|| all.clone().collect(), named);
    if let (Some(stage), true) = (stage, chosen.is_empty()) {
        let names = run.stages.iter().flat_map(|known| [known.stage.as_str(), &known.instance]);
        let hint = did_you_mean(stage, names)
            .unwrap_or_else(|| format!("see `{}`", again::on_store(&format!("palinode show {}", run.run))));
        let message = format!("the run {} has no stage `{stage}`", run.run);
        return Err(Error::new(ErrorKind::Usage, message).hint(hint).into());
    }
    Ok(chosen.iter().map(|stage| (stage.instance.clone(), stage.state.clone())).collect())
}

/// The run that made the result of a cached stage, and the instance that it was made for.
fn maker(runs: &Runs, run: &RunRecord, instance: &str) -> Option<(String, String)> {
    let manifest = runs.manifest(&run.stage(instance)?.key?)?;
    Some((manifest.run, manifest.instance))
}

/// Where each attempt worked and how it ended, where there were several or one was left at work by a run that is gone.
fn attempts(runs: &Runs, run: &RunRecord, instance: &str) -> String {
    let mut attempts = runs.attempts(&run.run);
    attempts.retain(|attempt| attempt.instance == instance);
    let left = run.ended == Ended::Lost && attempts.iter().any(|attempt| attempt.end.is_none());
    if attempts.len() < 2 && !left {
        return String::new();
    }
    let line = |attempt: &Attempt| {
        let Attempt { number, executor, pid, host, begun_ms, end, .. } = attempt;
        let end = end.as_ref().map_or_else(
            || if left { "not ended: its run was lost".to_owned() } else { "at work".to_owned() },
            |end| {
                let how = match &end.failure {
                    None => "done",
                    Some(failure) if failure.lost => "lost",
                    Some(_) => "failed",
                };
                format!("{how} after {}", duration(end.at_ms.saturating_sub(*begun_ms) as f64 / 1000.0))
            },
        );
        let place = if executor == "thread" { "a thread of process" } else { "process" };
        format!("attempt {number}, in {place} {pid} on {host}: {end}\n")
    };
    attempts.iter().map(line).collect()
}

/// Prints what is added to logs until the run ends.
pub fn follow(store: &StoreArgs, run: &RunRecord, stage: Option<&str>, style: &Style) -> Result<(), Failure> {
    let dir = store.runs()?.dir(&run.run);
    let mut shown: BTreeMap<PathBuf, usize> = BTreeMap::new();
    if Style::stderr().terminal {
        complain(&Style::stderr().dim(&format!("following run {}; Ctrl-C to leave, it goes on\n", run.run)));
    }
    loop {
        // Asked before the last look: what is written until then is still shown.
        let over = store.runs()?.open(&run.run)?.ended != Ended::Not;
        for (name, path) in logs(&dir) {
            let wanted = stage.is_none_or(|stage| name == stage || name.split('[').next() == Some(stage));
            let Ok(text) = fs::read(&path) else { continue };
            let from = shown.get(&path).copied().unwrap_or(0).min(text.len());
            // A line is shown once it is whole.
            let until = text.iter().rposition(|byte| *byte == b'\n').map_or(from, |at| at + 1);
            if wanted && until > from {
                let new = String::from_utf8_lossy(&text[from..until]).into_owned();
                let name = style.bold(&name);
                let lines: Vec<String> = new.lines().map(|line| format!("{name}  {line}\n")).collect();
                print(&lines.concat())?;
                shown.insert(path, until);
            }
        }
        if over {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

/// The logs in the folder of a run.
fn logs(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir.join("stages")).into_iter().flatten().flatten();
    let mut logs: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_suffix(".log")?.to_owned(), entry.path()))
        })
        .collect();
    logs.sort();
    logs
}
