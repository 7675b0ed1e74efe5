//! `palinode validate`

use clap::Args as ClapArgs;
use palinode_engine::Diagnostic;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::input::PipelineArgs;
use crate::terminal::{Style, complain, format, print, print_json};

/// Check a pipeline without running it
///
/// Reads the file, fills in defaults and variables, expands the matrix, and checks every name, type, connection and file
/// that can be checked before a stage runs. Shows all mistakes at once. Lists models and data that are not on this machine.
/// They are no mistakes: a pipeline can be checked on another machine than it runs on.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode validate pipeline.yaml
  palinode validate pipeline.yaml --set vars.layers=[5]
  palinode validate pipeline.yaml --json | jq '.mistakes[].message'")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    /// Print one JSON document, also for mistakes.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print only mistakes.
    #[arg(short, long)]
    quiet: bool,
}

/// Says that a pipeline is sound, or what is wrong with it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (pipeline, absent) = match args.pipeline.check() {
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
        complain(&format!("{} {}\n", Style::stderr().yellow("warning:"), warning.line()));
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
    if !absent.0.is_empty() {
        text.push_str("\nnot here, so not looked at:\n");
    }
    for Diagnostic { source, span, message, at, .. } in &absent.0 {
        let place = at.as_ref().map(|at| format!(", {at}")).unwrap_or_default();
        text.push_str(&format!("  {}:{}:{}: {message}{place}\n", source.name, span.line, span.column));
    }
    print(&text)
}

/// A mistake for programs: editors and checks of a repository.
fn told(mistake: &Diagnostic) -> Value {
    json!({
        "file": mistake.source.name,
        "line": mistake.span.line,
        "column": mistake.span.column,
        "length": mistake.span.len,
        "kind": mistake.kind,
        "message": mistake.message,
        "expected": mistake.expected,
        "hint": mistake.hint,
        "see": mistake.at.as_ref().map(ToString::to_string),
    })
}
