//! What several processes say of the shares of one stage, as if one had said it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::event::{Event, Observer};
use crate::share::Share;
use palinode_pipeline::UnitPlan;

/// Adds up counts, and tells the rest on as the first share says it: all shares read the same inputs.
pub(crate) struct Merged {
    told: Arc<dyn Observer>,
    instance: String,
    what: &'static str,
    total: Option<u64>,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: bool,
    /// Done and kept by each share.
    counts: BTreeMap<usize, (u64, u64)>,
}

impl State {
    fn sum(&self) -> (u64, u64) {
        self.counts.values().fold((0, 0), |(done, kept), count| (done + count.0, kept + count.1))
    }
}

impl Merged {
    /// For the shares of a stage that parts like this.
    pub fn new(told: &Arc<dyn Observer>, instance: &str, plan: &UnitPlan) -> Self {
        // A bound is not a number.
        let total = Some(plan.items as u64).filter(|_| plan.items < usize::MAX);
        Self {
            told: Arc::clone(told),
            instance: instance.to_owned(),
            what: plan.what,
            total,
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Hears what a share says.
    pub fn event(&self, share: Share, event: &Event) {
        match event {
            Event::ProgressStarted { what, .. } if what == self.what => self.begin(),
            Event::Progress { what, done, kept, .. } if what == self.what => {
                let sum = {
                    let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.counts.insert(share.number, (*done, *kept));
                    state.sum()
                };
                self.begin();
                self.told.event(&Event::Progress {
                    instance: self.instance.clone(),
                    what: self.what.to_owned(),
                    done: sum.0,
                    kept: sum.1,
                    total: self.total,
                    note: format!("in {} shares", share.of),
                });
            }
            Event::ProgressEnded { what, .. } if what == self.what => {}
            Event::UnitDone { .. } => self.told.event(event),
            _ if share.number == 0 => self.told.event(event),
            _ => {}
        }
    }

    /// All shares are over.
    pub fn end(&self) {
        let (begun, (done, _)) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.begun, state.sum())
        };
        if begun {
            self.told.event(&Event::ProgressEnded {
                instance: self.instance.clone(),
                what: self.what.to_owned(),
                done,
                seconds: self.started.elapsed().as_secs_f64(),
            });
        }
    }

    fn begin(&self) {
        let begun = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut state.begun, true)
        };
        if !begun {
            let (instance, what) = (self.instance.clone(), self.what.to_owned());
            self.told.event(&Event::ProgressStarted { instance, what, total: self.total });
        }
    }
}
