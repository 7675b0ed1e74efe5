//! Metrics of stages, as their artifacts describe them: `metrics`, `columns`, `intervals` and `series`.

use palinode_report::{Better, Measure, Measured, Metric, Row, Step, Steps};
use serde_json::Value;

use super::Found;
use crate::judge::evaluate::SCORES;

/// Every stage that measured something; scores first.
pub fn all(found: &Found<'_>) -> Vec<Measured> {
    let with = found.artifacts().filter(|(_, artifact)| artifact.meta["metrics"].is_object()).map(|(at, _)| at);
    let mut all: Vec<Measured> =
        found.by_stage(with).into_iter().map(|(stage, members)| one(found, stage, &members)).collect();
    all.sort_by_key(|measured| !measured.result);
    all
}

fn one(found: &Found<'_>, stage: &str, members: &[usize]) -> Measured {
    let artifact = |at: usize| found.manifests[at].as_ref().map(|manifest| &manifest.output);
    let members: Vec<_> = members.iter().filter_map(|&at| Some((at, artifact(at)?))).collect();
    let mut metrics: Vec<Metric> = Vec::new();
    for metric in members.iter().flat_map(|(_, artifact)| self::metrics(&artifact.meta)) {
        if metrics.iter().all(|known| known.name != metric.name) {
            metrics.push(metric);
        }
    }
    let measures = |values: &Value, intervals: &Value| -> Vec<Measure> {
        let measure = |metric: &Metric| Measure {
            value: values[&metric.name].as_f64(),
            interval: interval(&intervals[&metric.name]),
        };
        metrics.iter().map(measure).collect()
    };
    let row = |(at, artifact): &(usize, &palinode_engine::Artifact)| Row {
        cell: found.cell(*at),
        values: measures(&artifact.meta["metrics"], &artifact.meta["intervals"]),
    };
    let rows = members.iter().map(row).collect();
    let mut steps = Steps::default();
    for (row, (_, artifact)) in members.iter().enumerate() {
        let series = &artifact.meta["series"];
        let told = series["rows"].as_array().map_or(&[][..], Vec::as_slice);
        let axes: Vec<String> = series["axes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|axis| Some(axis.as_str()?.to_owned()))
            .collect();
        if steps.axes.is_empty() && !told.is_empty() {
            steps.axes = axes;
        }
        steps.rows.extend(told.iter().map(|step| Step {
            row,
            at: steps.axes.iter().map(|axis| step[axis].as_f64().unwrap_or(f64::NAN)).collect(),
            values: measures(step, &step["intervals"]),
        }));
    }
    Measured {
        stage: stage.to_owned(),
        result: members.iter().any(|(_, artifact)| artifact.kind == SCORES),
        steps: (!steps.rows.is_empty()).then_some(steps),
        metrics,
        rows,
    }
}

fn interval(value: &Value) -> Option<[f64; 2]> {
    Some([value[0].as_f64()?, value[1].as_f64()?])
}

/// The metrics that have a column; all numbers where nothing is said of columns.
pub fn metrics(meta: &Value) -> Vec<Metric> {
    let named: Vec<Metric> = meta["columns"].as_array().into_iter().flatten().filter_map(metric).collect();
    if !named.is_empty() {
        return named;
    }
    let all = meta["metrics"].as_object().into_iter().flatten().filter(|(_, value)| value.is_number());
    all.map(|(name, _)| Metric { name: name.clone(), label: name.clone(), ..Metric::default() }).collect()
}

fn metric(column: &Value) -> Option<Metric> {
    let name = column["name"].as_str()?;
    Some(Metric {
        name: name.to_owned(),
        label: column["label"].as_str().unwrap_or(name).to_owned(),
        doc: column["doc"].as_str().unwrap_or_default().to_owned(),
        percent: column["format"] == "percent",
        better: match column["better"].as_str() {
            Some("max") => Some(Better::Max),
            Some("min") => Some(Better::Min),
            _ => None,
        },
    })
}
