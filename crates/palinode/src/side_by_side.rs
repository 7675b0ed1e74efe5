//! Runs side by side: for each arm of a run, its parameters and its metrics by name.
//!
//! An arm is a cell of a run's matrix: what one compares. A run without a matrix is one arm. Everything is read from records and resolved
//! pipelines, so that results need not be there any more.

use std::collections::{BTreeMap, BTreeSet};

use palinode_engine::shown::{Better, Format, Shown};
use palinode_engine::{Digest, Outcome, ResolvedPipeline, RunRecord, Runs, StageRecord, StageState};
use serde::Serialize;
use serde_json::{Value, json};

/// Characters of a value that is a list or a table; a longer one is cut, and told apart by its digest.
const LONG: usize = 120;

/// What a field of an arm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An axis of the run's matrix.
    Axis,
    /// A metric.
    Metric,
    /// A parameter of a stage.
    Parameter,
}

/// A field that arms have a value of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Field {
    /// Its name: `stage.name`, or an axis.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its place among the metrics of its stage, as tables have them; those in no table come last.
    pub order: Option<usize>,
    /// A metric's title.
    pub label: Option<String>,
    /// How a metric is written.
    pub format: Option<Format>,
    /// Which values of a metric are better.
    pub better: Option<Better>,
    /// What a metric says.
    pub doc: Option<String>,
}

/// An arm of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arm {
    /// The run.
    pub run: String,
    /// Values of axes.
    pub cell: Vec<(String, Value)>,
    /// Values by the names of fields.
    pub values: BTreeMap<String, Value>,
}

/// Arms, and the fields that they have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SideBySide {
    /// By name.
    pub fields: BTreeMap<String, Field>,
    /// In the order of runs, and of the matrix within a run.
    pub arms: Vec<Arm>,
}

impl SideBySide {
    /// The arms of a run. What is not known of one that goes on is left out.
    pub fn of(runs: &Runs, record: &RunRecord) -> Self {
        let resolved = runs.resolved(&record.run);
        let mut all = Self::default();
        for cell in cells(record) {
            let members: Vec<&StageRecord> = record.stages.iter().filter(|stage| within(&stage.cell, cell)).collect();
            let mut values = BTreeMap::new();
            for (axis, value) in cell {
                all.field(axis, Role::Axis);
                values.insert(axis.clone(), value.clone());
            }
            for stage in &members {
                all.metrics(stage, &mut values);
            }
            if let Some(resolved) = &resolved {
                all.parameters(resolved, &members, &mut values);
            }
            all.arms.push(Arm { run: record.run.clone(), cell: cell.to_vec(), values });
        }
        all
    }

    /// Adds arms of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, field) in &other.fields {
            self.fields.entry(name.clone()).or_insert_with(|| field.clone());
        }
        self.arms.extend(other.arms.iter().cloned());
    }

    fn field(&mut self, name: &str, role: Role) -> &mut Field {
        self.fields.entry(name.to_owned()).or_insert_with(|| Field {
            name: name.to_owned(),
            role,
            order: None,
            label: None,
            format: None,
            better: None,
            doc: None,
        })
    }

    fn metrics(&mut self, stage: &StageRecord, values: &mut BTreeMap<String, Value>) {
        if stage.metrics.is_empty() {
            return;
        }
        let columns = Shown::of(&json!({ "columns": stage.columns })).columns.unwrap_or_default();
        for (metric, value) in &stage.metrics {
            let name = format!("{}.{metric}", stage.stage);
            let field = self.field(&name, Role::Metric);
            let column = columns.iter().enumerate().find(|(_, column)| column.name == *metric);
            if let Some((order, column)) = column {
                (field.order, field.label) = (Some(order), Some(column.label().to_owned()));
                (field.format, field.better, field.doc) = (Some(column.format), column.better(), column.doc.clone());
            }
            values.insert(name, json!(value));
        }
    }

    fn parameters(
        &mut self,
        resolved: &ResolvedPipeline,
        members: &[&StageRecord],
        values: &mut BTreeMap<String, Value>,
    ) {
        let mut seen = BTreeSet::new();
        for stage in members.iter().filter(|stage| seen.insert(&stage.instance)) {
            let Some(known) = resolved.stage(&stage.instance) else { continue };
            for (param, value) in &known.params {
                let name = format!("{}.{param}", stage.stage);
                self.field(&name, Role::Parameter);
                values.insert(name, short(value));
            }
        }
    }
}

/// The cells of a run that are part of no other, in the order of the run, as far as it was about them; a single empty one where there is no matrix.
fn cells(record: &RunRecord) -> Vec<&[(String, Value)]> {
    let mut cells: Vec<&[(String, Value)]> = Vec::new();
    for stage in &record.stages {
        let asked = stage.state != StageState::Finished(Outcome::NotAsked);
        if asked && !cells.contains(&stage.cell.as_slice()) {
            cells.push(&stage.cell);
        }
    }
    // Of one that has the most axes nothing is larger: only the smaller ones have to be looked for.
    let most = cells.iter().map(|cell| cell.len()).max().unwrap_or(0);
    let whole = |cell: &&[(String, Value)]| {
        cell.len() == most || !cells.iter().any(|other| other.len() > cell.len() && within(cell, other))
    };
    let kept: Vec<_> = cells.iter().copied().filter(|cell| whole(cell)).collect();
    if kept.is_empty() { vec![&[]] } else { kept }
}

/// Whether a stage of the first cell is one of the second's: it has the same value at each of its axes.
fn within(cell: &[(String, Value)], of: &[(String, Value)]) -> bool {
    cell.iter().all(|level| of.contains(level))
}

/// A value that a table can show.
fn short(value: &Value) -> Value {
    if !value.is_array() && !value.is_object() && !value.is_string() {
        return value.clone();
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= LONG {
        return text.into();
    }
    let cut: String = text.chars().take(LONG).collect();
    format!("{cut}… ({})", &Digest::of(text.as_bytes()).short()[..8]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_a_cell_that_is_part_of_no_other() {
        let stage = |instance: &str, cell: Value| {
            json!({ "instance": instance, "stage": "s", "uses": "u", "cell": cell, "state": "waiting", "key": null,
                    "seconds": 0.0, "content": null })
        };
        let record: RunRecord = serde_json::from_value(json!({
            "format": 1, "run": "r", "pipeline": "p", "file": "p.yaml", "file_digest": "0".repeat(64), "base": "/b",
            "device": "cpu", "program": "0.1.0", "pid": 1, "host": "h", "started_ms": 1, "finished_ms": null, "ended": "done",
            "stages": [stage("a", json!([])), stage("b[x=1]", json!([["x", 1]])), stage("b[x=2]", json!([["x", 2]])),
                       stage("c[x=1,y=1]", json!([["x", 1], ["y", 1]]))],
        }))
        .unwrap();
        let found: Vec<usize> = cells(&record).iter().map(|cell| cell.len()).collect();
        assert_eq!(found, [1, 2], "x=2 by itself, x=1 with y=1");
    }

    #[test]
    fn long_values_stay_apart() {
        let (a, b) = ("a".repeat(200), "a".repeat(201));
        assert_ne!(short(&json!(a)), short(&json!(b)));
        assert_eq!(short(&json!([1, 2])), json!("[1,2]"));
    }
}
