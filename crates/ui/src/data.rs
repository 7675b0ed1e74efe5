//! What the page shows, as JSON.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use palinode::shown::{Shown, value};
use palinode::{
    Arm, Ended, ErrorKind, Field, Hint, Live, Outcome, Role, RunRecord, Runs, StageRecord, StageState, stage_log,
};
use palinode_report::Report;
use serde::Serialize;
use serde_json::{Value, json};

use crate::known::{Known, OfRun};

/// Bytes of a log that are shown: its end.
const LOG: u64 = 64 << 10;
/// Runs of which models are offered.
const RUNS: usize = 40;
/// Models that are offered.
const MODELS: usize = 400;
/// Samples of a result.
const SAMPLES: usize = 12;
/// Points of a trace, and traces of a stage.
const TRACES: usize = 60;

/// The store, and who has it open.
pub fn store(runs: &Runs) -> Value {
    json!({
        "store": std::path::absolute(runs.store()).unwrap_or_else(|_| runs.store().to_owned()).display().to_string(),
        "program": env!("CARGO_PKG_VERSION"),
        "holder": runs.holder(),
    })
}

/// All runs, with their arms, as JSON. Values that all arms share are said once.
pub fn overview(runs: &Runs, known: &Known) -> Arc<str> {
    let names = runs.names();
    let all: Vec<OfRun> = names.iter().filter_map(|name| known.run(runs, name)).collect();
    // Looked into only where something is amiss.
    let unread = if all.len() == names.len() { Vec::new() } else { runs.unread() };
    let make = || {
        let unread = unread.iter().map(|(run, why)| json!({ "run": run, "why": why })).collect();
        serde_json::to_string(&Overview::of(&all, unread)).unwrap_or_default()
    };
    if unread.is_empty() { known.overview(&all, make) } else { make().into() }
}

#[derive(Serialize)]
struct Overview<'a> {
    runs: Vec<Value>,
    fields: Vec<Told<'a>>,
    arms: Vec<Row<'a>>,
    unread: Vec<Value>,
}

/// A field, and whether its value is the same everywhere.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    field: &'a Field,
    varies: bool,
    same: Option<&'a Value>,
}

/// An arm with its values of the fields that vary, in their order.
#[derive(Serialize)]
struct Row<'a> {
    run: &'a str,
    cell: &'a [(String, Value)],
    values: Vec<Option<&'a Value>>,
}

impl<'a> Overview<'a> {
    fn of(all: &'a [OfRun], unread: Vec<Value>) -> Self {
        let arms = || all.iter().flat_map(|of| &of.arms.arms);
        let mut fields: BTreeMap<&str, &Field> = BTreeMap::new();
        for (name, field) in all.iter().flat_map(|of| &of.arms.fields) {
            fields.entry(name).or_insert(field);
        }
        // In how many arms a field is, its first value, and whether another arm has another one.
        let mut seen: HashMap<&str, (usize, &Value, bool)> = HashMap::new();
        let mut count = 0;
        for arm in arms() {
            count += 1;
            for (name, value) in &arm.values {
                let known = seen.entry(name).or_insert((0, value, false));
                known.0 += 1;
                known.2 = known.2 || known.1 != value;
            }
        }
        let shared =
            |name: &str| seen.get(name).filter(|(of, _, differs)| *of == count && !differs).map(|known| known.1);
        // Metrics are results: they are never said once for all.
        let told = fields.iter().map(|(name, &field)| {
            let same = if field.role == Role::Metric { None } else { shared(name) };
            Told { field, varies: same.is_none(), same }
        });
        let fields: Vec<Told<'_>> = told.collect();
        let varying: Vec<&str> =
            fields.iter().filter(|told| told.varies).map(|told| told.field.name.as_str()).collect();
        let row = |arm: &'a Arm| {
            // Both are in the order of names.
            let mut values = arm.values.iter().peekable();
            let value = |name: &&str| {
                while values.next_if(|(known, _)| known.as_str() < *name).is_some() {}
                values.next_if(|(known, _)| known.as_str() == *name).map(|(_, value)| value)
            };
            Row { run: &arm.run, cell: &arm.cell, values: varying.iter().map(value).collect() }
        };
        Self {
            runs: all.iter().map(|of| summary(&of.record)).collect(),
            arms: arms().map(row).collect(),
            fields,
            unread,
        }
    }
}

fn summary(record: &RunRecord) -> Value {
    let count = |like: fn(&StageState) -> bool| record.stages.iter().filter(|stage| like(&stage.state)).count();
    json!({
        "run": record.run,
        "pipeline": record.pipeline,
        "started_ms": record.started_ms,
        "finished_ms": record.finished_ms,
        "ended": ended(record),
        "device": record.device,
        "host": record.host,
        "stages": record.stages.len(),
        "ran": count(|state| matches!(state, StageState::Finished(Outcome::Ran))),
        "cached": count(|state| matches!(state, StageState::Finished(Outcome::Cached))),
        "failed": count(|state| matches!(state, StageState::Finished(Outcome::Failed { .. }))),
        "at_work": record.stages.iter().filter(|stage| matches!(stage.state, StageState::Working { .. }))
            .map(|stage| stage.instance.as_str()).collect::<Vec<_>>(),
    })
}

/// In a word, as the command line says it.
fn ended(record: &RunRecord) -> &'static str {
    match record.ended {
        Ended::Not => "running",
        Ended::Done => "done",
        Ended::Failed => "failed",
        Ended::Interrupted => "stopped",
        Ended::Lost => "lost",
    }
}

/// A run with all that is known of it.
pub fn run(runs: &Runs, record: &Arc<RunRecord>, known: &Known, words: fn(&Hint) -> String) -> Value {
    let resolved = runs.resolved(&record.run);
    let catalogue = palinode::catalogue();
    let yields = |uses: &str| catalogue.get(uses).map(|kind| kind.info().output);
    let places: BTreeMap<&str, usize> =
        record.stages.iter().enumerate().map(|(at, stage)| (stage.instance.as_str(), at)).collect();
    let stage = |(at, stage): (usize, &StageRecord)| {
        let (state, more) = state(stage, words);
        let asked = resolved.as_ref().and_then(|resolved| resolved.stage(&stage.instance));
        let inputs = asked.into_iter().flat_map(|asked| &asked.inputs);
        let inputs: BTreeMap<&String, usize> =
            inputs.filter_map(|(port, from)| Some((port, *places.get(from.as_str())?))).collect();
        let has_result = matches!(stage.state, StageState::Finished(Outcome::Ran | Outcome::Cached));
        let shown = stage.key.filter(|_| has_result).and_then(|key| known.shown(runs, &key));
        let lost = has_result && shown.is_none();
        let shown = shown.map_or_else(
            || Shown::of(&json!({ "metrics": stage.metrics, "columns": stage.columns })),
            |shown| (*shown).clone(),
        );
        json!({
            "at": at,
            "instance": stage.instance,
            "stage": stage.stage,
            "uses": stage.uses,
            "cell": stage.cell,
            "state": state,
            "more": more,
            "seconds": stage.seconds,
            "inputs": inputs,
            "params": asked.map(|asked| &asked.params),
            "shown": of_shown(&shown),
            "lost": lost,
            "published": stage.published.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>(),
            "model": has_result
                && matches!(yields(&stage.uses), Some("model" | "update"))
                && stage.key.is_some_and(|key| known.can_be_asked(runs, &key)),
        })
    };
    let mut told = summary(record);
    told["file"] = json!(record.file);
    told["base"] = json!(record.base);
    told["cost"] = json!(record.cost);
    told["program"] = json!(record.program);
    told["members"] = record.stages.iter().enumerate().map(stage).collect();
    told["live"] = json!(Live::of(runs, &record.run));
    told
}

/// What a result shows: its metrics in their order, and samples.
fn of_shown(shown: &Shown) -> Value {
    let metrics = shown.metrics.clone().unwrap_or_default();
    let columns = shown.shown_columns();
    let columns = columns.iter().filter_map(|column| {
        let interval = shown.intervals.as_ref().and_then(|all| all.get(&column.name));
        Some(json!({
            "name": column.name,
            "label": column.label(),
            "format": column.format,
            "better": column.better(),
            "doc": column.doc,
            "value": value(&metrics, &column.name)?,
            "interval": interval,
        }))
    });
    let samples: Vec<_> = shown.samples.iter().flatten().take(SAMPLES).collect();
    json!({ "columns": columns.collect::<Vec<_>>(), "series": shown.series, "samples": samples, "findings": shown.findings })
}

fn state(stage: &StageRecord, words: fn(&Hint) -> String) -> (&'static str, Value) {
    match &stage.state {
        StageState::Waiting => ("waiting", Value::Null),
        StageState::Working { since_ms } => ("working", json!({ "since_ms": since_ms })),
        StageState::Lost => ("lost", Value::Null),
        StageState::Finished(outcome) => match outcome {
            Outcome::Cached => ("cached", Value::Null),
            Outcome::Ran => ("ran", Value::Null),
            Outcome::Failed { kind: ErrorKind::Interrupted, .. } => ("stopped", Value::Null),
            Outcome::Failed { message, hint, .. } => {
                ("failed", json!({ "message": message, "hint": hint.as_ref().map(words) }))
            }
            Outcome::Skipped { because } => ("not reached", json!({ "because": because })),
            Outcome::NotAsked => ("not selected", Value::Null),
        },
    }
}

/// The end of a stage's log.
pub fn log(runs: &Runs, record: &RunRecord, stage: Option<usize>) -> Option<String> {
    let stage = record.stages.get(stage?)?;
    let Ok(mut file) = File::open(stage_log(&runs.dir(&record.run), &stage.instance)) else {
        return Some(String::new());
    };
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(LOG);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // A first line that is cut says nothing.
    Some(if from > 0 { text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()) } else { text })
}

/// How targets were found: loss by step of each request.
pub fn losses(report: &Report) -> Value {
    let stage = |losses: &palinode_report::Losses| {
        let traces = losses.traces.iter().take(TRACES).map(|trace| json!({ "label": trace.label, "loss": trace.loss }));
        json!({ "instance": losses.instance, "traces": traces.collect::<Vec<_>>(), "of": losses.traces.len() })
    };
    json!({ "losses": report.losses.iter().map(stage).collect::<Vec<_>>() })
}

/// Models that can be asked, those of the newest runs first; each result once.
pub fn models(runs: &Runs, known: &Known) -> Value {
    let catalogue = palinode::catalogue();
    let mut seen = Vec::new();
    let mut models = Vec::new();
    for name in runs.names().into_iter().take(RUNS) {
        let Some(record) = known.record(runs, &name) else { continue };
        for (at, stage) in record.stages.iter().enumerate() {
            let yields = catalogue.get(&stage.uses).map(|kind| kind.info().output);
            let Some(kind @ ("model" | "update")) = yields else { continue };
            let Some(key) = stage.key.filter(|key| !seen.contains(key)) else { continue };
            seen.push(key);
            let has_result = matches!(stage.state, StageState::Finished(Outcome::Ran | Outcome::Cached));
            if !has_result || !known.can_be_asked(runs, &key) {
                continue;
            }
            let pipeline = &record.pipeline;
            let edited = kind == "update";
            models.push(
                json!({ "run": name, "pipeline": pipeline, "at": at, "instance": stage.instance, "edited": edited }),
            );
            if models.len() >= MODELS {
                return json!({ "models": models });
            }
        }
    }
    json!({ "models": models })
}
