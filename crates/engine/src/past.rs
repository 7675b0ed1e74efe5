//! Runs that were: what a run's folder tells of it afterwards.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Key;
use crate::error::{ErrorKind, StageError};
use crate::event::{Event, Outcome};
use crate::pipeline::{Pipeline, instance_name, read_yaml};
use crate::plan::{Plan, Status};
use crate::store::Store;
use crate::suggest::did_you_mean;

/// A run as it was, or, of a pipeline that is only planned, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRun {
    /// Its id; `None` of a plan.
    pub run: Option<String>,
    /// The pipeline's name.
    pub pipeline: String,
    /// What the pipeline is for.
    pub description: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// How long it took; `None` where it did not come to its end.
    pub seconds: Option<f64>,
    /// The pipeline with all values filled in, as YAML.
    pub resolved: String,
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

#[derive(Deserialize)]
struct Line {
    at_ms: u64,
    #[serde(flatten)]
    event: Event,
}

impl PastRun {
    /// A pipeline whose results are those that the store has of it.
    pub fn planned(pipeline: &Pipeline, plan: &Plan) -> Self {
        let stage = |(instance, entry): (&crate::Instance, &crate::PlanEntry)| PastStage {
            instance: instance.name.clone(),
            stage: instance.stage.clone(),
            cell: instance.cell.clone(),
            uses: instance.kind.info().name.to_owned(),
            inputs: instance.inputs.clone(),
            outcome: matches!(entry.status, Status::Cached { .. }).then_some(Outcome::Cached),
            key: match entry.status {
                Status::Cached { key } => Some(key),
                _ => None,
            },
        };
        Self {
            run: None,
            pipeline: pipeline.name.clone(),
            description: pipeline.description.clone(),
            started_ms: None,
            seconds: None,
            resolved: pipeline.resolved(),
            stages: pipeline.instances.iter().zip(&plan.entries).map(stage).collect(),
        }
    }
}

impl Store {
    /// The ids of runs, newest first.
    pub fn runs(&self) -> Vec<String> {
        let folders = fs::read_dir(self.root().join("runs")).into_iter().flatten().flatten();
        let names = folders.filter(|entry| entry.path().join(crate::log::NAME).is_file());
        let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by(|a, b| b.cmp(a));
        names
    }

    /// A run by its id, or by a beginning of it that no other run shares.
    ///
    /// # Errors
    /// When there is no such run, several, or its folder cannot be read.
    pub fn past(&self, run: &str) -> Result<PastRun, StageError> {
        let all = self.runs();
        let like: Vec<&String> = all.iter().filter(|id| id.starts_with(run)).collect();
        let id = match like.as_slice() {
            _ if all.iter().any(|id| id == run) => run,
            [one] => one,
            [] => {
                let error = StageError::new(ErrorKind::Usage, format!("there is no run `{run}`"));
                let newest = || all.first().map(|id| format!("the newest run is {id}"));
                let hint = did_you_mean(run, all.iter().map(String::as_str)).or_else(newest);
                return Err(error.hint(hint.unwrap_or_else(|| "nothing has run in this store yet".to_owned())));
            }
            [newest, ..] => {
                let error =
                    StageError::new(ErrorKind::Usage, format!("`{run}` begins the names of {} runs", like.len()));
                return Err(error.hint(format!("the newest of them is {newest}")));
            }
        };
        let dir = self.run_dir(id);
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|error| StageError::io(ErrorKind::Store, "read", &path, error))
        };
        Ok(past(id, &read(crate::log::NAME)?, read("pipeline.yaml")?))
    }
}

/// From the event log and the resolved pipeline. Lines that a power cut left unfinished are passed over.
fn past(id: &str, log: &str, resolved: String) -> PastRun {
    let tree = read_yaml(&resolved).unwrap_or_default();
    let mut run = PastRun {
        run: Some(id.to_owned()),
        pipeline: tree["name"].as_str().unwrap_or(id).to_owned(),
        description: tree["description"].as_str().map(str::to_owned),
        started_ms: None,
        seconds: None,
        resolved,
        stages: Vec::new(),
    };
    let mut ends: HashMap<String, (Outcome, Option<Key>)> = HashMap::new();
    let mut order: Vec<String> = Vec::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        match line.event {
            Event::RunStarted { .. } => run.started_ms = Some(line.at_ms),
            Event::RunFinished { seconds, .. } => run.seconds = Some(seconds),
            Event::StageFinished { instance, outcome, key, .. } => {
                order.push(instance.clone());
                ends.insert(instance, (outcome, key));
            }
            _ => {}
        }
    }
    let none = serde_json::Map::new();
    let stages = tree["stages"].as_object().unwrap_or(&none);
    let mut wanted: Vec<&str> = order.iter().map(String::as_str).chain(stages.keys().map(String::as_str)).collect();
    let mut known: HashMap<String, usize> = HashMap::new();
    // Those that ran are in order; each of the others waits until what it takes from has its place.
    while !wanted.is_empty() {
        let before = wanted.len();
        let mut waiting = Vec::new();
        for name in std::mem::take(&mut wanted) {
            let Some(stage) = stages.get(name).filter(|_| !known.contains_key(name)) else { continue };
            let ports = stage["inputs"].as_object().unwrap_or(&none);
            let inputs = ports.iter().map(|(port, from)| Some((port.clone(), *known.get(from.as_str()?)?)));
            let Some(inputs) = inputs.collect::<Option<BTreeMap<_, _>>>() else {
                waiting.push(name);
                continue;
            };
            known.insert(name.to_owned(), run.stages.len());
            let (stage_name, cell) = instance_name(name);
            let (outcome, key) = ends.remove(name).map_or((None, None), |(outcome, key)| (Some(outcome), key));
            run.stages.push(PastStage {
                instance: name.to_owned(),
                stage: stage_name,
                cell,
                uses: stage["uses"].as_str().unwrap_or_default().to_owned(),
                inputs,
                outcome,
                key,
            });
        }
        if waiting.len() == before {
            break;
        }
        wanted = waiting;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_and_a_pipeline_make_a_run() {
        let resolved = "name: p\nstages:\n  a: { uses: load }\n  b[x=1]: { uses: work, inputs: { in: a } }\n  \
                        c[x=1]: { uses: end, inputs: { in: 'b[x=1]' } }\n";
        let key = "0".repeat(64);
        let log = format!(
            "{{\"at_ms\":5,\"event\":\"run_started\",\"run\":\"r\",\"pipeline\":\"p\",\"stages\":3}}\n\
             {{\"at_ms\":6,\"event\":\"stage_finished\",\"instance\":\"a\",\"outcome\":{{\"is\":\"ran\"}},\"key\":\"{key}\",\"seconds\":1.5}}\n\
             {{\"at_ms\":7,\"event\":\"stage_fin"
        );
        let run = past("r", &log, resolved.to_owned());
        assert_eq!((run.pipeline.as_str(), run.started_ms, run.seconds), ("p", Some(5), None));
        let names: Vec<&str> = run.stages.iter().map(|stage| stage.instance.as_str()).collect();
        assert_eq!(names, ["a", "b[x=1]", "c[x=1]"]);
        assert_eq!(run.stages[0].outcome, Some(Outcome::Ran));
        assert_eq!(run.stages[1].cell, [("x".to_owned(), Value::from(1))]);
        assert_eq!((run.stages[2].outcome.clone(), run.stages[2].inputs["in"]), (None, 1));
    }

    #[test]
    fn garbage_is_a_run_of_nothing() {
        for (log, resolved) in [("", ""), ("{}\nxx", "stages: 3"), ("", "stages: { a: { inputs: { in: a } } }")] {
            assert_eq!(past("r", log, resolved.to_owned()).stages, []);
        }
    }
}
