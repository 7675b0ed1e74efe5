//! Runs that were, in words.

use std::collections::{BTreeMap, HashMap, HashSet};

use palinode::shown::Shown;
use palinode::{Ended, ErrorKind, Key, Outcome, RunRecord, Runs, Scored, StageRecord, StageState, now_ms};
use serde_json::{Value, json};

use crate::command_error;
use crate::results::traced;
use crate::results::{Cell, Yield, metrics};
use crate::terminal::table::Look;
use crate::terminal::{Style, complain, format};

/// Says which records of runs do not read: they are in no list.
pub fn tell_unread(runs: &Runs) {
    let unread = runs.unread();
    if let Some((name, why)) = unread.first() {
        let more = if unread.len() > 1 { format!(", and {} more", unread.len() - 1) } else { String::new() };
        let mark = Style::stderr().yellow("!");
        complain(&format!("{mark} records of runs do not read, and are left out: {name}: {why}{more}\n"));
    }
}

/// How a run ended, in a word, and how the word is drawn.
pub fn ending(run: &RunRecord) -> (&'static str, Look) {
    match run.ended {
        Ended::Not => ("running", Look::Yellow),
        Ended::Done => ("done", Look::Green),
        Ended::Failed => ("failed", Look::Red),
        Ended::Interrupted => ("stopped", Look::Yellow),
        Ended::Lost => ("lost", Look::Yellow),
    }
}

/// How a run ended, drawn.
pub fn ending_drawn(run: &RunRecord, style: &Style) -> String {
    match ending(run) {
        (word, Look::Green) => style.green(word),
        (word, Look::Red) => style.red(word),
        (word, _) => style.yellow(word),
    }
}

/// Number of stages of a run that ended like this.
pub fn count(run: &RunRecord, like: impl Fn(&Outcome) -> bool) -> usize {
    run.stages.iter().filter_map(outcome).filter(|outcome| like(outcome)).count()
}

/// Whether the user stopped it, rather than something going wrong.
pub fn is_stopped(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { kind: ErrorKind::Interrupted, .. })
}

/// Whether something went wrong.
pub fn is_failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { .. }) && !is_stopped(outcome)
}

/// How a stage ended, if it did.
pub fn outcome(stage: &StageRecord) -> Option<&Outcome> {
    match &stage.state {
        StageState::Finished(outcome) => Some(outcome),
        _ => None,
    }
}

/// A run with the hints of what failed in words.
pub fn in_words(run: &RunRecord) -> RunRecord {
    let mut run = run.clone();
    for stage in &mut run.stages {
        if let StageState::Finished(outcome) = &mut stage.state {
            *outcome = command_error::in_words(outcome);
        }
    }
    run
}

/// "ran 14, cached 3, failed 1"
pub fn counts(run: &RunRecord) -> String {
    let at_work = |stage: &&StageRecord| matches!(stage.state, StageState::Working { .. } | StageState::Lost);
    let waiting = run.stages.iter().filter(|stage| stage.state == StageState::Waiting).count();
    let parts = [
        (count(run, is_failed), "failed"),
        (count(run, is_stopped), "stopped"),
        (count(run, |outcome| matches!(outcome, Outcome::Ran)), "ran"),
        (count(run, |outcome| matches!(outcome, Outcome::Cached)), "cached"),
        (run.stages.iter().filter(at_work).count(), "begun"),
        (waiting + count(run, |outcome| matches!(outcome, Outcome::Skipped { .. })), "not reached"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} {count}")).collect();
    if parts.is_empty() { "no stages".to_owned() } else { parts.join(", ") }
}

/// "after 12 s": how long a run took, or has been going on. A lost one told nothing of its end.
pub fn took(run: &RunRecord) -> String {
    let time = format::duration(run.seconds(now_ms()));
    if run.ended == Ended::Lost { format!("(last heard of after {time})") } else { format!("after {time}") }
}

/// "3 min ago"
pub fn ago(ms: u64) -> String {
    format::ago(now_ms().saturating_sub(ms) / 1000)
}

/// The axes of these cells.
pub fn axes<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<String> {
    let mut axes: Vec<String> = Vec::new();
    for (axis, _) in cells.flatten() {
        if !axes.contains(axis) {
            axes.push(axis.clone());
        }
    }
    axes
}

/// Results of runs; each is read once.
pub struct Results<'a> {
    runs: &'a Runs,
    known: HashMap<Key, Option<Shown>>,
}

impl<'a> Results<'a> {
    /// Those of a store.
    pub fn of(runs: &'a Runs) -> Self {
        Self { runs, known: HashMap::new() }
    }

    /// What the result of a stage shows; of one that is no longer in the store, what the run wrote down.
    pub fn shown(&mut self, stage: &StageRecord) -> Option<Shown> {
        let key = stage.key.filter(|_| matches!(outcome(stage), Some(Outcome::Ran | Outcome::Cached)))?;
        let read = || self.runs.manifest(&key).map(|manifest| Shown::of(&manifest.output.meta));
        let found = self.known.entry(key).or_insert_with(read).clone();
        found.or_else(|| numbers(stage))
    }

    /// The scores of a stage record by record, where its result is in the store and has some.
    pub fn scored(&self, stage: &StageRecord) -> Option<Scored> {
        let key = stage.key.filter(|_| matches!(outcome(stage), Some(Outcome::Ran | Outcome::Cached)))?;
        palinode::scored(&self.runs.manifest(&key)?.output, |digest| Some(self.runs.blob_path(digest)))
    }

    /// The tables of all scores of a run, and samples.
    pub fn tables<'r>(&mut self, run: &'r RunRecord, style: &Style) -> String {
        let mut text = String::new();
        for (name, members) in scored(run) {
            let yielded = |stage: &&'r StageRecord| {
                let shown = self.shown(stage).unwrap_or_default();
                let traced = stage.key.and_then(|key| traced::of(&self.runs.manifest(&key)?.output.meta));
                Yield { instance: &stage.instance, cell: &stage.cell, shown, traced, scored: self.scored(stage) }
            };
            let members: Vec<Yield<'_>> = members.iter().map(yielded).collect();
            text.push_str(&crate::results::stage(
                name,
                &axes(members.iter().map(|member| member.cell)),
                &run.replicates,
                &members,
                style,
            ));
        }
        text
    }
}

/// The metrics of a stage as its result says them.
fn numbers(stage: &StageRecord) -> Option<Shown> {
    (!stage.metrics.is_empty()).then(|| Shown::of(&json!({ "metrics": stage.metrics, "columns": stage.columns })))
}

/// The stages with metrics, in the order of the run.
fn scored(run: &RunRecord) -> Vec<(&str, Vec<&StageRecord>)> {
    let mut groups: Vec<(&str, Vec<&StageRecord>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for stage in run.stages.iter().filter(|stage| !stage.metrics.is_empty()) {
        let at = *known.entry(&stage.stage).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((_, members)) => members.push(stage),
            None => groups.push((&stage.stage, vec![stage])),
        }
    }
    groups
}

/// The first metrics, at their best, of the stage that judges the most: of which most is known what would be better.
pub fn headline(run: &RunRecord) -> String {
    let groups = scored(run);
    let judged = |(_, members): &&(&str, Vec<&StageRecord>)| {
        let shown = members.first().and_then(|stage| numbers(stage)).unwrap_or_default();
        metrics::metrics_of(&shown).iter().filter(|metric| metric.better.is_some()).count()
    };
    let chosen = groups.iter().max_by_key(judged);
    let results = chosen.map(|(_, members)| members.iter().filter_map(|stage| numbers(stage)).collect::<Vec<_>>());
    metrics::headline(&results.unwrap_or_default())
}

/// Parameters of the instances of a stage, each with its distinct values.
pub fn folded<'a>(members: impl Iterator<Item = &'a BTreeMap<String, Value>>) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut folded: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let mut known = HashSet::new();
    for params in members {
        for (name, value) in params {
            let values = folded.entry(name).or_default();
            if known.insert((name, value)) {
                values.push(value);
            }
        }
    }
    folded
}
