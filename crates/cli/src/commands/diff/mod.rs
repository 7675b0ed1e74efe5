//! `palinode diff`

mod measured;
mod parameters;
mod side;

use std::collections::BTreeSet;

use clap::Args as ClapArgs;
use palinode::{Error, ErrorKind};
use serde_json::{Value, json};

use self::measured::{Behind, Measured, Pairing, metrics, pairings};
use self::parameters::{Beside, Parameter, parameters};
use self::side::{Side, listed};
use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::results::plain;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// Compare two runs, or two stages or cells of the matrix
///
/// Shows only what differs: parameters with both values, and the change of every metric that has a better direction. For
/// stages, compares everything that they were computed from too; stages of two names stand beside each other where they are of one kind.
/// Cells that differ along `replicates` of the pipeline alone are one experiment: the repetitions that both sides have are
/// compared, pair by pair, and those that one side lacks are named. A change is called better only where an interval or a test shows it.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode diff latest~1 latest
  palinode diff 'scores[objective=rome]' 'scores[objective=memit]'   repetitions (replicates) together
  palinode diff latest~1:scores latest:scores")]
pub struct Args {
    /// A run, a stage of the last run that has it, or RUN:STAGE.
    #[arg(value_name = "A")]
    a: String,

    /// What to compare it with.
    #[arg(value_name = "B")]
    b: String,

    #[command(flatten)]
    store: StoreArgs,

    /// All metrics, also those without a better direction.
    #[arg(long)]
    all: bool,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Prints what differs.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs()?;
    let (a, b) = (Side::of(&runs, &args.a)?, Side::of(&runs, &args.b)?);
    if a.run_as_a_whole != b.run_as_a_whole {
        let (run, stage) = if a.run_as_a_whole { (&args.a, &args.b) } else { (&args.b, &args.a) };
        let message = format!("`{run}` is a run and `{stage}` a stage");
        return Err(Error::new(ErrorKind::Usage, message).hint("compare two runs, or two stages").into());
    }
    let beside = Beside::of(&a, &b);
    let params = parameters(&a, &b, &beside);
    let pairings = pairings(&a, &b, &beside);
    let (metrics, partial) = metrics(&pairings);
    let (only_a, only_b) = (a.without(&b, &beside.names(false)), b.without(&a, &beside.names(true)));
    let warnings: Vec<String> =
        beside.unlike.iter().cloned().chain(pairings.iter().filter_map(Pairing::warning)).chain(partial).collect();
    if args.json {
        return print_json(&json!({
            "a": a.name, "b": b.name, "only_a": only_a, "only_b": only_b, "renamed": beside.renamed(), "parameters": params,
            "repetitions": pairings, "metrics": metrics, "warnings": warnings,
        }));
    }
    let style = Style::stdout();
    let mut text = format!("A  {}\nB  {}\n", style.bold(&a.name), style.bold(&b.name));
    for (side, names) in [("A", &only_a), ("B", &only_b)] {
        if !names.is_empty() {
            text.push_str(&style.wrap(&format!("only in {side}: {}", names.join(", ")), 0));
        }
    }
    let renamed = beside.renamed();
    if !renamed.is_empty() {
        text.push_str(&style.wrap(&format!("compared under two names: {}", renamed.join(", ")), 0));
    }
    for warning in &warnings {
        text.push_str(&format!("{} {}", style.yellow("!"), style.wrap(warning, 2).trim_start()));
    }
    let in_both = !beside.pairs.is_empty() || a.stages.is_empty() || b.stages.is_empty();
    let whole = only_a.is_empty() && only_b.is_empty() && warnings.is_empty();
    let measured = pairings.iter().any(|pairing| !pairing.compared.is_empty());
    // Where neither has scores, none can differ.
    let none_to_compare = a.scores_nothing() && b.scores_nothing();
    if params.is_empty() && metrics.is_empty() && whole && in_both && (measured || none_to_compare) {
        return print(&(text + "no parameter and no metric differs\n"));
    }
    if in_both {
        text.push_str(&parameter_table(&params, whole, &style));
    } else {
        text.push_str("\nnothing in common: no stage of one has the name of a stage of the other\n");
    }
    if measured || none_to_compare && in_both {
        text.push_str(&metric_table(&metrics, &pairings, args.all, &style));
    } else if in_both && beside.unlike.is_none() && warnings.is_empty() {
        text.push_str(&style.dim("\nno metric was compared: no stage with scores is in both\n"));
    }
    print(&text)
}

fn parameter_table(params: &[Parameter], whole: bool, style: &Style) -> String {
    if params.is_empty() {
        // Of a stage that only one side has, there is nothing that could differ.
        let of = if whole { "" } else { " of the stages that both have" };
        return style.dim(&format!("\nno parameter{of} differs\n"));
    }
    let columns = [("STAGE", Column::Name), ("PARAMETER", Column::Name), ("A", Column::Text), ("B", Column::Text)];
    let value = |value: &Option<Value>| value.as_ref().map_or_else(|| Field::new("–", Look::Dim), |v| plain(v).into());
    let rows = params.iter().map(|found| {
        let cells = if found.cells > 1 { format!(" ×{}", found.cells) } else { String::new() };
        vec![format!("{}{cells}", found.stage).into(), found.name.clone().into(), value(&found.a), value(&found.b)]
    });
    format!("\n{}", table(style, &columns, rows.collect()))
}

fn metric_table(metrics: &[Measured], pairings: &[Pairing<'_>], all: bool, style: &Style) -> String {
    let shown = || metrics.iter().filter(|found| all || found.judged);
    let hidden = metrics.len() - shown().count();
    let more = match hidden {
        0 => String::new(),
        _ => style.dim(&format!("{} without a better direction: --all\n", format::count(hidden, "metric"))),
    };
    if shown().next().is_none() {
        let none = if metrics.is_empty() { style.dim("\nno metric differs\n") } else { String::from("\n") };
        return none + &more;
    }
    let tested = shown().any(|found| found.interval.is_some());
    let records = shown().any(|found| found.n.is_some());
    let mut columns = vec![
        ("STAGE", Column::Text),
        ("METRIC", Column::Name),
        ("A", Column::Number),
        ("B", Column::Number),
        ("CHANGE", Column::Number),
    ];
    if tested {
        columns.push(("95 % INTERVAL", Column::Number));
        columns.extend(records.then_some(("n", Column::Number)));
        columns.push(("p", Column::Number));
    }
    columns.push(("", Column::Name));
    let mut before = "";
    let mut rows = Vec::new();
    for found in shown() {
        let stage = if before == found.stage { "" } else { found.stage.as_str() };
        before = &found.stage;
        let [a, b, change, interval, p] = found.drawn.clone();
        let (word, look) = match (found.better, found.behind) {
            (Some(true), _) => ("better", Look::Green),
            (Some(false), _) => ("worse", Look::Red),
            _ if !found.judged || found.a.is_none() || found.b.is_none() => ("", Look::Plain),
            (None, Behind::Nothing) => ("not tested", Look::Dim),
            (None, _) => ("no difference shown", Look::Dim),
        };
        let mut row: Vec<Field> = vec![stage.into(), found.metric.clone().into(), a.into(), b.into(), change.into()];
        if tested {
            row.push(interval.into());
            row.extend(records.then(|| found.n.map(|n| n.to_string()).unwrap_or_default().into()));
            row.push(p.into());
        }
        row.push(Field::new(word, look));
        rows.push(row);
    }
    let words: String = behind(&shown().collect::<Vec<_>>(), pairings).iter().map(|said| style.below(said)).collect();
    format!("\n{}{words}{more}", table(style, &columns, rows))
}

/// What stands behind the words of a table.
fn behind(shown: &[&Measured], pairings: &[Pairing<'_>]) -> Vec<String> {
    let has = |like: fn(Behind) -> bool| shown.iter().any(|found| like(found.behind));
    let mut counts: Vec<usize> = shown.iter().map(|found| found.repetitions).collect();
    counts.sort_unstable();
    let (least, most) = (counts.first().copied().unwrap_or(0), counts.last().copied().unwrap_or(0));
    let names: BTreeSet<&[String]> =
        pairings.iter().filter(|one| one.compared.len() > 1).map(|one| one.compared.as_slice()).collect();
    let names = match names.first() {
        Some(one) if names.len() == 1 && least == most => format!(" ({})", listed(one)),
        _ => String::new(),
    };
    let of = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let repetitions = format!("{of} pairs of repetitions{names}");
    let mut said = Vec::new();
    if has(|behind| matches!(behind, Behind::Records(_))) {
        let over =
            if most > 1 { format!("pairs of records, and over {repetitions}") } else { "pairs of records".into() };
        said.push(format!("intervals and tests over {over}; p adjusted by Holm for the metrics shown"));
    }
    if has(|behind| matches!(behind, Behind::Repetitions(..))) {
        let what = if said.is_empty() { "intervals and tests" } else { "without n" };
        let holm = if said.is_empty() { "; p adjusted by Holm for the metrics shown" } else { "" };
        said.push(format!("{what}: over {repetitions} alone, by Student's t{holm}"));
    }
    if has(|behind| matches!(behind, Behind::Apart(_))) {
        said.push("without p: a difference is shown where the 95 % intervals of both do not meet".to_owned());
    }
    if shown
        .iter()
        .any(|found| found.judged && found.behind == Behind::Nothing && found.a.is_some() && found.b.is_some())
    {
        said.push("not tested: neither an interval nor records are known".to_owned());
    }
    said
}
