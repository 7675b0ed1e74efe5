//! `palinode status`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::{
    Count, Ended, Holder, Outcome, Plan, Queue, RunRecord, Runs, StageRecord, StageState, Status, now_ms, plan,
};
use serde_json::json;

use crate::again;
use crate::command_error::Failure;
use crate::input::{PipelineArgs, StoreArgs};
use crate::past;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Reading, Style, format, print, print_json};

/// Show what is running, how the last run ended, and what is left to do
///
/// Works from another terminal while a run is in progress: shows the stages that are running, since when, and their
/// progress. With a pipeline, shows its last run and how many of its results are in the store.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode status
  palinode status pipeline.yaml
  watch -n 5 palinode status")]
pub struct Args {
    /// A pipeline file.
    #[arg(value_name = "PIPELINE")]
    path: Option<PathBuf>,

    /// Set a value of the file for this command.
    #[arg(long, value_name = "PATH=VALUE", requires = "path")]
    set: Vec<String>,

    #[command(flatten)]
    store: StoreArgs,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Prints how things stand.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs()?;
    past::tell_unread(&runs);
    let pipeline = match &args.path {
        Some(path) => Some(PipelineArgs { path: path.clone(), set: args.set.clone() }.load()?),
        None => None,
    };
    let listed = runs.list();
    let running = listed.iter().find(|run| run.ended == Ended::Not);
    let of_this = |run: &&RunRecord| pipeline.as_ref().is_none_or(|pipeline| pipeline.name == run.pipeline);
    let last = listed.iter().filter(|run| run.ended != Ended::Not).find(of_this);
    let counts = running.map(|run| runs.counts(&run.run)).unwrap_or_default();
    let runs_now = |name: &str| running.is_some_and(|run| run.pipeline == name);
    let left = match &pipeline {
        // What is running is told by its own progress.
        Some(pipeline) if runs.store_exists() && !runs_now(&pipeline.name) => {
            Some(plan(pipeline, &args.store.open_or_look()?, &Reading)?)
        }
        _ => None,
    };
    if args.json {
        return print_json(&json!({
            "holder": runs.holder(),
            "running": running.map(past::in_words),
            "counts": counts,
            "last": last.map(past::in_words),
            "plan": left.as_ref().map(Left::of).map(|left| left.json()),
        }));
    }
    let style = Style::stdout();
    let mut text = match (runs.holder(), running) {
        (Some(holder), Some(run)) => going_on(&runs, run, holder, &counts, &style),
        (Some(holder), None) => format!("the store is in use by {}\n", who(holder)),
        (None, _) => "nothing is running\n".to_owned(),
    };
    text.push_str(&match last {
        Some(run) => format!("\n{}", ended(run, &runs, &style)),
        None if running.is_some() => String::new(),
        None => format!("no earlier run in {}\n", runs.store().display()),
    });
    if let (Some(pipeline), Some(path)) = (&pipeline, &args.path)
        && !runs_now(&pipeline.name)
    {
        let says = match &left {
            Some(left) => Left::of(left).text(),
            None => format!("{} to run, nothing is cached", pipeline.instances.len()),
        };
        text.push_str(&format!("\n{}: {says}\n", style.bold(&pipeline.name)));
        let plan = format!("palinode plan {}", again::quoted(&path.display().to_string()));
        text.push_str(&style.dim(&format!("in full: {}\n", again::on_pipeline(&plan))));
    }
    print(&text)
}

/// What a run of a pipeline would find and do.
struct Left {
    cached: usize,
    run: usize,
    depend: usize,
}

impl Left {
    fn of(plan: &Plan) -> Self {
        let count = |like: fn(&Status) -> bool| plan.entries.iter().filter(|entry| like(&entry.status)).count();
        Self {
            cached: count(|status| matches!(status, Status::Cached { .. })),
            run: count(|status| matches!(status, Status::WillRun { .. })),
            depend: count(|status| matches!(status, Status::DependsOn { .. } | Status::SameAs { .. })),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "cached": self.cached, "will_run": self.run, "depend": self.depend })
    }

    fn text(&self) -> String {
        if self.run + self.depend == 0 {
            return format!("all {} cached, nothing to do", format::count(self.cached, "result"));
        }
        let after = if self.depend > 0 { format!(", {} after them", self.depend) } else { String::new() };
        format!("{} cached, {} to run{after}", self.cached, self.run)
    }
}

/// "process 4711 on thishost"
fn who(holder: &Holder) -> String {
    format!("process {} on {}", holder.pid, holder.host)
}

/// A run that goes on: how far it is, and a line for each stage at work.
fn going_on(runs: &Runs, run: &RunRecord, holder: &Holder, counts: &[Count], style: &Style) -> String {
    let done = run.stages.iter().filter(|stage| past::outcome(stage).is_some()).count();
    let cached = past::count(run, |outcome| *outcome == Outcome::Cached);
    let cached = if cached > 0 { format!(" ({cached} cached)") } else { String::new() };
    let mut text = format!(
        "{} {}: {done} of {} done{cached}\n{}",
        style.bold(&run.pipeline),
        past::ending_drawn(run, style),
        format::count(run.stages.len(), "stage"),
        style.dim(&format!("run {}, begun {}, {}\n", run.run, past::ago(run.started_ms), who(holder))),
    );
    let columns = [("AT WORK", Column::Name), ("FOR", Column::Number), ("HOW FAR", Column::Text)];
    let at_work = |stage: &StageRecord| match stage.state {
        StageState::Working { since_ms } => Some(row(stage, since_ms, counts)),
        _ => None,
    };
    let rows: Vec<Vec<Field>> = run.stages.iter().filter_map(at_work).collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{}", table(style, &columns, rows)));
    }
    text + &queue(runs, run, style) + &failures(run, style)
}

/// Jobs in a cluster, as the run wrote them down last.
fn queue(runs: &Runs, run: &RunRecord, style: &Style) -> String {
    let Some(queue) = Queue::of(&runs.dir(&run.run)) else { return String::new() };
    let Queue { at_ms, waiting, working } = queue;
    let known = if run.ended == Ended::Not { String::new() } else { format!(", as of {}", past::ago(at_ms)) };
    style.dim(&format!("jobs in the cluster: {working} at work, {waiting} waiting{known}\n"))
}

fn row(stage: &StageRecord, since_ms: u64, counts: &[Count]) -> Vec<Field> {
    let since = now_ms().saturating_sub(since_ms) as f64 / 1000.0;
    let own = counts.iter().filter(|count| count.instance == stage.instance);
    let own: Vec<String> = own.map(count).collect();
    vec![Field::new(stage.instance.clone(), Look::Bold), format::duration(since).into(), own.join("; ").into()]
}

/// What failed, and why.
fn failures(run: &RunRecord, style: &Style) -> String {
    let failed = |stage: &StageRecord| match past::outcome(stage).filter(|outcome| past::is_failed(outcome)) {
        Some(Outcome::Failed { message, .. }) => Some(format!("{} {}: {message}\n", style.red("✗"), stage.instance)),
        _ => None,
    };
    run.stages.iter().filter_map(failed).collect()
}

/// "1200/3000 documents (40%), 12 min left, loss 0.1"
fn count(count: &Count) -> String {
    let Count { what, done, total, note, started_ms, at_ms, .. } = count;
    let rate = *done as f64 / (at_ms.saturating_sub(*started_ms) as f64 / 1000.0).max(1e-3);
    let since = now_ms().saturating_sub(*at_ms) as f64 / 1000.0;
    let far = match total {
        Some(total) if *total > 0 => format!("{done}/{total} {what} ({}%)", done * 100 / total),
        _ => format!("{done} {what}"),
    };
    let left = total.filter(|total| *done > 0 && total > done).map(|total| (total - done) as f64 / rate - since);
    let left = left.map(|left| format::left(left.max(0.0)));
    let parts = [Some(far), left, Some(note.clone()).filter(|note| !note.is_empty())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A run that is over.
fn ended(run: &RunRecord, runs: &Runs, style: &Style) -> String {
    let mut text = format!(
        "last run of {}, begun {}: {} {}: {}\n",
        style.bold(&run.pipeline),
        past::ago(run.started_ms),
        past::ending_drawn(run, style),
        past::took(run),
        past::counts(run),
    );
    let best = past::headline(run);
    if !best.is_empty() {
        text.push_str(&format!("  best: {best}\n"));
    }
    text.push_str(&textwrap::indent(&failures(run, style), "  "));
    if run.ended == Ended::Lost {
        let at = run.stages.iter().filter(|stage| stage.state == StageState::Lost);
        let at: Vec<&str> = at.map(|stage| stage.instance.as_str()).collect();
        let at = if at.is_empty() { String::new() } else { format!(" at {}", at.join(", ")) };
        text.push_str(&format!("  its process ended{at}; the next run goes on from there\n"));
        text.push_str(&textwrap::indent(&queue(runs, run, style), "  "));
        for found in runs.counts(&run.run) {
            text.push_str(&format!("    {}\n", count(&found)));
        }
    }
    text + &style.dim(&format!("  in full: {}\n", again::on_store(&format!("palinode show {}", run.run))))
}
