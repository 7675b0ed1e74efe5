//! `palinode diff`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args as ClapArgs;
use palinode_engine::{ErrorKind, RunRecord, Runs, StageError};
use serde::Serialize;
use serde_json::{Value, json};

use super::show::{Found, find};
use crate::failure::Failure;
use crate::input::StoreArgs;
use crate::past::Results;
use crate::results::metrics::{Better, Metric, metrics_of};
use crate::results::plain;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// Compare two runs, or two stages or cells of the matrix
///
/// Shows only what differs: parameters with both values, and metrics with the change. Of stages, everything that they were
/// made from is compared too.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode diff latest~1 latest
  palinode diff 'scores[objective=rome]' 'scores[objective=memit]'
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

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Prints what differs.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = args.store.runs();
    let (a, b) = (Side::of(&runs, &args.a)?, Side::of(&runs, &args.b)?);
    if a.run_as_a_whole != b.run_as_a_whole {
        let (run, stage) = if a.run_as_a_whole { (&args.a, &args.b) } else { (&args.b, &args.a) };
        let message = format!("`{run}` is a run and `{stage}` a stage");
        return Err(StageError::new(ErrorKind::Usage, message).hint("compare two runs, or two stages").into());
    }
    let params = parameters(&a, &b);
    let metrics = metrics(&a, &b);
    if args.json {
        return print_json(&json!({ "a": a.name, "b": b.name, "parameters": params, "metrics": metrics }));
    }
    let style = Style::stdout();
    print(&text(&a, &b, &params, &metrics, &style))
}

/// One of the two that are compared.
struct Side {
    /// What it is called.
    name: String,
    /// Whether it is a run, and no stage of one.
    run_as_a_whole: bool,
    /// Parameters by stage and name.
    params: BTreeMap<(String, String), Value>,
    /// What results say of themselves, by stage.
    metas: BTreeMap<String, Value>,
}

impl Side {
    fn of(runs: &Runs, name: &str) -> Result<Self, Failure> {
        match find(runs, name)? {
            Found::Run(run) => Ok(Self::run(runs, &run)),
            Found::Stage(run, instances) => match instances.as_slice() {
                [one] => Ok(Self::stage(runs, &run, one)),
                [first, ..] => {
                    let message = format!("`{name}` has {} cells", instances.len());
                    let hint = format!("name one of them, such as '{first}'");
                    Err(StageError::new(ErrorKind::Usage, message).hint(hint).into())
                }
                [] => Err(StageError::internal(format!("`{name}` has no instance")).into()),
            },
        }
    }

    fn run(runs: &Runs, run: &RunRecord) -> Self {
        let mut results = Results::of(runs);
        let stages = runs.resolved(&run.run).map(|pipeline| pipeline.stages).unwrap_or_default();
        let params = stages.into_iter().flat_map(|stage| {
            let instance = stage.instance;
            stage.params.into_iter().map(move |(name, value)| ((instance.clone(), name), value))
        });
        let metas = run.stages.iter().filter_map(|stage| Some((stage.instance.clone(), results.meta(stage)?)));
        Self { name: run.run.clone(), run_as_a_whole: true, params: params.collect(), metas: metas.collect() }
    }

    /// A stage, with all that it is made from; cells do not stand in names, so that those of two can be compared.
    fn stage(runs: &Runs, run: &RunRecord, instance: &str) -> Self {
        let bare = |instance: &str| instance.split('[').next().unwrap_or_default().to_owned();
        let pipeline = runs.resolved(&run.run);
        let mut params = BTreeMap::new();
        for stage in pipeline.iter().flat_map(|pipeline| pipeline.ancestry(instance)) {
            let name = bare(&stage.instance);
            params.insert((name.clone(), "uses".to_owned()), Value::from(stage.uses.clone()));
            params.extend(stage.params.iter().map(|(param, value)| ((name.clone(), param.clone()), value.clone())));
        }
        let meta = run.stage(instance).and_then(|stage| Results::of(runs).meta(stage));
        let metas = meta.map(|meta| (bare(instance), meta)).into_iter().collect();
        Self { name: format!("{}:{instance}", run.run), run_as_a_whole: false, params, metas }
    }
}

/// A parameter that differs.
#[derive(Serialize)]
struct Parameter {
    stage: String,
    /// In how many cells it differs in this way.
    cells: usize,
    parameter: String,
    a: Option<Value>,
    b: Option<Value>,
}

fn parameters(a: &Side, b: &Side) -> Vec<Parameter> {
    let mut found: Vec<Parameter> = Vec::new();
    for key in a.params.keys().chain(b.params.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (a.params.get(key), b.params.get(key));
        if old == new {
            continue;
        }
        let stage = key.0.split('[').next().unwrap_or_default();
        let like = |known: &&mut Parameter| {
            known.stage == stage && known.parameter == key.1 && known.a.as_ref() == old && known.b.as_ref() == new
        };
        match found.iter_mut().find(like) {
            Some(known) => known.cells += 1,
            None => found.push(Parameter {
                stage: stage.to_owned(),
                cells: 1,
                parameter: key.1.clone(),
                a: old.cloned(),
                b: new.cloned(),
            }),
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
    /// Whether B is better, where anyone knows.
    better: Option<bool>,
    #[serde(skip)]
    drawn: [String; 3],
}

fn metrics(a: &Side, b: &Side) -> Vec<Measured> {
    let mut found = Vec::new();
    for stage in a.metas.keys().chain(b.metas.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (a.metas.get(stage), b.metas.get(stage));
        for metric in metrics_of(new.or(old).unwrap_or(&Value::Null)) {
            let value = |meta: Option<&Value>| meta.and_then(|meta| meta["metrics"][&metric.name].as_f64());
            let (old, new) = (value(old), value(new));
            if old != new {
                found.push(measured(stage, &metric, old, new));
            }
        }
    }
    found
}

fn measured(stage: &str, metric: &Metric, a: Option<f64>, b: Option<f64>) -> Measured {
    let decimals = metric.decimals(&[a, b]);
    let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| metric.text(value, decimals));
    let change = a.zip(b).map(|(a, b)| b - a);
    let sign = |change: f64| if change > 0.0 { "+" } else { "" };
    let drawn = change.map_or_else(String::new, |change| format!("{}{}", sign(change), metric.text(change, decimals)));
    let better = change.zip(metric.better).map(|(change, better)| (change > 0.0) == (better == Better::Max));
    Measured { stage: stage.to_owned(), metric: metric.label.clone(), a, b, better, drawn: [text(a), text(b), drawn] }
}

fn text(a: &Side, b: &Side, params: &[Parameter], metrics: &[Measured], style: &Style) -> String {
    let mut text = format!("A  {}\nB  {}\n", style.bold(&a.name), style.bold(&b.name));
    if params.is_empty() && metrics.is_empty() {
        return text + "no parameter and no metric differs\n";
    }
    if !params.is_empty() {
        let columns = [("STAGE", Column::Name), ("PARAMETER", Column::Name), ("A", Column::Text), ("B", Column::Text)];
        let none =
            |value: &Option<Value>| value.as_ref().map_or_else(|| Field::new("–", Look::Dim), |v| plain(v).into());
        let rows = params.iter().map(|found| {
            let cells = if found.cells > 1 { format!(" ×{}", found.cells) } else { String::new() };
            vec![
                format!("{}{cells}", found.stage).into(),
                found.parameter.clone().into(),
                none(&found.a),
                none(&found.b),
            ]
        });
        text.push_str(&format!("\n{}", table(style, &columns, rows.collect())));
    }
    if !metrics.is_empty() {
        let columns = [
            ("STAGE", Column::Text),
            ("METRIC", Column::Name),
            ("A", Column::Number),
            ("B", Column::Number),
            ("CHANGE", Column::Number),
            ("", Column::Name),
        ];
        let mut last = "";
        let mut rows = Vec::new();
        for found in metrics {
            let stage = if last == found.stage { "" } else { found.stage.as_str() };
            last = &found.stage;
            let [a, b, change] = found.drawn.clone();
            let (word, look) = match found.better {
                Some(true) => ("better", Look::Green),
                Some(false) => ("worse", Look::Red),
                None => ("", Look::Plain),
            };
            rows.push(vec![
                stage.into(),
                found.metric.clone().into(),
                a.into(),
                b.into(),
                change.into(),
                Field::new(word, look),
            ]);
        }
        text.push_str(&format!("\n{}", table(style, &columns, rows)));
    }
    let none = match (params.is_empty(), metrics.is_empty()) {
        (true, _) => "no parameter differs\n".to_owned(),
        (_, true) => "no metric differs\n".to_owned(),
        _ => format!("{}, {}\n", format::count(params.len(), "parameter"), format::count(metrics.len(), "metric")),
    };
    text + "\n" + &style.dim(&none)
}
