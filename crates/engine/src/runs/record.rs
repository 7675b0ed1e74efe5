//! The record of a run.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cost::Cost;
use crate::event::{Event, Outcome};
use palinode_error::ErrorKind;
use palinode_fingerprint::{Digest, Key};
use palinode_store::{Artifact, Published};

/// Version of the record's format.
pub const FORMAT: u32 = 1;

/// What a run was, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this format.
    pub format: u32,
    /// The run's name, which is that of its folder.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file as it was given.
    pub file: String,
    /// Digest of the file's text, without overrides; what ran is in `resolved.yaml`.
    pub file_digest: Digest,
    /// The pipeline's folder; relative paths of published files start here.
    pub base: PathBuf,
    /// The device asked for.
    pub device: String,
    /// Version of the program.
    pub program: String,
    /// The process.
    pub pid: u32,
    /// The host that it ran on.
    pub host: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended; of a lost one, when it was last heard of.
    pub finished_ms: Option<u64>,
    /// How it ended.
    pub ended: Ended,
    /// The axes of its matrix along which the same is only repeated, such as seeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicates: Vec<String>,
    /// Its stage instances in the order of the pipeline.
    pub stages: Vec<StageRecord>,
    /// What it took of the machine, once it ended.
    #[serde(default, skip_serializing_if = "Cost::is_unknown")]
    pub cost: Cost,
    /// Where they are in the list.
    #[serde(skip)]
    pub(crate) places: Places,
}

/// Where stage instances are in a list, which is no part of what a record says: made when it is first asked for.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<String, usize>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Of a record, what results the run made or used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Used {
    /// The run's name.
    pub run: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, or was last heard of.
    pub finished_ms: Option<u64>,
    /// The results.
    pub keys: Vec<Key>,
}

impl Used {
    /// Of the record of a run that ended, without all else that it says; `None` of others, and where it does not read.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Brief {
            format: u32,
            run: String,
            started_ms: u64,
            finished_ms: Option<u64>,
            ended: Ended,
            stages: Vec<Stage>,
        }

        #[derive(Deserialize)]
        struct Stage {
            key: Option<Key>,
        }

        let brief: Brief = serde_json::from_slice(bytes).ok()?;
        (brief.format == FORMAT && brief.ended != Ended::Not).then(|| Self {
            run: brief.run,
            started_ms: brief.started_ms,
            finished_ms: brief.finished_ms,
            keys: brief.stages.into_iter().filter_map(|stage| stage.key).collect(),
        })
    }

    /// Of a whole record.
    pub fn of(record: &RunRecord) -> Self {
        Self {
            run: record.run.clone(),
            started_ms: record.started_ms,
            finished_ms: record.finished_ms,
            keys: record.stages.iter().filter_map(|stage| stage.key).collect(),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It goes on.
    Not,
    /// Every stage that was asked for has its result.
    Done,
    /// A stage failed.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// Its process is gone and did not say goodbye: killed, or the power went. Never written; found when a record is read.
    Lost,
}

/// What a run did with one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The instance, such as `solve[objective=rome]`.
    pub instance: String,
    /// The stage's name in the file.
    pub stage: String,
    /// Its stage kind.
    pub uses: String,
    /// Its values of the axes that it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cell: Vec<(String, Value)>,
    /// How far it got.
    pub state: StageState,
    /// Its key, where it got far enough to have one.
    pub key: Option<Key>,
    /// How long it worked.
    pub seconds: f64,
    /// Content digest of its result: equal ones are equal results.
    pub content: Option<Digest>,
    /// The numbers of its result, where it has some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// How those are titled, formatted and compared, as the stage says.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub columns: Value,
    /// Files that it wrote outside the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// How far an instance got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// Not reached so far.
    Waiting,
    /// At work.
    Working {
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
    /// It was at work when its run was lost.
    Lost,
    /// It has its result, or will not have one.
    Finished(Outcome),
}

impl RunRecord {
    /// Reads a record; `None` when it is damaged or of another format.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.format == FORMAT)
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a record serialises");
        bytes.push(b'\n');
        bytes
    }

    /// What happened to an instance.
    pub fn stage(&self, instance: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.instance == instance)
    }

    /// How long it took, or has been going on until `now_ms`.
    pub fn seconds(&self, now_ms: u64) -> f64 {
        self.finished_ms.unwrap_or(now_ms).saturating_sub(self.started_ms) as f64 / 1000.0
    }

    /// Takes in what happened.
    pub(crate) fn apply(&mut self, at_ms: u64, event: &Event) {
        match event {
            Event::StageStarted { instance, .. } => {
                if let Some(stage) = self.stage_mut(instance) {
                    stage.state = StageState::Working { since_ms: at_ms };
                }
            }
            Event::StageFinished { instance, outcome, key, seconds } => {
                if let Some(stage) = self.stage_mut(instance) {
                    stage.state = StageState::Finished(outcome.clone());
                    stage.key = *key;
                    stage.seconds = *seconds;
                }
            }
            Event::RunFinished { .. } => {
                self.ended = self.end();
                self.finished_ms = Some(at_ms);
            }
            _ => {}
        }
    }

    /// Adds how an instance ended; those that were not reached tell of it only here.
    pub(crate) fn outcome(&mut self, instance: &str, outcome: &Outcome) {
        if let Some(stage) = self.stage_mut(instance) {
            stage.state = StageState::Finished(outcome.clone());
        }
    }

    /// Adds what is known of a result.
    pub(crate) fn result(&mut self, instance: &str, artifact: &Artifact) {
        let Some(stage) = self.stage_mut(instance) else { return };
        let metrics = artifact.meta.get("metrics").and_then(Value::as_object).into_iter().flatten();
        stage.metrics = metrics.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
        stage.columns = artifact.meta.get("columns").cloned().unwrap_or_default();
        stage.content = Some(artifact.digest());
        stage.published.clone_from(&artifact.published);
    }

    /// Its process is gone; it was last heard of at `at_ms`.
    pub(crate) fn lost(&mut self, at_ms: u64) {
        if self.ended != Ended::Not {
            return;
        }
        self.ended = Ended::Lost;
        self.finished_ms = Some(at_ms);
        for stage in &mut self.stages {
            if matches!(stage.state, StageState::Working { .. }) {
                stage.state = StageState::Lost;
            }
        }
    }

    /// How a run ended whose stages ended like this.
    pub(crate) fn end(&self) -> Ended {
        let waiting = self.stages.iter().any(|stage| stage.state == StageState::Waiting);
        let any = |like: fn(&Outcome) -> bool| {
            self.stages.iter().any(|stage| matches!(&stage.state, StageState::Finished(outcome) if like(outcome)))
        };
        if any(|outcome| matches!(outcome, Outcome::Failed { kind, .. } if *kind != ErrorKind::Interrupted)) {
            Ended::Failed
        } else if waiting || any(|outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::Skipped { .. })) {
            Ended::Interrupted
        } else {
            Ended::Done
        }
    }

    /// The instances that have a result of which nothing but the key is known.
    pub(crate) fn unread(&self) -> Vec<(String, Key)> {
        let unread = self.stages.iter().filter(|stage| {
            stage.content.is_none() && matches!(stage.state, StageState::Finished(Outcome::Cached | Outcome::Ran))
        });
        unread.filter_map(|stage| Some((stage.instance.clone(), stage.key?))).collect()
    }

    fn stage_mut(&mut self, instance: &str) -> Option<&mut StageRecord> {
        if self.places.0.is_empty() {
            let places = self.stages.iter().enumerate().rev();
            self.places.0 = places.map(|(at, stage)| (stage.instance.clone(), at)).collect();
        }
        let at = *self.places.0.get(instance)?;
        Some(&mut self.stages[at])
    }
}
