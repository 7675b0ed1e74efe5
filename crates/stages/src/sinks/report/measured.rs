//! Metrics of stages, as their results show them.

use palinode_engine::Kind as _;
use palinode_engine::shown::{self, Column, Format, Intervals, Shown, Values};
use palinode_report::{Better, Measure, Measured, Metric, Row, Step, Steps};

use super::found::Found;
use crate::artifacts::measurements::ScoresKind;

/// Every stage that measured something; scores first.
pub fn all(found: &Found<'_>) -> Vec<Measured> {
    let with = found.artifacts().filter(|(_, artifact)| Shown::of(&artifact.meta).metrics.is_some()).map(|(at, _)| at);
    let mut all: Vec<Measured> =
        found.by_stage(with).into_iter().map(|(stage, members)| one(found, stage, &members)).collect();
    all.sort_by_key(|measured| !measured.result);
    all
}

fn one(found: &Found<'_>, stage: &str, members: &[usize]) -> Measured {
    let artifact = |at: usize| found.manifests[at].as_ref().map(|manifest| &manifest.output);
    let members: Vec<_> = members.iter().filter_map(|&at| Some((at, artifact(at)?))).collect();
    let told: Vec<Shown> = members.iter().map(|(_, artifact)| Shown::of(&artifact.meta)).collect();
    let mut metrics: Vec<Metric> = Vec::new();
    for metric in told.iter().flat_map(self::metrics) {
        if metrics.iter().all(|known| known.name != metric.name) {
            metrics.push(metric);
        }
    }
    let measures = |values: &Values, intervals: &Intervals| -> Vec<Measure> {
        let measure = |metric: &Metric| Measure {
            value: shown::value(values, &metric.name),
            interval: interval(intervals, &metric.name),
        };
        metrics.iter().map(measure).collect()
    };
    let row = |((at, _), told): (&(usize, _), &Shown)| {
        let (values, intervals) =
            (told.metrics.clone().unwrap_or_default(), told.intervals.clone().unwrap_or_default());
        Row { cell: found.cell(*at), values: measures(&values, &intervals) }
    };
    let rows = members.iter().zip(&told).map(row).collect();
    let mut steps = Steps::default();
    for (row, series) in told.iter().enumerate().filter_map(|(row, told)| Some((row, told.series.as_ref()?))) {
        if steps.axes.is_empty() && !series.rows.is_empty() {
            steps.axes.clone_from(&series.axes);
        }
        steps.rows.extend(series.rows.iter().map(|step| Step {
            row,
            at: steps.axes.iter().map(|axis| shown::value(&step.values, axis).unwrap_or(f64::NAN)).collect(),
            values: measures(&step.values, &step.intervals),
        }));
    }
    Measured {
        stage: stage.to_owned(),
        result: members.iter().any(|(_, artifact)| artifact.kind == ScoresKind::NAME),
        steps: (!steps.rows.is_empty()).then_some(steps),
        metrics,
        rows,
    }
}

fn interval(intervals: &Intervals, metric: &str) -> Option<[f64; 2]> {
    let [low, high] = *intervals.get(metric)?;
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
