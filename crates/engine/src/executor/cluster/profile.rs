//! What a stage's jobs ask of a cluster: the profile of the user's settings.

use std::collections::BTreeMap;
use std::time::Duration;

use palinode_error::{FieldError, read_size};
use palinode_pipeline::{Resources, limits, read_duration};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;

/// What jobs ask of the cluster, as a profile says it; what is left out is the cluster's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// The partition.
    pub partition: Option<String>,
    /// The account that pays.
    pub account: Option<String>,
    /// How long a job may take, such as `4h`. One that is not done by then saves its units and goes on in another job.
    #[serde(deserialize_with = "duration")]
    pub time: Option<Duration>,
    /// Memory of a job, such as `32G`.
    #[serde(deserialize_with = "bytes")]
    pub memory: Option<u64>,
    /// CPU cores of a job.
    pub cores: Option<u32>,
    /// GPUs of a job: a number, or a kind and a number, such as `a100:1`.
    #[serde(deserialize_with = "text")]
    pub gpus: Option<String>,
    /// In how many jobs the work of one stage is done at most, where it parts.
    pub parts: Option<usize>,
    /// How many jobs of one array run at the same time.
    pub max_running: Option<u32>,
    /// Further options of `sbatch`, as they are.
    pub options: Option<Vec<String>>,
    /// Lines of shell before the work, such as `module load cuda`.
    pub prelude: Option<String>,
}

impl Asked {
    /// The same, with what `more` says in its place.
    fn with(&self, more: &Self) -> Self {
        let (a, b) = (self.clone(), more.clone());
        Self {
            partition: b.partition.or(a.partition),
            account: b.account.or(a.account),
            time: b.time.or(a.time),
            memory: b.memory.or(a.memory),
            cores: b.cores.or(a.cores),
            gpus: b.gpus.or(a.gpus),
            parts: b.parts.or(a.parts),
            max_running: b.max_running.or(a.max_running),
            options: b.options.or(a.options),
            prelude: b.prelude.or(a.prelude),
        }
    }

    /// A time limit in words.
    pub fn time_words(&self) -> String {
        self.time.map_or_else(|| "the cluster's own".to_owned(), limits::written)
    }
}

/// How often and how long jobs are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waits {
    /// How long a file may take to be seen that another machine wrote.
    #[serde(deserialize_with = "seconds")]
    pub files: Duration,
    /// How long a job may be unknown to the cluster before it counts as lost.
    #[serde(deserialize_with = "seconds")]
    pub unknown: Duration,
    /// The shortest time between two looks at the queue.
    #[serde(deserialize_with = "seconds")]
    pub poll: Duration,
    /// The longest one, where nothing happens.
    #[serde(deserialize_with = "seconds")]
    pub poll_most: Duration,
    /// How long before its end a job is told to save what it has.
    #[serde(deserialize_with = "seconds")]
    pub save: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            files: Duration::from_mins(1),
            unknown: Duration::from_mins(1),
            poll: Duration::from_secs(2),
            poll_most: Duration::from_mins(1),
            save: Duration::from_mins(2),
        }
    }
}

/// Where stages run that need next to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Light {
    /// Beside whoever submits: a job takes longer to begin than they take.
    #[default]
    Here,
    /// In jobs, like all others.
    Jobs,
}

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What every job asks.
    pub all: Asked,
    /// What those of a kind of stage ask in its place, by the word after `uses`.
    pub kinds: BTreeMap<String, Asked>,
    /// What those of a stage ask in its place, by its name.
    pub stages: BTreeMap<String, Asked>,
    /// Where light stages run.
    pub light: Light,
    /// How often the memory of a job is doubled that had too little.
    pub more_memory: u32,
    /// Jobs that are in the queue at the same time, at most.
    pub jobs: Option<usize>,
    /// How often and how long jobs are looked after.
    pub waits: Waits,
}

impl Profile {
    /// What a job of a stage asks, where `sooner` jobs of it had too little memory.
    pub fn asked(&self, kind: &str, stage: &str, resources: &Resources, sooner: u32) -> Asked {
        let mut asked = self.all.clone();
        for more in [self.kinds.get(kind), self.stages.get(stage)].into_iter().flatten() {
            asked = asked.with(more);
        }
        if asked.memory.is_none() && resources.memory > 0 {
            asked.memory = Some(resources.memory);
        }
        asked.memory = asked.memory.map(|memory| memory.saturating_mul(1 << sooner.min(20)));
        asked
    }
}

/// What is wrong with a profile that names a kind of stage that is not there. Stages may be of another pipeline.
pub fn unknown_kind(profile: &Profile, kinds: &[&str]) -> Option<FieldError> {
    let wrong = profile.kinds.keys().find(|name| !kinds.contains(&name.as_str()))?;
    let error = FieldError::new("kinds", format!("there is no kind of stage `{wrong}`"));
    Some(match palinode_error::did_you_mean(wrong, kinds.iter().copied()) {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// A value that is written as text or as a number.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(de::Error::custom(format!("`{other}` is neither a text nor a number"))),
    }
}

fn read<T, E: de::Error>(text: &str, read: impl Fn(&str) -> Option<T>, expected: &str) -> Result<T, E> {
    read(text).ok_or_else(|| E::custom(format!("`{text}` is not {expected}")))
}

const DURATION: &str = "a duration such as `90s`, `30m` or `4h`";

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    text(from)?.map(|text| read(&text, read_duration, DURATION)).transpose()
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    read(&text(from)?.unwrap_or_default(), read_duration, DURATION)
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    text(from)?.map(|text| read(&text, read_size, "a size such as `32G`")).transpose()
}
