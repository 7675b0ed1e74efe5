//! One of the two that are compared: its stages, their parameters, and what they measured, repetition by repetition.

use std::collections::{BTreeMap, BTreeSet};

use palinode::shown::Shown;
use palinode::{Error, ErrorKind, RunRecord, Runs, Scored};
use serde_json::Value;

use super::super::show::{Found, find};
use crate::command_error::Failure;
use crate::past::{Results, experiment};
use crate::results::metrics::metrics_of;
use crate::results::plain;
use crate::terminal::format;

/// One of the two that are compared.
pub struct Side {
    /// What it is called.
    pub name: String,
    /// Whether it is a run, and no stage of one.
    pub run_as_a_whole: bool,
    /// The stages, with cells of runs and without those of stages.
    pub stages: BTreeMap<String, Node>,
    /// The stage that was named; none of a run.
    pub root: Option<String>,
    /// Parameters by stage and name.
    pub params: BTreeMap<(String, String), Value>,
    /// What was measured, by experiment: all its repetitions, those without a result too.
    pub experiments: BTreeMap<String, Vec<Repetition>>,
}

/// A stage, as far as it says which one of the other side it stands beside.
pub struct Node {
    /// Its kind.
    pub uses: String,
    /// The stages at its ports.
    pub inputs: BTreeMap<String, String>,
}

/// One repetition of an experiment.
pub struct Repetition {
    /// What it is called, such as "seed 3"; empty where nothing is repeated.
    pub called: String,
    /// What its result shows; none where it has no result.
    pub shown: Option<Shown>,
    /// Its scores record by record, where they are in the store.
    pub scored: Option<Scored>,
}

/// The name of a stage without its cell.
pub fn bare(instance: &str) -> &str {
    instance.split('[').next().unwrap_or_default()
}

impl Side {
    /// What a name stands for.
    pub fn of(runs: &Runs, name: &str) -> Result<Self, Failure> {
        match find(runs, name)? {
            Found::Run(run) => Ok(Self::run(runs, &run)),
            Found::Stage(run, instances) => match instances.as_slice() {
                [first, ..] if instances.iter().all(|one| experiment(&run, one) == experiment(&run, first)) => {
                    Ok(Self::stage(runs, &run, &instances))
                }
                [first, ..] => {
                    let message = format!("`{name}` has {} cells", instances.len());
                    let hint = format!("name one of them, such as '{}'", experiment(&run, first));
                    Err(Error::new(ErrorKind::Usage, message).hint(hint).into())
                }
                [] => Err(Error::internal(format!("`{name}` has no instance")).into()),
            },
        }
    }

    fn run(runs: &Runs, run: &RunRecord) -> Self {
        let mut known = Results::of(runs);
        let resolved = runs.resolved(&run.run).map(|pipeline| pipeline.stages).unwrap_or_default();
        let (mut stages, mut params) = (BTreeMap::new(), BTreeMap::new());
        for stage in resolved {
            let instance = stage.instance;
            params.extend(stage.params.into_iter().map(|(name, value)| ((instance.clone(), name), value)));
            stages.insert(instance, Node { uses: stage.uses, inputs: stage.inputs });
        }
        let mut experiments: BTreeMap<String, Vec<Repetition>> = BTreeMap::new();
        for stage in &run.stages {
            let of = experiment(run, &stage.instance);
            experiments.entry(of).or_default().extend(repetition(&mut known, run, &stage.instance));
        }
        Self { name: run.run.clone(), run_as_a_whole: true, stages, root: None, params, experiments }
    }

    /// A stage, with all that it is made from; cells do not stand in names, so that those of two can be compared.
    fn stage(runs: &Runs, run: &RunRecord, instances: &[String]) -> Self {
        let pipeline = runs.resolved(&run.run);
        let (mut stages, mut params) = (BTreeMap::new(), BTreeMap::new());
        // Repetitions differ in what is repeated: a parameter has all values, as a list.
        for instance in instances {
            for stage in pipeline.iter().flat_map(|pipeline| pipeline.ancestry(instance)) {
                let name = bare(&stage.instance).to_owned();
                let inputs = stage.inputs.iter().map(|(port, from)| (port.clone(), bare(from).to_owned())).collect();
                stages.insert(name.clone(), Node { uses: stage.uses.clone(), inputs });
                let mut add = |param: &str, value: Value| {
                    let known: &mut Vec<Value> = params.entry((name.clone(), param.to_owned())).or_default();
                    if !known.contains(&value) {
                        known.push(value);
                    }
                };
                add("uses", Value::from(stage.uses.clone()));
                stage.params.iter().for_each(|(param, value)| add(param, value.clone()));
            }
        }
        let one = |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        let params = params.into_iter().map(|(key, values)| (key, one(values))).collect();
        let mut known = Results::of(runs);
        let all: Vec<Repetition> =
            instances.iter().filter_map(|instance| repetition(&mut known, run, instance)).collect();
        let there = all.iter().filter(|one| one.shown.is_some()).count();
        let (root, of) = (bare(&instances[0]).to_owned(), experiment(run, &instances[0]));
        let name = match instances.len() {
            1 => format!("{}:{}", run.run, instances[0]),
            n if there == n => format!("{}:{of}, {}", run.run, format::count(n, "repetition")),
            n => format!("{}:{of}, {there} of {}", run.run, format::count(n, "repetition")),
        };
        let experiments = BTreeMap::from([(root.clone(), all)]);
        Self { name, run_as_a_whole: false, stages, root: Some(root), params, experiments }
    }

    /// Whether no result of it has a metric.
    pub fn scores_nothing(&self) -> bool {
        let scores = |one: &Repetition| one.shown.as_ref().is_some_and(|shown| !metrics_of(shown).is_empty());
        !self.experiments.values().flatten().any(scores)
    }

    /// The stages of this side that stand beside none of the other, cells of one together.
    pub fn without(&self, other: &Self, paired: &BTreeSet<&str>) -> Vec<String> {
        let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
        for instance in self.stages.keys().filter(|instance| !paired.contains(instance.as_str())) {
            *missing.entry(bare(instance)).or_default() += 1;
        }
        let named = |(stage, count): (&str, usize)| {
            let known = self.run_as_a_whole && other.stages.keys().any(|instance| bare(instance) == stage);
            match (known, count) {
                (true, count) => format!("{} of {stage}", format::count(count, "cell")),
                (false, 1) => stage.to_owned(),
                (false, count) => format!("{stage} ×{count}"),
            }
        };
        missing.into_iter().map(named).collect()
    }
}

fn repetition(known: &mut Results<'_>, run: &RunRecord, instance: &str) -> Option<Repetition> {
    let stage = run.stage(instance)?;
    let repeated = stage.cell.iter().filter(|(axis, _)| run.replicates.contains(axis));
    let mut called: Vec<String> = repeated.map(|(axis, value)| format!("{axis} {}", plain(value))).collect();
    called.sort_unstable();
    Some(Repetition { called: called.join(", "), shown: known.shown(stage), scored: known.scored(stage) })
}

/// Repetitions by name: "seed 1, 2, 3"; of many, the first.
pub fn listed(names: &[String]) -> String {
    const MOST: usize = 8;
    let axis = names.first().and_then(|name| name.split_once(' ')).map(|(axis, _)| axis).unwrap_or_default();
    let value = |name: &'_ str| -> Option<String> {
        let (own, value) = name.split_once(' ')?;
        (own == axis && !value.contains(", ")).then(|| value.to_owned())
    };
    let values: Option<Vec<String>> = names.iter().map(|name| value(name)).collect();
    let (before, names) = values.map_or((String::new(), names.to_vec()), |values| (format!("{axis} "), values));
    let more = names.len().saturating_sub(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{before}{}{more}", names[..names.len().min(MOST)].join(", "))
}
