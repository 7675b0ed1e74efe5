//! What recent runs began and did not finish: a plan says so, rather than that a stage has never run.

use std::collections::{HashMap, HashSet};

use crate::event::Event;
use crate::runs::Runs;
use palinode_fingerprint::Key;
use palinode_store::Store;

/// How many of the latest runs are looked at.
const RUNS: usize = 20;

/// What is left of an action that was begun.
#[derive(Clone)]
pub(crate) struct Unfinished {
    /// The latest run that began it.
    pub run: String,
    /// How many units of its work are in the store. Units that other actions share with it count where a run did them for it.
    pub units: usize,
}

/// By key, what the latest runs began and did not finish.
pub(crate) fn unfinished(store: &Store) -> HashMap<Key, Unfinished> {
    let runs = Runs::of(store.root());
    let mut found: HashMap<Key, Unfinished> = HashMap::new();
    let mut units: HashMap<Key, HashSet<Key>> = HashMap::new();
    for run in runs.names().into_iter().take(RUNS) {
        let attempts = runs.attempts(&run).into_iter();
        let open = attempts.filter(|attempt| attempt.end.as_ref().is_none_or(|end| end.failure.is_some()));
        let open: HashMap<String, Key> = open.map(|attempt| (attempt.instance, attempt.key)).collect();
        if open.is_empty() {
            continue;
        }
        for key in open.values() {
            found.entry(*key).or_insert_with(|| Unfinished { run: run.clone(), units: 0 });
        }
        for (_, event) in runs.events(&run) {
            if let Event::UnitDone { instance, unit, .. } = event
                && let Some(key) = open.get(&instance)
                && store.has_unit(&unit)
            {
                units.entry(*key).or_default().insert(unit);
            }
        }
    }
    for (key, units) in units {
        if let Some(unfinished) = found.get_mut(&key) {
            unfinished.units = units.len();
        }
    }
    found
}
