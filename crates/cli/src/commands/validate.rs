//! `palinode validate`

use clap::Args as ClapArgs;
use palinode::{Checked, Diagnostic, Part};
use serde_json::{Value, json};

use crate::command_error::{Failure, in_our_words};
use crate::input::PipelineArgs;
use crate::terminal::{Style, complain, format, print, print_json};

/// Check a pipeline without running it
///
/// Reads the file, fills in defaults and variables, expands the matrix, and checks every name, type, connection and file
/// that can be checked before a stage runs. Shows all mistakes at once. Lists models and data that are not on this machine.
/// These are not mistakes: you can check a pipeline on one machine and run it on another.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode validate pipeline.yaml
  palinode validate pipeline.yaml --set vars.layers=[5]
  palinode validate --part model.yaml             a file that pipelines include
  palinode validate pipeline.yaml --json | jq '.mistakes[].message'")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    /// The file is a part that pipelines include, such as a model's numbers: nothing is missing in it, and what it has is checked.
    #[arg(long, conflicts_with_all = ["json", "set"])]
    part: bool,

    /// Print one JSON document, also for mistakes.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print only mistakes.
    #[arg(short, long)]
    quiet: bool,
}

/// Says that a pipeline is sound, or what is wrong with it.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.part {
        return part(args);
    }
    let Checked { pipeline, absent } = match args.pipeline.check() {
        Err(Failure::Mistakes(mistakes)) if args.json => {
            let all: Vec<Value> = mistakes.0.iter().map(told).collect();
            print_json(&json!({ "mistakes": all }))?;
            return Err(Failure::Told(mistakes.kind()));
        }
        checked => checked?,
    };
    let mut stages: Vec<&str> = pipeline.instances.iter().map(|instance| instance.stage.as_str()).collect();
    stages.sort_unstable();
    stages.dedup();
    let (stages, instances) = (stages.len(), pipeline.instances.len());
    if args.json {
        return print_json(&json!({
            "pipeline": pipeline.name, "stages": stages, "instances": instances, "mistakes": [],
            "absent": absent.0.iter().map(told).collect::<Vec<_>>(),
            "warnings": pipeline.warnings.0.iter().map(told).collect::<Vec<_>>(),
        }));
    }
    for warning in &pipeline.warnings.0 {
        complain(&format!("{} {}\n", Style::stderr().yellow("warning:"), in_our_words(warning).line()));
    }
    if args.quiet {
        return Ok(());
    }
    let cells = if instances > stages {
        format!(", {instances} with the matrix ({})", pipeline.axes.join(" × "))
    } else {
        String::new()
    };
    let count = format::count(stages, "stage");
    let mark = Style::stdout().green("✓");
    let mut text = format!("{mark} {}: {count}{cells}; no mistakes found\n", args.pipeline.path.display());
    let (to_fetch, missing): (Vec<_>, Vec<_>) = absent.0.iter().partition(|missing| missing.fetch.is_some());
    if !to_fetch.is_empty() {
        text.push_str("\na run would download:\n");
    }
    for missing in &to_fetch {
        text.push_str(&format!("  {}\n", in_our_words(missing).line()));
    }
    if !missing.is_empty() {
        text.push_str("\nnot here, so not looked at:\n");
    }
    for missing in missing {
        let place = missing.at.as_ref().map(|at| format!(", {at}")).unwrap_or_default();
        text.push_str(&format!("  {}{place}\n", in_our_words(missing).line()));
    }
    print(&text)
}

/// Says that a part is sound, as far as can be said.
fn part(args: &Args) -> Result<(), Failure> {
    let Part { stages, checked, warnings } = args.pipeline.check_part()?;
    for warning in &warnings.0 {
        complain(&format!("{} {}\n", Style::stderr().yellow("warning:"), in_our_words(warning).line()));
    }
    if args.quiet {
        return Ok(());
    }
    let mark = Style::stdout().green("✓");
    let count = format::count(stages, "stage");
    let open = match stages - checked {
        0 => String::new(),
        open => format!(", {open} of them of a kind that another file gives, which were not checked"),
    };
    print(&format!("{mark} {}: a part with {count}{open}; no mistakes found\n", args.pipeline.path.display()))
}

/// A mistake for programs: editors and checks of a repository.
fn told(mistake: &Diagnostic) -> Value {
    let mistake = in_our_words(mistake);
    json!({
        "file": mistake.source.name,
        "line": mistake.span.line,
        "column": mistake.span.column,
        "length": mistake.span.len,
        "kind": mistake.kind,
        "message": mistake.message,
        "expected": mistake.expected,
        "download": mistake.fetch.map(|fetch| fetch.reference),
        "hint": mistake.hint.map(|hint| hint.to_string()),
        "see": mistake.at.as_ref().map(ToString::to_string),
    })
}
