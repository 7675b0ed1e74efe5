//! A run: what it did, with what, and what came out.

use std::collections::HashMap;

use palinode::{Outcome, ResolvedPipeline, RunRecord, Runs, StageState, utc};
use serde_json::json;

use crate::again;
use crate::command_error::{Failure, words};
use crate::past::{self, Results, folded};
use crate::results::plain;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// Shows a run.
pub fn show(runs: &Runs, run: &RunRecord, json: bool) -> Result<(), Failure> {
    let pipeline = runs.resolved(&run.run);
    if json {
        let (warnings, attempts) = (runs.warnings(&run.run), runs.attempts(&run.run));
        let run = past::in_words(run);
        return print_json(&json!({ "run": run, "pipeline": pipeline, "warnings": warnings, "attempts": attempts }));
    }
    let style = Style::stdout();
    let mut text = format!(
        "run {} of {} ({})\n{} {}: {}; begun {} UTC ({})\n\n",
        style.bold(&run.run),
        style.bold(&run.pipeline),
        run.file,
        past::ending_drawn(run, &style),
        past::took(run),
        past::counts(run),
        utc(run.started_ms / 1000),
        past::ago(run.started_ms),
    );
    text.push_str(&stages(run, &style));
    for warning in runs.warnings(&run.run) {
        text.push_str(&format!("{} {warning}\n", style.yellow("warning:")));
    }
    for stage in &run.stages {
        if let Some(Outcome::Failed { message, hint, .. }) =
            past::outcome(stage).filter(|outcome| past::is_failed(outcome))
        {
            text.push_str(&format!("\n{} {}: {message}\n", style.red("failed:"), stage.instance));
            text.push_str(&hint.as_ref().map(|hint| format!("  hint: {}\n", words(hint))).unwrap_or_default());
        }
    }
    if let Some(pipeline) = &pipeline {
        text.push_str(&format!("\n{}\n{}", style.bold("parameters"), parameters(run, pipeline, &style)));
    }
    text.push_str(&Results::of(runs).tables(run, &style));
    let logs = again::on_store(&format!("palinode logs {}", run.run));
    let one = again::on_store(&format!("palinode show {}:STAGE", run.run));
    text.push_str(&style.dim(&format!("\nlogs: {logs}   one result: {one}\n")));
    print(&text)
}

fn stages(run: &RunRecord, style: &Style) -> String {
    let columns = [("STAGE", Column::Text), ("USES", Column::Name), ("ENDED", Column::Name), ("TOOK", Column::Number)];
    let rows = run.stages.iter().map(|stage| {
        let (word, look) = match &stage.state {
            StageState::Waiting | StageState::Finished(Outcome::Skipped { .. }) => ("not reached", Look::Dim),
            StageState::Finished(Outcome::NotAsked) => ("not selected", Look::Dim),
            StageState::Working { .. } => ("at work", Look::Yellow),
            StageState::Lost => ("lost", Look::Yellow),
            StageState::Finished(Outcome::Ran) => ("ran", Look::Green),
            StageState::Finished(Outcome::Cached) => ("cached", Look::Dim),
            StageState::Finished(outcome) if past::is_stopped(outcome) => ("stopped", Look::Yellow),
            StageState::Finished(Outcome::Failed { .. }) => ("failed", Look::Red),
        };
        let took = if word == "ran" { format::duration(stage.seconds) } else { String::new() };
        vec![
            Field::new(stage.instance.clone(), Look::Bold),
            stage.uses.clone().into(),
            Field::new(word, look),
            took.into(),
        ]
    });
    table(style, &columns, rows.collect())
}

/// Parameters by stage; those in which cells of the matrix differ with all values.
fn parameters(run: &RunRecord, pipeline: &ResolvedPipeline, style: &Style) -> String {
    let columns = [("STAGE", Column::Name), ("PARAMETER", Column::Name), ("VALUE", Column::Text)];
    let mut members: HashMap<&str, Vec<_>> = HashMap::new();
    for stage in &pipeline.stages {
        members.entry(stage.instance.split('[').next().unwrap_or_default()).or_default().push(&stage.params);
    }
    let mut rows = Vec::new();
    for stage in &run.stages {
        let name = stage.stage.as_str();
        // Each stage once, where its first instance stands.
        let Some(members) = members.remove(name) else { continue };
        let set = folded(members.into_iter()).into_iter();
        // What was left out and has no default says nothing.
        let set = set.filter(|(_, values)| values.iter().any(|value| !value.is_null()));
        for (at, (parameter, values)) in set.enumerate() {
            let values: Vec<String> = values.iter().map(|value| plain(value)).collect();
            let stage = if at == 0 { Field::new(name, Look::Bold) } else { "".into() };
            rows.push(vec![stage, parameter.into(), values.join(" | ").into()]);
        }
    }
    table(style, &columns, rows)
}
