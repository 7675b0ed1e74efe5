//! A run with what fed what: its record, joined with the pipeline as it ran.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use serde_json::Value;

use crate::event::Outcome;
use crate::plan::{Plan, PlanEntry, Status};
use crate::runs::{RESOLVED, RunRecord, Runs, StageRecord, StageState};
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::Key;
use palinode_pipeline::{Pipeline, read_value};

/// A run as it was, or, of a pipeline that is only planned, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRun {
    /// Its name; `None` of a plan.
    pub run: Option<String>,
    /// The pipeline's name.
    pub pipeline: String,
    /// What the pipeline is for.
    pub description: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// How long it took; `None` where it did not come to its end.
    pub seconds: Option<f64>,
    /// The host that it ran on.
    pub host: Option<String>,
    /// The pipeline with all values filled in, as YAML.
    pub resolved: String,
    /// The axes of its matrix along which the same is only repeated, such as seeds.
    pub replicates: Vec<String>,
    /// Its stage instances; each comes after those it takes inputs from.
    pub stages: Vec<PastStage>,
}

/// A stage instance of a past run.
#[derive(Clone, Debug, PartialEq)]
pub struct PastStage {
    /// Its name.
    pub instance: String,
    /// The stage's name in the file.
    pub stage: String,
    /// Its values of the axes that it depends on.
    pub cell: Vec<(String, Value)>,
    /// Its stage kind.
    pub uses: String,
    /// The instance at each port, as an index into [`PastRun::stages`].
    pub inputs: BTreeMap<String, usize>,
    /// How it ended; `None` where the run did not get there.
    pub outcome: Option<Outcome>,
    /// Its key, where it got far enough to have one.
    pub key: Option<Key>,
}

impl PastRun {
    /// Of a record of `runs`, with the pipeline that lies beside it.
    ///
    /// # Errors
    /// When that pipeline cannot be read.
    pub fn open(runs: &Runs, record: &RunRecord) -> Result<Self, Error> {
        let path = runs.dir(&record.run).join(RESOLVED);
        let resolved = fs::read_to_string(&path).map_err(|error| Error::io(ErrorKind::Store, "read", &path, error))?;
        Ok(Self::join(record, resolved))
    }

    /// A pipeline whose results are those that the store has of it.
    pub fn planned(pipeline: &Pipeline, plan: &Plan) -> Self {
        let stage = |(instance, entry): (&palinode_pipeline::Instance, &PlanEntry)| {
            let key = match entry.status {
                Status::Cached { key } => Some(key),
                _ => None,
            };
            PastStage {
                instance: instance.name.clone(),
                stage: instance.stage.clone(),
                cell: instance.cell.clone(),
                uses: instance.kind.info().name.to_owned(),
                inputs: instance.inputs.clone(),
                outcome: key.map(|_| Outcome::Cached),
                key,
            }
        };
        Self {
            run: None,
            pipeline: pipeline.name.clone(),
            description: pipeline.description.clone(),
            started_ms: None,
            seconds: None,
            host: None,
            resolved: pipeline.resolved(),
            replicates: pipeline.replicates.clone(),
            stages: pipeline.instances.iter().zip(&plan.entries).map(stage).collect(),
        }
    }

    fn join(record: &RunRecord, resolved: String) -> Self {
        let tree = read_value(&resolved).unwrap_or_default();
        let places: HashMap<&str, usize> =
            record.stages.iter().enumerate().map(|(at, stage)| (stage.instance.as_str(), at)).collect();
        let stage = |(at, stage): (usize, &StageRecord)| {
            let ports = tree["stages"][&stage.instance]["inputs"].as_object().into_iter().flatten();
            // What does not come before it is no input of it: then the two files are not of one run.
            let place = |from: &Value| places.get(from.as_str()?).copied().filter(|from| *from < at);
            PastStage {
                instance: stage.instance.clone(),
                stage: stage.stage.clone(),
                cell: stage.cell.clone(),
                uses: stage.uses.clone(),
                inputs: ports.filter_map(|(port, from)| Some((port.clone(), place(from)?))).collect(),
                outcome: match &stage.state {
                    StageState::Finished(outcome) => Some(outcome.clone()),
                    _ => None,
                },
                key: stage.key,
            }
        };
        Self {
            run: Some(record.run.clone()),
            pipeline: record.pipeline.clone(),
            description: tree["description"].as_str().map(str::to_owned),
            started_ms: Some(record.started_ms),
            seconds: record.finished_ms.map(|ms| ms.saturating_sub(record.started_ms) as f64 / 1000.0),
            host: Some(record.host.clone()),
            resolved,
            replicates: record.replicates.clone(),
            stages: record.stages.iter().enumerate().map(stage).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_and_a_pipeline_make_a_run() {
        let record: RunRecord = serde_json::from_value(json!({
            "format": 1, "run": "r", "pipeline": "p", "file": "p.yaml", "file_digest": "0".repeat(64), "base": "/b",
            "device": "cpu", "program": "0.1.0", "pid": 1, "host": "h", "started_ms": 1000, "finished_ms": 3500,
            "ended": "done",
            "stages": [
                { "instance": "a", "stage": "a", "uses": "load", "state": { "finished": { "is": "cached" } }, "key": null,
                  "seconds": 0.0, "content": null },
                { "instance": "b[x=1]", "stage": "b", "uses": "work", "cell": [["x", 1]], "state": "waiting", "key": null,
                  "seconds": 0.0, "content": null },
            ],
        }))
        .unwrap();
        let yaml =
            "description: d\nstages:\n  a: { inputs: { in: 'b[x=1]' } }\n  b[x=1]: { inputs: { in: a, other: c } }\n";
        let run = PastRun::join(&record, yaml.to_owned());
        assert_eq!((run.description.as_deref(), run.seconds), (Some("d"), Some(2.5)));
        assert_eq!(run.stages[0].inputs, BTreeMap::new(), "an input comes before");
        assert_eq!(run.stages[1].inputs, BTreeMap::from([("in".to_owned(), 0)]));
        assert_eq!((run.stages[0].outcome.clone(), run.stages[1].outcome.clone()), (Some(Outcome::Cached), None));
        assert!(PastRun::join(&record, "stages: 3".to_owned()).stages.iter().all(|stage| stage.inputs.is_empty()));
    }
}
