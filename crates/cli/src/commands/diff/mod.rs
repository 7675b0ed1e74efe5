//! `palinode diff`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args as ClapArgs;
use palinode::shown::{Better, Shown};
use palinode::{Error, ErrorKind, Paired, Repeated, RunRecord, Runs, Scored, StageRecord, holm, paired};
use serde::Serialize;
use serde_json::{Value, json};

use super::show::{Found, find};
use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::past::{Results, experiment, mean_of};
use crate::results::metrics::{Metric, metrics_of};
use crate::results::plain;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// Compare two runs, or two stages or cells of the matrix
///
/// Shows only what differs: parameters with both values, and the change of every metric that has a better direction. For
/// stages, compares everything that they were computed from too. Cells that differ along `replicates` of the pipeline alone
/// are one experiment: their means are compared, repetition by repetition.
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
    let params = parameters(&a, &b);
    let metrics = metrics(&a, &b);
    let (only_a, only_b) = (a.without(&b), b.without(&a));
    if args.json {
        return print_json(&json!({
            "a": a.name, "b": b.name, "only_a": only_a, "only_b": only_b, "parameters": params, "metrics": metrics,
        }));
    }
    let style = Style::stdout();
    let mut text = format!("A  {}\nB  {}\n", style.bold(&a.name), style.bold(&b.name));
    for (side, names) in [("A", &only_a), ("B", &only_b)] {
        if !names.is_empty() {
            text.push_str(&style.wrap(&format!("only in {side}: {}", names.join(", ")), 0));
        }
    }
    let compared = Compared::of(&a, &b);
    let same = params.is_empty() && metrics.is_empty() && only_a.is_empty() && only_b.is_empty();
    if same && compared.stages && compared.metrics {
        return print(&(text + "no parameter and no metric differs\n"));
    }
    if compared.stages {
        text.push_str(&parameter_table(&params, &style));
    } else {
        text.push_str("\nnothing in common: no stage of one has the name of a stage of the other\n");
    }
    if compared.metrics {
        text.push_str(&metric_table(&metrics, args.all, &style));
    } else if compared.stages {
        text.push_str(&style.dim("\nno metric was compared: no stage with scores is in both\n"));
    }
    print(&text)
}

/// Whether there was anything to compare: where there was not, that nothing differs says nothing.
struct Compared {
    stages: bool,
    metrics: bool,
}

impl Compared {
    fn of(a: &Side, b: &Side) -> Self {
        let scored = |shown: &Shown| !metrics_of(shown).is_empty();
        let shared =
            |stage: &String| a.results.get(stage).is_some_and(scored) && b.results.get(stage).is_some_and(scored);
        let any = |side: &Side| side.results.values().any(scored);
        let (in_a, in_b) = (any(a), any(b));
        Self {
            stages: !a.run_as_a_whole
                || a.stages.is_empty()
                || b.stages.is_empty()
                || a.stages.intersection(&b.stages).next().is_some(),
            // Where neither has scores, none can differ.
            metrics: if a.run_as_a_whole { a.results.keys().any(shared) || !in_a && !in_b } else { in_a && in_b },
        }
    }
}

/// One of the two that are compared.
struct Side {
    /// What it is called.
    name: String,
    /// Whether it is a run, and no stage of one.
    run_as_a_whole: bool,
    /// The stages, with cells of runs and without those of stages.
    stages: BTreeSet<String>,
    /// Parameters by stage and name.
    params: BTreeMap<(String, String), Value>,
    /// What results say of themselves, by stage.
    results: BTreeMap<String, Shown>,
    /// Scores record by record, by stage: of each repetition, with what it is called.
    scored: BTreeMap<String, Vec<(String, Scored)>>,
}

impl Side {
    fn of(runs: &Runs, name: &str) -> Result<Self, Failure> {
        match find(runs, name)? {
            Found::Run(run) => Ok(Self::run(runs, &run)),
            Found::Stage(run, instances) => match instances.as_slice() {
                [first, ..] if instances.iter().all(|one| experiment(&run, one) == experiment(&run, first)) => {
                    Ok(Self::stage(runs, &run, &instances))
                }
                [first, ..] => {
                    let message = format!("`{name}` has {} cells", instances.len());
                    let hint = format!("name one of them, such as '{}'", experiment(&run, first));
                    Err(Error::new(ErrorKind::Usage, message).hint(hint).into())
                }
                [] => Err(Error::internal(format!("`{name}` has no instance")).into()),
            },
        }
    }

    fn run(runs: &Runs, run: &RunRecord) -> Self {
        let mut known = Results::of(runs);
        let resolved = runs.resolved(&run.run).map(|pipeline| pipeline.stages).unwrap_or_default();
        let stages = resolved.iter().map(|stage| stage.instance.clone()).collect();
        let params = resolved.into_iter().flat_map(|stage| {
            let instance = stage.instance;
            stage.params.into_iter().map(move |(name, value)| ((instance.clone(), name), value))
        });
        let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for stage in &run.stages {
            groups.entry(experiment(run, &stage.instance)).or_default().push(&stage.instance);
        }
        let (mut results, mut scored) = (BTreeMap::new(), BTreeMap::new());
        for (name, group) in groups {
            let (shown, records) = together(&mut known, run, &group);
            results.extend(shown.map(|shown| (name.clone(), shown)));
            scored.extend(records.map(|records| (name, records)));
        }
        Self { name: run.run.clone(), run_as_a_whole: true, stages, params: params.collect(), results, scored }
    }

    /// A stage, with all that it is made from; cells do not stand in names, so that those of two can be compared.
    fn stage(runs: &Runs, run: &RunRecord, instances: &[String]) -> Self {
        let bare = |instance: &str| instance.split('[').next().unwrap_or_default().to_owned();
        let pipeline = runs.resolved(&run.run);
        let (mut stages, mut params) = (BTreeSet::new(), BTreeMap::new());
        // Repetitions differ in what is repeated: a parameter has all values, as a list.
        for instance in instances {
            for stage in pipeline.iter().flat_map(|pipeline| pipeline.ancestry(instance)) {
                let name = bare(&stage.instance);
                stages.insert(name.clone());
                let mut add = |param: &str, value: Value| {
                    let known: &mut Vec<Value> = params.entry((name.clone(), param.to_owned())).or_default();
                    if !known.contains(&value) {
                        known.push(value);
                    }
                };
                add("uses", Value::from(stage.uses.clone()));
                stage.params.iter().for_each(|(param, value)| add(param, value.clone()));
            }
        }
        let one = |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        let params = params.into_iter().map(|(key, values)| (key, one(values))).collect();
        let all: Vec<&str> = instances.iter().map(String::as_str).collect();
        let (shown, records) = together(&mut Results::of(runs), run, &all);
        let (name, of) = (bare(&instances[0]), experiment(run, &instances[0]));
        Self {
            name: match instances.len() {
                1 => format!("{}:{}", run.run, instances[0]),
                n => format!("{}:{of}, {}", run.run, format::count(n, "repetition")),
            },
            run_as_a_whole: false,
            stages,
            params,
            results: shown.map(|shown| (name.clone(), shown)).into_iter().collect(),
            scored: records.map(|records| (name, records)).into_iter().collect(),
        }
    }

    /// The stages of this side that the other has not, cells of one together.
    fn without(&self, other: &Self) -> Vec<String> {
        let bare = |instance: &str| instance.split('[').next().unwrap_or_default().to_owned();
        let mut missing: BTreeMap<String, usize> = BTreeMap::new();
        for instance in self.stages.difference(&other.stages) {
            *missing.entry(bare(instance)).or_default() += 1;
        }
        let named = |(stage, count): (String, usize)| {
            let known = other.stages.iter().any(|instance| bare(instance) == stage);
            match (known, count) {
                (true, count) => format!("{} of {stage}", format::count(count, "cell")),
                (false, 1) => stage,
                (false, count) => format!("{stage} ×{count}"),
            }
        };
        missing.into_iter().map(named).collect()
    }
}

/// What the results of repetitions show, as means, and their scores record by record, each with what it is called there.
fn together(
    known: &mut Results<'_>,
    run: &RunRecord,
    instances: &[&str],
) -> (Option<Shown>, Option<Vec<(String, Scored)>>) {
    let stages = || instances.iter().filter_map(|instance| run.stage(instance));
    let all: Vec<Shown> = stages().filter_map(|stage| known.shown(stage)).collect();
    let mean = mean_of(&all);
    let called = |stage: &StageRecord| {
        let repeated = stage.cell.iter().filter(|(axis, _)| run.replicates.contains(axis));
        repeated.map(|(_, value)| plain(value)).collect::<Vec<_>>().join(", ")
    };
    let scored: Option<Vec<(String, Scored)>> =
        stages().map(|stage| Some((called(stage), known.scored(stage)?))).collect();
    (mean, scored.filter(|all| !all.is_empty()))
}

/// A parameter that differs.
#[derive(Serialize)]
struct Parameter {
    stage: String,
    /// In how many cells it differs in this way.
    cells: usize,
    name: String,
    a: Option<Value>,
    b: Option<Value>,
}

fn parameters(a: &Side, b: &Side) -> Vec<Parameter> {
    let mut found: Vec<Parameter> = Vec::new();
    for key in a.params.keys().chain(b.params.keys()).collect::<BTreeSet<_>>() {
        if !a.stages.contains(&key.0) || !b.stages.contains(&key.0) {
            continue;
        }
        // A parameter that was left out and one that the stage does not have in this form are the same to a reader.
        let set = |side: &Side| side.params.get(key).filter(|value| !value.is_null()).cloned();
        let (old, new) = (set(a), set(b));
        if old == new {
            continue;
        }
        let stage = key.0.split('[').next().unwrap_or_default();
        let like =
            |known: &&mut Parameter| known.stage == stage && known.name == key.1 && known.a == old && known.b == new;
        match found.iter_mut().find(like) {
            Some(known) => known.cells += 1,
            None => {
                found.push(Parameter { stage: stage.to_owned(), cells: 1, name: key.1.clone(), a: old, b: new });
            }
        }
    }
    found
}

/// A metric that differs.
#[derive(Serialize)]
struct Measured {
    stage: String,
    metric: String,
    a: Option<f64>,
    b: Option<f64>,
    /// Whether B is better, where anyone knows; of scores whose records are known, only where a difference is shown.
    better: Option<bool>,
    /// Whether it has a better direction.
    #[serde(skip)]
    judged: bool,
    /// Records that both have.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<usize>,
    /// The 95 % interval of B less A over pairs of records.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<[f64; 2]>,
    /// The p of no difference, adjusted by Holm for all metrics that are compared here.
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<f64>,
    #[serde(skip)]
    pair: Option<Paired>,
    #[serde(skip)]
    drawn: [String; 5],
}

fn metrics(a: &Side, b: &Side) -> Vec<Measured> {
    let mut found: Vec<Measured> = Vec::new();
    for stage in a.results.keys().chain(b.results.keys()).collect::<BTreeSet<_>>() {
        // Two stages may be compared whatever they are called; stages of runs only with themselves.
        let (old, new) = (a.results.get(stage), b.results.get(stage));
        if a.run_as_a_whole && (old.is_none() || new.is_none()) {
            continue;
        }
        for metric in new.or(old).map(metrics_of).unwrap_or_default() {
            let value = |shown: Option<&Shown>| shown.and_then(|shown| shown.metric(&metric.name));
            let (old, new) = (value(old), value(new));
            if old != new {
                let pair = a
                    .scored
                    .get(stage)
                    .zip(b.scored.get(stage))
                    .and_then(|(a, b)| paired(&borrowed(a), &borrowed(b), &metric.name));
                found.push(measured(stage, &metric, old, new, pair));
            }
        }
    }
    let tested = |found: &&mut Measured| found.pair.is_some() && found.judged;
    let ps: Vec<f64> = found.iter_mut().filter(tested).filter_map(|found| Some(found.pair?.p)).collect();
    for (found, p) in found.iter_mut().filter(tested).zip(holm(&ps)) {
        found.p = Some(p);
        found.drawn[4] = if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") };
        if !found.pair.is_some_and(|pair| pair.shown(p)) {
            found.better = None;
        }
    }
    found
}

/// Repetitions as they are compared.
fn borrowed(all: &[(String, Scored)]) -> Repeated<'_> {
    all.iter().map(|(called, scored)| (called.clone(), scored)).collect()
}

fn measured(stage: &str, metric: &Metric, a: Option<f64>, b: Option<f64>, pair: Option<Paired>) -> Measured {
    let decimals = metric.decimals(&[a, b]);
    let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| metric.text(value, decimals));
    let change = a.zip(b).map(|(a, b)| b - a);
    let sign = |change: f64| if change > 0.0 { "+" } else { "" };
    let drawn =
        change.map_or_else(String::new, |change| format!("{}{}", sign(change), metric.difference(change, decimals)));
    // What rounds to the same number is neither better nor worse.
    let better = change.filter(|_| text(a) != text(b)).zip(metric.better);
    let better = better.map(|(change, better)| (change > 0.0) == (better == Better::Max));
    let ends = |pair: Paired| {
        let end = |value: f64| format!("{}{}", sign(value), metric.difference(value, decimals));
        pair.interval.map(end).join(" to ")
    };
    let drawn = [text(a), text(b), drawn, pair.map(ends).unwrap_or_default(), String::new()];
    Measured {
        stage: stage.to_owned(),
        metric: metric.label.clone(),
        a,
        b,
        better,
        judged: metric.better.is_some(),
        n: pair.map(|pair| pair.n),
        interval: pair.map(|pair| pair.interval),
        p: None,
        pair,
        drawn,
    }
}

fn parameter_table(params: &[Parameter], style: &Style) -> String {
    if params.is_empty() {
        return style.dim("\nno parameter differs\n");
    }
    let columns = [("STAGE", Column::Name), ("PARAMETER", Column::Name), ("A", Column::Text), ("B", Column::Text)];
    let value = |value: &Option<Value>| value.as_ref().map_or_else(|| Field::new("–", Look::Dim), |v| plain(v).into());
    let rows = params.iter().map(|found| {
        let cells = if found.cells > 1 { format!(" ×{}", found.cells) } else { String::new() };
        vec![format!("{}{cells}", found.stage).into(), found.name.clone().into(), value(&found.a), value(&found.b)]
    });
    format!("\n{}", table(style, &columns, rows.collect()))
}

fn metric_table(metrics: &[Measured], all: bool, style: &Style) -> String {
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
    let tested = shown().any(|found| found.pair.is_some());
    let mut columns = vec![
        ("STAGE", Column::Text),
        ("METRIC", Column::Name),
        ("A", Column::Number),
        ("B", Column::Number),
        ("CHANGE", Column::Number),
    ];
    if tested {
        columns.extend([("95 % INTERVAL", Column::Number), ("n", Column::Number), ("p", Column::Number)]);
    }
    columns.push(("", Column::Name));
    let mut before = "";
    let mut rows = Vec::new();
    for found in shown() {
        let stage = if before == found.stage { "" } else { found.stage.as_str() };
        before = &found.stage;
        let [a, b, change, interval, p] = found.drawn.clone();
        let (word, look) = match found.better {
            Some(true) => ("better", Look::Green),
            Some(false) => ("worse", Look::Red),
            None if found.p.is_some() => ("no difference shown", Look::Dim),
            None => ("", Look::Plain),
        };
        let mut row: Vec<Field> = vec![stage.into(), found.metric.clone().into(), a.into(), b.into(), change.into()];
        if tested {
            let n = found.n.map(|n| n.to_string()).unwrap_or_default();
            row.extend([interval, n, p].map(Field::from));
        }
        row.push(Field::new(word, look));
        rows.push(row);
    }
    let most = metrics.iter().filter_map(|found| Some(found.pair?.repetitions)).max().unwrap_or(0);
    let over =
        if most > 1 { format!("pairs of records, and over {most} repetitions") } else { "pairs of records".into() };
    let words = format!("intervals and tests over {over}; p adjusted by Holm for the metrics shown");
    let words = if tested { style.below(&words) } else { String::new() };
    format!("\n{}{words}{more}", table(style, &columns, rows))
}
