//! Instances that could start.

use std::collections::{BTreeMap, BTreeSet};

use super::free::{Free, Need};

/// Instances that wait for resources, by what they need. A pipeline has few different needs and may have thousands of instances, so
/// the first that fits is found without looking at each.
#[derive(Debug, Default)]
pub struct Queue {
    by_need: BTreeMap<Need, BTreeSet<usize>>,
}

impl Queue {
    /// Adds an instance.
    pub fn push(&mut self, instance: usize, need: Need) {
        self.by_need.entry(need).or_default().insert(instance);
    }

    /// Takes out the instance that comes first in the pipeline among those whose needs are free.
    pub fn pop_fitting(&mut self, free: &Free) -> Option<usize> {
        if free.is_full() {
            return None;
        }
        let fitting = self.by_need.iter().filter(|(need, _)| free.fits(need));
        let (instance, need) = fitting.filter_map(|(need, all)| Some((*all.first()?, *need))).min()?;
        if let Some(all) = self.by_need.get_mut(&need) {
            all.remove(&instance);
            if all.is_empty() {
                self.by_need.remove(&need);
            }
        }
        Some(instance)
    }

    /// Takes out all.
    pub fn clear(&mut self) {
        self.by_need.clear();
    }
}
