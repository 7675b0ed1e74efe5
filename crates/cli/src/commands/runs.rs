//! `palinode runs`

use clap::Args as ClapArgs;
use palinode_engine::{Outcome, PastRun};
use serde_json::json;

use crate::failure::Failure;
use crate::input::StoreArgs;
use crate::past::{self, Ending, Results};
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, print, print_json};

/// List the runs of a store, newest first
///
/// With how each ended, how many stages ran or were cached, and the best of its first metrics. Works while a run goes on.
/// Wherever a run is asked for, any part of its id that no other begins or ends with will do, and `last` or `last~2`.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode runs
  palinode runs --pipeline demo --limit 5
  palinode runs --json | jq -r '.[] | select(.ending == \"failed\") | .id'")]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Only runs of the pipeline of this name.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// At most so many; 0 for all.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Lists runs.
pub fn run(args: &Args) -> Result<(), Failure> {
    let history = args.store.history();
    let holder = history.holder().and_then(|holder| holder.run);
    let wanted = |run: &PastRun| args.pipeline.as_ref().is_none_or(|name| run.pipeline == *name);
    let most = if args.limit == 0 { usize::MAX } else { args.limit };
    let ids = history.ids();
    let runs: Vec<PastRun> = ids.iter().filter_map(|id| history.run(id)).filter(wanted).take(most).collect();
    let mut results = Results::of(&history);
    if args.json {
        let one = |run: &PastRun| {
            json!({
                "id": run.id,
                "pipeline": run.pipeline,
                "started_ms": run.started_ms,
                "seconds": run.seconds,
                "ending": Ending::of(run, holder.as_deref()).word(),
                "stages": run.total,
                "ran": run.count(|outcome| *outcome == Outcome::Ran),
                "cached": run.count(|outcome| *outcome == Outcome::Cached),
                "failed": run.count(|outcome| matches!(outcome, Outcome::Failed { .. })),
                "headline": results.headline(run),
            })
        };
        return print_json(&runs.iter().map(one).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        return print(&format!("no runs in {}\n", history.root().display()));
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
    let row = |run: &PastRun| {
        let ending = Ending::of(run, holder.as_deref());
        vec![
            Field::new(run.id.clone(), Look::Bold),
            run.pipeline.clone().into(),
            past::ago(run.started_ms).into(),
            past::took(run).into(),
            Field::new(ending.word(), ending.look()),
            run.count(|outcome| *outcome == Outcome::Ran).to_string().into(),
            run.count(|outcome| *outcome == Outcome::Cached).to_string().into(),
            results.headline(run).into(),
        ]
    };
    let rows = runs.iter().map(row).collect();
    let more = ids.len().saturating_sub(runs.len());
    let more = if more > 0 && runs.len() == most {
        style.dim(&format!("\n{more} more: --limit 0 shows all\n"))
    } else {
        String::new()
    };
    print(&(table(&style, &columns, rows) + &more))
}
