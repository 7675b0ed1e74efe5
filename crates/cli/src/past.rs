//! Runs that were, in words.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use palinode_engine::{ErrorKind, History, Key, Outcome, PastRun, PastStage};
use serde_json::Value;

use crate::results::{Cell, Yield, metrics};
use crate::terminal::table::Look;
use crate::terminal::{Style, format};

/// How a run ended, or that it did not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    Running,
    /// All that it had to do is done.
    Done,
    /// A stage failed.
    Failed,
    /// The user stopped it.
    Stopped,
    /// Its process ended before it did.
    CutOff,
}

impl Ending {
    /// How a run ended; `holder` is the run that has the store open.
    pub fn of(run: &PastRun, holder: Option<&str>) -> Self {
        let failed = |interrupted: bool| {
            run.count(|outcome| match outcome {
                Outcome::Failed { kind, .. } => (*kind == ErrorKind::Interrupted) == interrupted,
                _ => false,
            }) > 0
        };
        match run.seconds {
            None if holder == Some(&run.id) => Self::Running,
            None => Self::CutOff,
            Some(_) if failed(false) => Self::Failed,
            Some(_) if failed(true) || run.count(|outcome| *outcome == Outcome::Skipped { because: None }) > 0 => {
                Self::Stopped
            }
            Some(_) if run.stages.len() < run.total => Self::Stopped,
            Some(_) => Self::Done,
        }
    }

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::CutOff => "cut off",
        }
    }

    /// How the word is drawn.
    pub fn look(self) -> Look {
        match self {
            Self::Done => Look::Green,
            Self::Failed => Look::Red,
            Self::Running | Self::Stopped | Self::CutOff => Look::Yellow,
        }
    }

    /// The word as it is drawn.
    pub fn drawn(self, style: &Style) -> String {
        match self.look() {
            Look::Green => style.green(self.word()),
            Look::Red => style.red(self.word()),
            _ => style.yellow(self.word()),
        }
    }
}

/// "ran 14, cached 3, failed 1"
pub fn counts(run: &PastRun) -> String {
    let parts = [
        (run.count(|outcome| matches!(outcome, Outcome::Failed { .. })), "failed"),
        (run.count(|outcome| matches!(outcome, Outcome::Ran)), "ran"),
        (run.count(|outcome| matches!(outcome, Outcome::Cached)), "cached"),
        (run.working().count(), "begun"),
        (run.count(|outcome| matches!(outcome, Outcome::Skipped { .. })), "not reached"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} {count}")).collect();
    if parts.is_empty() { "no stages".to_owned() } else { parts.join(", ") }
}

/// How long a run took, or has been going on.
pub fn took(run: &PastRun) -> String {
    let so_far = run.last_ms.saturating_sub(run.started_ms) as f64 / 1000.0;
    format::duration(run.seconds.unwrap_or(so_far))
}

/// "3 min ago"
pub fn ago(ms: u64) -> String {
    format::ago(now_ms().saturating_sub(ms) / 1000)
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The values of axes in the name of an instance, such as `solve[objective=rome,layers=[1,2]]`.
pub fn cell(instance: &str) -> Cell {
    let Some((_, values)) = instance.split_once('[') else { return Vec::new() };
    let values = values.strip_suffix(']').unwrap_or(values);
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, char) in values.char_indices() {
        match char {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&values[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&values[start..]);
    let pair = |part: &str| part.split_once('=').map(|(axis, value)| (axis.to_owned(), Value::from(value)));
    parts.into_iter().filter_map(pair).collect()
}

/// The axes of these cells.
pub fn axes(cells: &[Cell]) -> Vec<String> {
    let mut axes: Vec<String> = Vec::new();
    for (axis, _) in cells.iter().flatten() {
        if !axes.contains(axis) {
            axes.push(axis.clone());
        }
    }
    axes
}

/// Results of past runs; each record is read once.
pub struct Results<'a> {
    history: &'a History,
    known: HashMap<Key, Option<Value>>,
}

impl<'a> Results<'a> {
    /// Those of a store.
    pub fn of(history: &'a History) -> Self {
        Self { history, known: HashMap::new() }
    }

    /// What the result of a stage says of itself.
    pub fn meta(&mut self, stage: &PastStage) -> Option<Value> {
        let key = stage.key.filter(|_| matches!(stage.outcome(), Some(Outcome::Ran | Outcome::Cached)))?;
        let read = || self.history.manifest(&key).map(|manifest| manifest.output.meta);
        self.known.entry(key).or_insert_with(read).clone()
    }

    /// The results with metrics, by stage, in the order of the run.
    pub fn scored(&mut self, run: &PastRun) -> Vec<(String, Vec<(String, Value)>)> {
        let mut groups: Vec<(String, Vec<(String, Value)>)> = Vec::new();
        for stage in &run.stages {
            let Some(meta) = self.meta(stage).filter(|meta| meta["metrics"].is_object()) else { continue };
            let one = (stage.instance.clone(), meta);
            match groups.iter_mut().find(|(name, _)| name == stage.stage()) {
                Some((_, members)) => members.push(one),
                None => groups.push((stage.stage().to_owned(), vec![one])),
            }
        }
        groups
    }

    /// The first metrics of the last stage that has any, at their best.
    pub fn headline(&mut self, run: &PastRun) -> String {
        let groups = self.scored(run);
        let metas = groups.last().map(|(_, members)| members.iter().map(|(_, meta)| meta).collect::<Vec<_>>());
        metrics::headline(&metas.unwrap_or_default())
    }

    /// The tables of all scores of a run, and samples.
    pub fn tables(&mut self, run: &PastRun, style: &Style) -> String {
        let draw = |(name, members): &(String, Vec<(String, Value)>)| {
            let cells: Vec<Cell> = members.iter().map(|(instance, _)| cell(instance)).collect();
            let members: Vec<Yield<'_>> = members
                .iter()
                .zip(&cells)
                .map(|((instance, meta), cell)| Yield { instance, cell, meta })
                .collect();
            crate::results::stage(name, &axes(&cells), &members, style)
        };
        self.scored(run).iter().map(draw).collect()
    }
}

/// Parameters of the instances of a stage, each with its distinct values.
pub fn folded<'a>(
    members: impl Iterator<Item = &'a BTreeMap<String, Value>>,
) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut folded: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for params in members {
        for (name, value) in params {
            let values = folded.entry(name).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells() {
        let check = |instance: &str, expect: &[(&str, &str)]| {
            let cell = super::cell(instance);
            let found: Vec<(&str, &str)> =
                cell.iter().map(|(axis, value)| (axis.as_str(), value.as_str().unwrap_or_default())).collect();
            assert_eq!(found, expect);
        };
        check("solve", &[]);
        check("solve[objective=rome]", &[("objective", "rome")]);
        check("solve[a=[1,2],b={\"x\":[3,4]}]", &[("a", "[1,2]"), ("b", "{\"x\":[3,4]}")]);
    }
}
