//! Metrics of stages, as their results show them.

use palinode_engine::shown::{self, Column, Format, Intervals, Shown, Values};
use palinode_engine::{Artifact, Digest, Kind as _};
use palinode_eval::{Best, Repeated, Scored, best, best_apart, mean_and_deviation, over_repetitions, over_values};
use palinode_report::{Better, Cell, Level, Mark, Measure, Measured, Metric, Row, Step, Steps};
use serde::Deserialize;

use super::found::Found;
use super::scored::scored;
use crate::artifacts::measurements::{AGES, ScoresKind};
use crate::judge::evaluate::answers::condensed;

/// What the axis of runs is called.
pub const RUN: &str = "run";

/// More notes that say that there is nothing to say are one.
const NOTES: usize = 6;

/// An instance of one of the runs.
struct Member<'a> {
    cell: Cell,
    artifact: &'a Artifact,
    told: Shown,
    scored: Option<Scored>,
    /// What is left of edits by their age.
    ages: Vec<Age>,
}

/// Edits of one round, at the end.
#[derive(Deserialize)]
struct Age {
    /// Edits that were made after them.
    age: usize,
    metrics: Values,
}

/// Every stage that measured something, in all these runs, each with its name where there are several; scores first.
pub fn all(runs: &[(Option<String>, Found<'_>)]) -> Vec<Measured> {
    let mut stages: Vec<(&str, Vec<Member<'_>>)> = Vec::new();
    let mut replicates: Vec<&str> = Vec::new();
    for (name, found) in runs {
        replicates.extend(found.run.replicates.iter().map(String::as_str));
        for (at, artifact) in found.artifacts() {
            let told = Shown::of(&artifact.meta);
            if told.metrics.is_none() {
                continue;
            }
            let run = name.iter().map(|name| (RUN.to_owned(), Level::Text(name.clone())));
            let place = |digest: &Digest| found.store.blob_path(digest);
            let member = Member {
                cell: run.chain(found.cell(at)).collect(),
                artifact,
                told,
                scored: scored(artifact, |digest| Some(place(digest))),
                ages: if artifact.file(AGES).is_some() {
                    found.read(at, artifact, AGES).unwrap_or_default()
                } else {
                    Vec::new()
                },
            };
            let stage = found.run.stages[at].stage.as_str();
            match stages.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, members)) => members.push(member),
                None => stages.push((stage, vec![member])),
            }
        }
    }
    let mut all: Vec<Measured> = stages.iter().map(|(stage, members)| one(stage, members, &replicates)).collect();
    all.sort_by_key(|measured| !measured.result);
    all
}

/// Members that differ in nothing but what is repeated, in the order of the first of each; and what the repetitions are called.
fn repetitions<'a>(members: &'a [Member<'a>], replicates: &[&str]) -> Vec<(Cell, Vec<(String, usize)>)> {
    let mut groups: Vec<(Cell, Vec<(String, usize)>)> = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let (own, repeated): (Cell, Cell) =
            member.cell.iter().cloned().partition(|(axis, _)| !replicates.contains(&axis.as_str()));
        let called = repeated.iter().map(|(axis, level)| format!("{axis}={level}")).collect::<Vec<_>>().join(",");
        match groups.iter_mut().find(|(cell, _)| *cell == own) {
            Some((_, members)) => members.push((called, at)),
            None => groups.push((own, vec![(called, at)])),
        }
    }
    groups
}

/// The axes of repetition that these members have, each once: several runs may name the same.
fn repeated_axes(members: &[Member<'_>], replicates: &[&str]) -> Vec<String> {
    let mut axes: Vec<String> = Vec::new();
    for &axis in replicates {
        let has = members.iter().any(|member| member.cell.iter().any(|(name, _)| name == axis));
        if has && axes.iter().all(|known| known != axis) {
            axes.push(axis.to_owned());
        }
    }
    axes
}

/// "seed 1", where all members have one value of what is repeated.
fn alone(members: &[Member<'_>], replicates: &[&str]) -> String {
    let of = |member: &Member<'_>| -> Vec<String> {
        let repeated = member.cell.iter().filter(|(axis, _)| replicates.contains(&axis.as_str()));
        repeated.map(|(axis, level)| format!("{axis} {level}")).collect()
    };
    let first = members.first().map(of).unwrap_or_default();
    if members.iter().all(|member| of(member) == first) { first.join(", ") } else { String::new() }
}

fn one(stage: &str, members: &[Member<'_>], replicates: &[&str]) -> Measured {
    let mut metrics: Vec<Metric> = Vec::new();
    for metric in members.iter().flat_map(|member| self::metrics(&member.told)) {
        if metrics.iter().all(|known| known.name != metric.name) {
            metrics.push(metric);
        }
    }
    let groups = repetitions(members, replicates);
    let repeated = groups.iter().any(|(_, members)| members.len() > 1);
    let scores: Vec<Option<Repeated<'_>>> = groups
        .iter()
        .map(|(_, group)| {
            group.iter().map(|(called, at)| Some((called.clone(), members[*at].scored.as_ref()?))).collect()
        })
        .collect();
    let rows = groups.iter().zip(&scores).map(|((cell, group), scores)| {
        let measure = |metric: &Metric| {
            let told = || group.iter().map(|(_, at)| &members[*at].told);
            let values: Vec<f64> = told().filter_map(|told| told.metric(&metric.name)).collect();
            let (value, spread) = mean_and_deviation(&values).unzip();
            let of_records = scores.iter().flatten().filter_map(|(_, scored)| scored.n(&metric.name));
            let n = of_records.chain(told().filter_map(|told| told.count(&metric.name))).max().filter(|n| *n > 0);
            let interval = match group.as_slice() {
                [(_, one)] => interval(members[*one].told.intervals.as_ref(), &metric.name),
                _ => over_repetitions(scores.as_ref(), &metric.name, &values, n.filter(|_| metric.percent)),
            };
            Measure { value, interval, spread: spread.flatten(), n }
        };
        Row { cell: cell.clone(), repetitions: group.len(), values: metrics.iter().map(measure).collect() }
    });
    let rows: Vec<Row> = rows.collect();
    let all: Option<Vec<Repeated<'_>>> = scores.iter().cloned().collect();
    let mark = |(at, metric): (usize, &Metric)| {
        let Some(least) = metric.better.map(|better| better == Better::Min) else { return Mark::Untested };
        let apart = || {
            let known = rows.iter().map(|row| Some((row.values[at].value?, row.values[at].interval?)));
            known.collect::<Option<Vec<_>>>().map_or(Best::Untested, |known| best_apart(&known, least))
        };
        let found = all.as_ref().map_or(Best::Untested, |all| best(all, &metric.name, least));
        match if found == Best::Untested { apart() } else { found } {
            Best::Untested => Mark::Untested,
            Best::NotShown => Mark::None,
            Best::Shown(row) => Mark::Row(row),
        }
    };
    let steps = steps(&groups, members, &metrics);
    let retention = retention(&groups, members, &metrics);
    let noted = || members.iter().filter(|member| member.told.notes.is_some()).count() > 1;
    let named = noted();
    let notes = members.iter().flat_map(|member| {
        let cell = if named { palinode_report::cell_name(&member.cell) } else { String::new() };
        member.told.notes.iter().flatten().map(move |note| (cell.clone(), note.clone()))
    });
    Measured {
        stage: stage.to_owned(),
        notes: condensed(notes.collect(), NOTES),
        retention,
        result: members.iter().any(|member| member.artifact.kind == ScoresKind::NAME),
        steps: (!steps.rows.is_empty()).then_some(steps),
        marks: metrics.iter().enumerate().map(mark).collect(),
        alone: if repeated { String::new() } else { alone(members, replicates) },
        repeated: if repeated { repeated_axes(members, replicates) } else { Vec::new() },
        metrics,
        rows,
    }
}

/// What was measured on the way; of repetitions, the mean of those that came to a step.
fn steps(groups: &[(Cell, Vec<(String, usize)>)], members: &[Member<'_>], metrics: &[Metric]) -> Steps {
    let mut steps = Steps::default();
    for (row, (_, group)) in groups.iter().enumerate() {
        let series = || group.iter().filter_map(|(_, at)| members[*at].told.series.as_ref());
        let Some(first) = series().find(|series| !series.rows.is_empty()) else { continue };
        if steps.axes.is_empty() {
            steps.axes.clone_from(&first.axes);
        }
        let place = |step: &shown::Step| -> Vec<f64> {
            steps.axes.iter().map(|axis| shown::value(&step.values, axis).unwrap_or(f64::NAN)).collect()
        };
        let mut places: Vec<(Vec<f64>, Vec<&shown::Step>)> = Vec::new();
        for step in series().flat_map(|series| &series.rows) {
            let at = place(step);
            match places.iter_mut().find(|(known, _)| *known == at) {
                Some((_, same)) => same.push(step),
                None => places.push((at, vec![step])),
            }
        }
        let found = places.into_iter().map(|(at, same)| {
            let measure = |metric: &Metric| {
                let values: Vec<f64> =
                    same.iter().filter_map(|step| shown::value(&step.values, &metric.name)).collect();
                let (value, spread) = mean_and_deviation(&values).unzip();
                let interval = match same.as_slice() {
                    [one] => interval(Some(&one.intervals), &metric.name),
                    _ => over_values(&values, is_share(metric)),
                };
                Measure { value, interval, spread: spread.flatten(), n: None }
            };
            Step { row, at, values: metrics.iter().map(measure).collect() }
        });
        let found: Vec<Step> = found.collect();
        steps.rows.extend(found);
    }
    steps
}

/// A ratio that may exceed 1 is neither better nor worse.
fn is_share(metric: &Metric) -> bool {
    metric.percent && metric.better.is_some()
}

/// What is left of edits by their age; of repetitions, the mean.
fn retention(groups: &[(Cell, Vec<(String, usize)>)], members: &[Member<'_>], metrics: &[Metric]) -> Option<Steps> {
    let mut steps = Steps { axes: vec!["later edits".to_owned()], rows: Vec::new() };
    for (row, (_, group)) in groups.iter().enumerate() {
        let mut ages: Vec<usize> = group.iter().flat_map(|(_, at)| &members[*at].ages).map(|age| age.age).collect();
        ages.sort_unstable();
        ages.dedup();
        for age in ages {
            let same = || group.iter().flat_map(|(_, at)| &members[*at].ages).filter(|known| known.age == age);
            let measure = |metric: &Metric| {
                let values: Vec<f64> = same().filter_map(|age| shown::value(&age.metrics, &metric.name)).collect();
                let (value, spread) = mean_and_deviation(&values).unzip();
                Measure {
                    value,
                    spread: spread.flatten(),
                    interval: over_values(&values, is_share(metric)),
                    ..Measure::default()
                }
            };
            steps.rows.push(Step { row, at: vec![age as f64], values: metrics.iter().map(measure).collect() });
        }
    }
    (!steps.rows.is_empty()).then_some(steps)
}

fn interval(intervals: Option<&Intervals>, metric: &str) -> Option<[f64; 2]> {
    let [low, high] = *intervals?.get(metric)?;
    Some([low?, high?])
}

/// The metrics that have a column; all numbers where nothing is said of columns.
pub fn metrics(told: &Shown) -> Vec<Metric> {
    told.shown_columns().iter().map(metric).collect()
}

fn metric(column: &Column) -> Metric {
    Metric {
        name: column.name.clone(),
        label: column.label().to_owned(),
        doc: column.doc.clone().unwrap_or_default(),
        percent: column.format == Format::Percent,
        better: column.better().map(|better| match better {
            shown::Better::Max => Better::Max,
            shown::Better::Min => Better::Min,
        }),
    }
}
