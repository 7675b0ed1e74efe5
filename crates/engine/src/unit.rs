//! The units of work of one stage at work: which may be taken from earlier runs, and how long each takes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::Span;

use palinode_fingerprint::Key;

/// The units of one stage.
pub(crate) struct Units {
    /// Whether those of earlier runs are left alone.
    forced: bool,
    state: Mutex<State>,
}

struct State {
    /// Asked for and not there: whoever asked works on it now.
    begun: HashMap<Key, (Instant, Span)>,
    /// When the last one ended, which is when one that nobody asked for began.
    last: Instant,
    /// Those of a forced stage that it put itself.
    own: HashSet<Key>,
}

impl Units {
    /// For a stage that begins now.
    pub fn new(forced: bool) -> Self {
        let state = State { begun: HashMap::new(), last: Instant::now(), own: HashSet::new() };
        Self { forced, state: Mutex::new(state) }
    }

    /// Whether a unit that lies in the store is to be used.
    pub fn may_use(&self, key: &Key) -> bool {
        !self.forced || self.state().own.contains(key)
    }

    /// A unit is worked on from now.
    pub fn begin(&self, key: &Key) {
        let span = tracing::debug_span!("unit", unit = %key.0.short());
        self.state().begun.insert(*key, (Instant::now(), span));
    }

    /// A unit is done and kept; says how many seconds it took.
    pub fn end(&self, key: &Key) -> f64 {
        let mut state = self.state();
        let last = std::mem::replace(&mut state.last, Instant::now());
        let begun = state.begun.remove(key).map_or(last, |(begun, _)| begun);
        if self.forced {
            state.own.insert(*key);
        }
        begun.elapsed().as_secs_f64()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
