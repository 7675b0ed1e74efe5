//! How long a run may take, from how long earlier results took.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::plan::{Plan, Status};
use palinode_fingerprint::flatten;
use palinode_pipeline::Pipeline;
use palinode_store::{Manifest, Store};

/// Earlier results of a stage kind that are looked at.
const LOOKED_AT: usize = 64;

/// How long what would run took earlier.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds of work of those of which something is known, one after the other.
    pub seconds: f64,
    /// The instances that it is known of, each with its seconds.
    pub known: Vec<(String, f64)>,
    /// Instances that would run, or may, and of whose kind no result is in the store.
    pub unknown: Vec<String>,
}

/// How long the instances of a plan that run, or may run, took earlier: each as the nearest earlier result of its kind, that of the same
/// instance before others, and of those the one whose parameters differ least. Another number of requests takes another time: this is what was, and no more.
pub fn estimate(pipeline: &Pipeline, plan: &Plan, store: &Store) -> Estimate {
    let mut earlier: HashMap<&str, Vec<Manifest>> = HashMap::new();
    let mut estimate = Estimate::default();
    for (instance, entry) in pipeline.instances.iter().zip(&plan.entries) {
        if !matches!(entry.status, Status::WillRun { .. } | Status::DependsOn { .. }) {
            continue;
        }
        let kind = instance.kind.info().name;
        let manifests = earlier.entry(kind).or_insert_with(|| store.latest(kind, LOOKED_AT));
        let mut params = BTreeMap::new();
        flatten("", &instance.params.value, &mut params);
        let distance = |(age, manifest): &(usize, &Manifest)| {
            let elsewhere = manifest.pipeline != pipeline.name || manifest.instance != instance.name;
            let known = &manifest.fingerprint.params;
            let differ =
                known.iter().filter(|(name, value)| params.get(*name).is_some_and(|now| now != *value)).count();
            (elsewhere, differ, *age)
        };
        match manifests.iter().enumerate().min_by_key(distance) {
            Some((_, manifest)) => {
                estimate.seconds += manifest.seconds;
                estimate.known.push((instance.name.clone(), manifest.seconds));
            }
            None => estimate.unknown.push(instance.name.clone()),
        }
    }
    estimate
}
