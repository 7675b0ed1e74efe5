//! A run: what it did, with what, and what came out.

use palinode_engine::{History, Outcome, PastRun, PastStage, ResolvedPipeline, utc};
use serde_json::json;

use crate::failure::Failure;
use crate::past::{self, Ending, Results, folded};
use crate::results::plain;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// Shows a run.
pub fn show(history: &History, run: &PastRun, json: bool) -> Result<(), Failure> {
    let pipeline = history.pipeline(&run.id);
    let mut results = Results::of(history);
    if json {
        let mut metrics = |stage: &PastStage| results.meta(stage).map(|meta| meta["metrics"].clone());
        let stages: Vec<_> = run.stages.iter().map(|stage| json!({ "stage": stage, "metrics": metrics(stage) })).collect();
        return print_json(&json!({ "run": run.id, "pipeline": pipeline, "seconds": run.seconds, "stages": stages }));
    }
    let style = Style::stdout();
    let holder = history.holder().and_then(|holder| holder.run);
    let ending = Ending::of(run, holder.as_deref());
    let mut text = format!(
        "run {} of {}\n{} after {}: {}; begun {} UTC ({})\n\n",
        style.bold(&run.id),
        style.bold(&run.pipeline),
        ending.drawn(&style),
        past::took(run),
        past::counts(run),
        utc(run.started_ms / 1000),
        past::ago(run.started_ms),
    );
    text.push_str(&stages(run, pipeline.as_ref(), &style));
    for warning in &run.warnings {
        text.push_str(&format!("{} {warning}\n", style.yellow("warning:")));
    }
    for stage in &run.stages {
        if let Some(Outcome::Failed { message, hint, .. }) = stage.outcome() {
            text.push_str(&format!("\n{} {}: {message}\n", style.red("failed:"), stage.instance));
            text.push_str(&hint.as_ref().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default());
        }
    }
    if let Some(pipeline) = &pipeline {
        text.push_str(&format!("\n{}\n{}", style.bold("parameters"), parameters(run, pipeline, &style)));
    }
    text.push_str(&results.tables(run, &style));
    text.push_str(&style.dim(&format!(
        "\nlogs: palinode logs {}   one result: palinode show {}:STAGE\n",
        run.id, run.id
    )));
    print(&text)
}

fn stages(run: &PastRun, pipeline: Option<&ResolvedPipeline>, style: &Style) -> String {
    let columns =
        [("STAGE", Column::Text), ("USES", Column::Name), ("ENDED", Column::Name), ("TOOK", Column::Number)];
    let rows = run.stages.iter().map(|stage| {
        let (word, look) = match stage.outcome() {
            None => ("begun", Look::Yellow),
            Some(Outcome::Ran) => ("ran", Look::Green),
            Some(Outcome::Cached) => ("cached", Look::Dim),
            Some(Outcome::Failed { .. }) => ("failed", Look::Red),
            Some(Outcome::Skipped { .. }) => ("not reached", Look::Yellow),
        };
        let uses = pipeline.and_then(|pipeline| Some(pipeline.stage(&stage.instance)?.uses.clone()));
        let took = if stage.outcome() == Some(&Outcome::Ran) { format::duration(stage.seconds) } else { String::new() };
        vec![
            Field::new(stage.instance.clone(), Look::Bold),
            uses.or_else(|| stage.uses.clone()).unwrap_or_default().into(),
            Field::new(word, look),
            took.into(),
        ]
    });
    table(style, &columns, rows.collect())
}

/// Parameters by stage; those in which cells of the matrix differ with all values.
fn parameters(run: &PastRun, pipeline: &ResolvedPipeline, style: &Style) -> String {
    let columns = [("STAGE", Column::Name), ("PARAMETER", Column::Name), ("VALUE", Column::Text)];
    let mut names: Vec<&str> = Vec::new();
    for stage in &run.stages {
        if !names.contains(&stage.stage()) {
            names.push(stage.stage());
        }
    }
    let mut rows = Vec::new();
    for name in names {
        let members = pipeline.stages.iter().filter(|stage| stage.instance.split('[').next() == Some(name));
        let set = folded(members.map(|stage| &stage.params)).into_iter();
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
