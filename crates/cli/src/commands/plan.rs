//! `palinode plan`

use clap::Args as ClapArgs;
use palinode::{Checked, ErrorKind, Estimate, Instance, Pipeline, PlanEntry, Status, estimate, plan};
use serde_json::{Value, json};

use crate::again;
use crate::command_error::{Failure, in_our_words};
use crate::input::{PipelineArgs, StoreArgs, UntilArgs, load_to_look};
use crate::results::{Group, by_stage};
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Reading, Style, format, print, print_json};

/// Show what a run would do, and why
///
/// Shows for each stage whether it is cached, will run, or depends on the result of another stage, and what changed since
/// the nearest earlier result. Cells of the matrix with the same state share a line. Runs nothing, and works while another process has
/// the store open.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode plan pipeline.yaml
  palinode plan pipeline.yaml --set stages.solve.with.lambda=15000
  palinode plan pipeline.yaml --until targets                  targets and its inputs
  palinode plan pipeline.yaml --each | grep 'will run'
  palinode plan pipeline.yaml --json | jq '.stages[] | select(.status == \"will_run\")'")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    until: UntilArgs,

    /// Plan a run on this device: auto, cpu, cuda or cuda:N. It matters only under `numerics: strict`.
    #[arg(long, default_value = "auto")]
    device: String,

    /// One line for each cell of the matrix.
    #[arg(long)]
    each: bool,

    /// Print one JSON document.
    #[arg(long, conflicts_with = "each")]
    json: bool,
}

/// Prints what a run would download first. The keys of stages cover the contents of these files, so there is no plan yet.
fn downloads(checked: &Checked, json: bool) -> Result<(), Failure> {
    let wanted = checked.downloads();
    let references = || wanted.iter().filter_map(|missing| Some(missing.fetch.as_ref()?.reference.as_str()));
    if json {
        let references: Vec<&str> = references().collect();
        return print_json(&json!({ "pipeline": checked.pipeline.name, "downloads": references, "stages": [] }));
    }
    let style = Style::stdout();
    let mut text = format!("{}: `palinode run` would first download\n", style.bold(&checked.pipeline.name));
    for (missing, reference) in wanted.iter().zip(references()) {
        text.push_str(&format!("  {reference}  {}\n", style.dim(&in_our_words(missing).place())));
    }
    text.push_str("what it would do then depends on what they hold\n");
    print(&text)
}

/// Prints the plan.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut lacking = None;
    let load = || {
        let hardware = palinode::hardware(&args.device)?;
        let checked = args.pipeline.check()?;
        if !checked.absent.0.is_empty() && checked.lacks_only_downloads() {
            lacking = Some(checked);
            return Err(Failure::Told(ErrorKind::Input));
        }
        let mut pipeline = args.until.of(checked.complete()?)?;
        pipeline.compute_on(hardware);
        Ok(pipeline)
    };
    let loaded = load_to_look(load, &args.store);
    if let Some(checked) = lacking {
        return downloads(&checked, args.json);
    }
    let (pipeline, store) = loaded?;
    let plan = plan(&pipeline, &store, &Reading)?;
    if args.json {
        let entries: Vec<Value> = plan.entries.iter().map(entry).collect();
        let estimate = estimate(&pipeline, &plan, &store);
        let blocks = blocks(args, &pipeline, &plan.entries);
        return print_json(&json!({
            "pipeline": pipeline.name, "stages": entries, "estimate": estimate, "blocks": blocks,
        }));
    }
    let style = Style::stdout();
    if plan.entries.is_empty() {
        return print(&format!("{}: the pipeline has no stages\n", style.bold(&pipeline.name)));
    }
    let columns = [("STAGE", Column::Name), ("STATUS", Column::Name), ("WHY", Column::Text)];
    let rows = if args.each {
        let names = pipeline.instances.iter().map(|instance| instance.name.clone());
        names.zip(&plan.entries).map(|(name, entry)| row(name, &told(&pipeline, entry))).collect()
    } else {
        by_stage(&pipeline).iter().flat_map(|group| grouped(&pipeline, group, &plan.entries)).collect()
    };
    let mut text = format!("{}\n\n{}", summary(&pipeline, &plan.entries, &style), table(&style, &columns, rows));
    text.push_str(&style.wrap(&took(&estimate(&pipeline, &plan, &store)), 0));
    for said in blocks(args, &pipeline, &plan.entries) {
        text.push_str(&format!("\n{}", style.wrap(&said, 0)));
    }
    let example = plan.entries.iter().position(|entry| matches!(&entry.status, Status::WillRun { .. }));
    if let Some(example) = example {
        let path = again::quoted(&args.pipeline.path.display().to_string());
        let why = again::on_pipeline(&format!("palinode why {path} {}", pipeline.instances[example].stage));
        text.push_str(&style.dim(&format!("\nin full: {why}\n")));
    }
    print(&text)
}

/// Where blocks would be of models that do not fit into memory. Of a GPU's memory nothing is known without asking it.
fn blocks(args: &Args, pipeline: &Pipeline, entries: &[PlanEntry]) -> Vec<String> {
    let on_cpu = ["auto", "cpu"].contains(&args.device.as_str());
    let Some(free) = palinode::free_memory().filter(|_| on_cpu) else { return Vec::new() };
    let run: Vec<usize> =
        (0..entries.len()).filter(|&at| !matches!(entries[at].status, Status::Cached { .. })).collect();
    palinode::said_of_blocks(pipeline, &run, free)
}

/// Less than this is not worth planning for.
const WORTH_SAYING: f64 = 1.0;

/// How long what would run took earlier, in a line; nothing where that is a moment, or not known.
fn took(estimate: &Estimate) -> String {
    if estimate.seconds < WORTH_SAYING {
        return String::new();
    }
    let time = format::duration(estimate.seconds);
    let unknown = match estimate.unknown.len() {
        0 => String::new(),
        count => format!("; nothing is known of {}", format::count(count, "other")),
    };
    format!("\nthe nearest earlier results of these took {time}{unknown}\n")
}

/// An entry for programs.
pub fn entry(entry: &PlanEntry) -> Value {
    let mut told = match &entry.status {
        Status::Cached { key } => json!({ "status": "cached", "key": key }),
        Status::WillRun { key, reasons } => json!({ "status": "will_run", "key": key, "reasons": reasons }),
        Status::SameAs { key, instance } => json!({ "status": "same_as", "key": key, "as": instance }),
        Status::DependsOn { upstream } => json!({ "status": "depends_on", "on": upstream }),
    };
    told["instance"] = Value::from(entry.instance.clone());
    told
}

fn summary(pipeline: &Pipeline, entries: &[PlanEntry], style: &Style) -> String {
    let count = |like: fn(&Status) -> bool| entries.iter().filter(|entry| like(&entry.status)).count();
    let parts = [
        (count(|status| matches!(status, Status::Cached { .. })), "cached"),
        (count(|status| matches!(status, Status::WillRun { .. })), "will run"),
        (count(|status| matches!(status, Status::SameAs { .. })), "the same as others"),
        (count(|status| matches!(status, Status::DependsOn { .. })), "depend on others"),
    ];
    let what = |(count, what): &(usize, &str)| match (count, *what) {
        (1, "depend on others") => "1 depends on others".to_owned(),
        _ => format!("{count} {what}"),
    };
    let parts: Vec<String> = parts.iter().filter(|(count, _)| *count > 0).map(what).collect();
    let stages = format::count(entries.len(), "stage");
    format!("{}: {stages}: {}", style.bold(&pipeline.name), parts.join(", "))
}

/// A status in words, and why.
#[derive(PartialEq)]
struct Told {
    word: &'static str,
    look: Look,
    why: String,
}

fn told(pipeline: &Pipeline, entry: &PlanEntry) -> Told {
    let (word, look, why) = match &entry.status {
        Status::Cached { .. } => ("cached", Look::Green, String::new()),
        Status::WillRun { reasons, .. } => {
            let first = reasons.first().map(ToString::to_string).unwrap_or_default();
            let more = reasons.len().saturating_sub(1);
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            ("will run", Look::Yellow, first + &more)
        }
        Status::SameAs { instance, .. } => ("same", Look::Dim, format!("as {instance}")),
        Status::DependsOn { upstream } => {
            // An instance takes from its own cell, so that the stage's name says it.
            let mut stages: Vec<&str> =
                upstream.iter().filter_map(|name| Some(pipeline.instance(name)?.stage.as_str())).collect();
            stages.dedup();
            ("depends", Look::Dim, format!("on {}", stages.join(", ")))
        }
    };
    Told { word, look, why }
}

/// One row where all cells of a stage fare alike, otherwise one for each.
fn grouped(pipeline: &Pipeline, group: &Group<'_>, entries: &[PlanEntry]) -> Vec<Vec<Field>> {
    let each: Vec<Told> = group.members.iter().map(|&member| told(pipeline, &entries[member])).collect();
    let cells = each.len();
    match each.as_slice() {
        [one] => vec![row(group.stage.to_owned(), one)],
        [first, others @ ..] if others.iter().all(|other| other == first) => {
            vec![row(format!("{} ×{cells}", group.stage), first)]
        }
        _ => {
            let title = vec![Field::from(format!("{} ×{cells}", group.stage)), "".into(), "".into()];
            let cells = group.members.iter().map(|&member| format!("  {}", cell(&pipeline.instances[member])));
            std::iter::once(title).chain(cells.zip(&each).map(|(cell, told)| row(cell, told))).collect()
        }
    }
}

/// "objective=rome, strategy=single"
fn cell(instance: &Instance) -> String {
    let values = instance.cell.iter().map(|(axis, value)| format!("{axis}={}", crate::results::plain(value)));
    values.collect::<Vec<_>>().join(", ")
}

fn row(name: String, told: &Told) -> Vec<Field> {
    vec![name.into(), Field::new(told.word, told.look), told.why.clone().into()]
}
