//! `palinode runs`

use clap::Args as ClapArgs;
use palinode::{Outcome, RunRecord};

use crate::command_error::Failure;
use crate::input::{StoreArgs, whole};
use crate::past;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, print, print_json};

/// List the runs of a store, newest first
///
/// Shows how each run ended, how many stages ran or were cached, and the best values of its first metrics. Works while a
/// run is in progress. To name a run, give any unambiguous prefix or suffix of its ID, `latest`, or `latest~2`.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode runs
  palinode runs --pipeline demo --limit 5
  palinode runs --json | jq -r '.[] | select(.ended == \"failed\") | .run'")]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Only runs of the pipeline with this name.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// List at most COUNT runs; 0 for all.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20, value_parser = whole::<usize>, allow_negative_numbers = true)]
    limit: usize,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Lists runs.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs()?;
    past::tell_unread(&runs);
    let wanted = |run: &RunRecord| args.pipeline.as_ref().is_none_or(|name| run.pipeline == *name);
    let most = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut listed = runs.list();
    listed.retain(wanted);
    let more = listed.len().saturating_sub(most);
    listed.truncate(most);
    if args.json {
        return print_json(&listed.iter().map(past::in_words).collect::<Vec<_>>());
    }
    if listed.is_empty() {
        return print(&format!("no runs in {}\n", runs.store().display()));
    }
    let style = Style::stdout();
    let columns = [
        ("RUN", Column::Name),
        ("PIPELINE", Column::Text),
        ("BEGUN", Column::Name),
        ("TOOK", Column::Number),
        ("ENDED", Column::Name),
        ("RAN", Column::Number),
        ("CACHED", Column::Number),
        ("BEST", Column::Text),
    ];
    let row = |run: &RunRecord| {
        let (word, look) = past::ending(run);
        vec![
            Field::new(run.run.clone(), Look::Bold),
            run.pipeline.clone().into(),
            past::ago(run.started_ms).into(),
            past::took(run).into(),
            Field::new(word, look),
            past::count(run, |outcome| *outcome == Outcome::Ran).to_string().into(),
            past::count(run, |outcome| *outcome == Outcome::Cached).to_string().into(),
            past::headline(run).into(),
        ]
    };
    let rows = listed.iter().map(row).collect();
    let more = if more > 0 { style.dim(&format!("\n{more} more: --limit 0 shows all\n")) } else { String::new() };
    print(&(table(&style, &columns, rows) + &more))
}
