//! Runs that were, in words.

use std::collections::{BTreeMap, HashMap, HashSet};

use palinode::shown::{self, Shown};
use palinode::{
    Ended, ErrorKind, Key, Outcome, RunRecord, Runs, Scored, StageRecord, StageState, mean_and_deviation, now_ms,
};
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
    // The best of many repetitions is luck: each experiment stands with its mean.
    let mut experiments: Vec<(String, Vec<Shown>)> = Vec::new();
    for stage in chosen.iter().flat_map(|(_, members)| members) {
        let (name, Some(shown)) = (experiment(run, &stage.instance), numbers(stage)) else { continue };
        match experiments.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(shown),
            None => experiments.push((name, vec![shown])),
        }
    }
    metrics::headline(&experiments.iter().filter_map(|(_, members)| mean_of(members)).collect::<Vec<_>>())
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

/// A stage's name and the values of axes behind it, `scores[objective=rome,layers=[1,2]]`; `None` where no axis is named.
pub fn parts(name: &str) -> Option<(&str, Vec<&str>)> {
    let (stage, inside) = name.strip_suffix(']')?.split_once('[')?;
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, char) in inside.char_indices() {
        match char {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(inside[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(inside[from..].trim());
    Some((stage, parts))
}

/// An instance without the values of what its pipeline repeats: what its repetitions have in common.
pub fn experiment(run: &RunRecord, instance: &str) -> String {
    let Some((stage, values)) = parts(instance) else { return instance.to_owned() };
    let own =
        |value: &&str| value.split_once('=').is_none_or(|(axis, _)| run.replicates.iter().all(|other| other != axis));
    let own: Vec<&str> = values.into_iter().filter(own).collect();
    if own.is_empty() { stage.to_owned() } else { format!("{stage}[{}]", own.join(",")) }
}

/// What the results of repetitions show, as means; `None` of none.
pub fn mean_of(all: &[Shown]) -> Option<Shown> {
    let mut mean = all.first().cloned()?;
    if let (Some(values), 2..) = (mean.metrics.as_mut(), all.len()) {
        for (name, value) in values {
            let known: Vec<f64> = all.iter().filter_map(|shown| shown.metric(name)).collect();
            *value = mean_and_deviation(&known).and_then(|(mean, _)| shown::number(mean));
        }
    }
    Some(mean)
}
