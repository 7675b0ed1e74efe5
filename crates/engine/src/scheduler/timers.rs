//! Moments at which something is due, at most one for each instance.

use std::collections::{BTreeSet, HashMap};

use super::message::Moment;

/// The moments.
#[derive(Debug, Default)]
pub struct Timers {
    in_order: BTreeSet<(Moment, usize)>,
    of: HashMap<usize, Moment>,
}

impl Timers {
    /// Sets the moment of an instance, in place of the one that it had.
    pub fn set(&mut self, instance: usize, at: Moment) {
        self.clear(instance);
        self.in_order.insert((at, instance));
        self.of.insert(instance, at);
    }

    /// Takes away the moment of an instance.
    pub fn clear(&mut self, instance: usize) {
        if let Some(at) = self.of.remove(&instance) {
            self.in_order.remove(&(at, instance));
        }
    }

    /// The nearest moment.
    pub fn nearest(&self) -> Option<Moment> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes out an instance whose moment has come.
    pub fn pop_due(&mut self, now: Moment) -> Option<usize> {
        let (at, instance) = *self.in_order.first().filter(|(at, _)| *at <= now)?;
        self.in_order.remove(&(at, instance));
        self.of.remove(&instance);
        Some(instance)
    }
}
