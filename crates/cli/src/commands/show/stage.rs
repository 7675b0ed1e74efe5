//! The result of a stage: what it is, what it was made from, where its files lie.

use std::collections::BTreeMap;

use palinode::shown::Shown;
use palinode::{Error, ErrorKind, Manifest, RunRecord, Runs, StageRecord, scored, utc};
use serde_json::{Value, json};

use crate::again;
use crate::command_error::Failure;
use crate::past;
use crate::results::{self, Yield, plain};
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// Shows the results of instances of a stage.
pub fn show(runs: &Runs, run: &RunRecord, instances: &[String], json: bool) -> Result<(), Failure> {
    let found = |instance: &String| {
        let stage = run.stage(instance)?;
        Some((stage, runs.manifest(&stage.key?)?))
    };
    let found: Vec<(&StageRecord, Manifest)> = instances.iter().filter_map(found).collect();
    if found.is_empty() {
        let message = format!("`{}` has no result in run {}", instances.join("`, `"), run.run);
        let [show, logs] = ["show", "logs"].map(|command| again::on_store(&format!("palinode {command} {}", run.run)));
        let hint = format!("`{show}` tells how it ended, `{logs}` why");
        return Err(Error::new(ErrorKind::Usage, message).hint(hint).into());
    }
    if json {
        let all: BTreeMap<_, _> = found.iter().map(|(stage, manifest)| (&stage.instance, manifest)).collect();
        return print_json(&json!({ "run": run.run, "results": all }));
    }
    let style = Style::stdout();
    match found.as_slice() {
        [(stage, manifest)] => print(&one(runs, run, stage, manifest, &style)),
        _ => print(&all(runs, run, &found, &style)),
    }
}

/// The cells of a stage beside each other.
fn all(runs: &Runs, run: &RunRecord, found: &[(&StageRecord, Manifest)], style: &Style) -> String {
    let columns =
        [("CELL", Column::Text), ("MADE", Column::Name), ("TOOK", Column::Number), ("CONTENTS", Column::Name)];
    let rows = found.iter().map(|(stage, manifest)| {
        vec![
            Field::new(broken(&stage.instance, style), Look::Bold),
            past::ago(manifest.finished_ms).into(),
            format::duration(manifest.seconds).into(),
            manifest.content.short().into(),
        ]
    });
    let members = found.iter().map(|(stage, manifest)| yielded(runs, stage, manifest));
    let members: Vec<Yield<'_>> = members.collect();
    let (first, _) = &found[0];
    let title = format!("{}, {} of run {}\n", style.bold(&first.stage), format::count(found.len(), "cell"), run.run);
    let one = again::on_store(&format!("palinode show {}", again::quoted(&format!("{}:{}", run.run, first.instance))));
    let more = style.dim(&format!("\nall about one: {one}\n"));
    let scores = results::stage(
        "scores",
        &past::axes(members.iter().map(|member| member.cell)),
        &run.replicates,
        &members,
        style,
    );
    format!("{title}\n{}{scores}{more}", table(style, &columns, rows.collect()))
}

/// An instance's name, on a terminal in lines that are cut behind values of axes.
fn broken(instance: &str, style: &Style) -> String {
    // What stands beside it takes about so much.
    let room = style.width.saturating_sub(36).max(24);
    let mut lines = vec![String::new()];
    for part in instance.split_inclusive(',') {
        let last = lines.last_mut().filter(|last| last.is_empty() || last.len() + part.len() <= room);
        match last {
            Some(last) => last.push_str(part),
            None => lines.push(part.to_owned()),
        }
    }
    if style.terminal { lines.join("\n") } else { instance.to_owned() }
}

fn yielded<'a>(runs: &Runs, stage: &'a StageRecord, manifest: &'a Manifest) -> Yield<'a> {
    let scored = scored(&manifest.output, |digest| Some(runs.blob_path(digest)));
    let traced = results::traced::of(&manifest.output.meta);
    Yield { instance: &stage.instance, cell: &stage.cell, shown: Shown::of(&manifest.output.meta), traced, scored }
}

fn one(runs: &Runs, run: &RunRecord, stage: &StageRecord, manifest: &Manifest, style: &Style) -> String {
    let instance = stage.instance.as_str();
    let elsewhere = if manifest.run == run.run && manifest.instance == instance {
        String::new()
    } else {
        format!(", for {} of {} in run {}", manifest.instance, manifest.pipeline, manifest.run)
    };
    let mut text = format!(
        "{} ({}), `{}` of run {}\n{}",
        style.bold(instance),
        manifest.fingerprint.stage,
        manifest.output.kind,
        run.run,
        style.wrap(
            &format!(
                "made {} UTC ({}) in {} with device {}{elsewhere}",
                utc(manifest.finished_ms / 1000),
                past::ago(manifest.finished_ms),
                format::duration(manifest.seconds),
                manifest.device,
            ),
            2
        ),
    );
    let plan = runs.resolved(&run.run);
    let names = plan.as_ref().and_then(|plan| plan.stage(instance)).map(|stage| &stage.inputs);
    let mut facts: Vec<(String, String)> = Vec::new();
    for (port, digest) in &manifest.fingerprint.inputs {
        let from = names.and_then(|names| names.get(port)).cloned().unwrap_or_default();
        facts.push((format!("input {port}"), format!("{from} ({})", digest.short()).trim_start().to_owned()));
    }
    for (name, digest) in &manifest.fingerprint.files {
        facts.push((format!("file {name}"), digest.short()));
    }
    let params = manifest.fingerprint.params.iter().chain(&manifest.unkeyed);
    // What was left out and has no default says nothing.
    let params = params.filter(|(_, value)| !value.is_null());
    facts.extend(params.map(|(name, value)| (name.clone(), plain(value))));
    facts.push(("key".to_owned(), manifest.key.to_string()));
    facts.push(("contents".to_owned(), manifest.content.to_string()));
    text.push_str(&format!("\n{}\n{}", style.bold("made from"), pairs(&facts, style)));
    let about = summary(&manifest.output.meta);
    if !about.is_empty() {
        text.push_str(&format!("\n{}\n{}", style.bold("what it says of itself"), pairs(&about, style)));
    }
    text.push_str(&files(runs, manifest, style));
    let axes = past::axes(std::iter::once(&stage.cell));
    text + &results::stage("scores", &axes, &run.replicates, &[yielded(runs, stage, manifest)], style)
}

/// Small facts of a result by dotted name; lists of many things as their number.
fn summary(meta: &Value) -> Vec<(String, String)> {
    const LONGEST: usize = 120;
    const SHOWN_ELSEWHERE: [&str; 5] = ["metrics", "columns", "samples", "series", "trace"];
    let mut facts = Vec::new();
    let mut todo: Vec<(String, &Value)> = vec![(String::new(), meta)];
    while let Some((name, value)) = todo.pop() {
        match value {
            Value::Object(map) => {
                let named = |key: &String| if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let shown = map.iter().filter(|(key, _)| !(name.is_empty() && SHOWN_ELSEWHERE.contains(&key.as_str())));
                todo.extend(shown.map(|(key, value)| (named(key), value)).rev());
            }
            Value::Null => {}
            Value::Array(items) if value.to_string().len() > LONGEST => {
                facts.push((name, format::count(items.len(), "item")));
            }
            value => facts.push((name, plain(value))),
        }
    }
    facts
}

fn files(runs: &Runs, manifest: &Manifest, style: &Style) -> String {
    let mut rows: Vec<Vec<Field>> = Vec::new();
    for (name, file) in &manifest.output.files {
        let blob = runs.blob_path(&file.digest);
        let place = if blob.exists() { results::from_here(&blob).display().to_string() } else { "outside".to_owned() };
        rows.push(vec![Field::new(name.clone(), Look::Bold), format::size(file.size).into(), place.into()]);
    }
    for published in &manifest.output.published {
        let name = published.path.display().to_string();
        rows.push(vec![Field::new(name, Look::Bold), format::size(published.file.size).into(), "written".into()]);
    }
    if rows.is_empty() {
        return String::new();
    }
    let columns = [("FILE", Column::Text), ("SIZE", Column::Number), ("WHERE", Column::Text)];
    format!("\n{}", table(style, &columns, rows))
}

/// Names and values below each other, values wrapped beside their names.
pub fn pairs(facts: &[(String, String)], style: &Style) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(28);
    let one = |(name, value): &(String, String)| {
        let indent = width + 4;
        let wrapped = style.wrap(value, indent);
        let name = style.dim(&format!("{name:width$}"));
        format!("  {name}  {}", wrapped.get(indent..).unwrap_or("\n"))
    };
    facts.iter().map(one).collect()
}
