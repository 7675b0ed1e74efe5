//! What a run yielded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use palinode_engine::shown::Shown;
use palinode_engine::{Artifact, Error, RunReport, Store};
use serde_json::Value;

/// The results of a run, by the names of its instances.
#[derive(Clone, Copy)]
pub struct Results<'a> {
    report: &'a RunReport,
    store: &'a Store,
}

impl<'a> Results<'a> {
    /// Those of a run in this store.
    pub fn of(report: &'a RunReport, store: &'a Store) -> Self {
        Self { report, store }
    }

    /// The result of an instance, if it has one.
    pub fn artifact(&self, instance: &str) -> Option<&'a Artifact> {
        let found = self.report.stages.iter().find(|stage| stage.instance == instance)?;
        found.artifact.as_deref()
    }

    /// What the result of an instance says of itself; `null` where there is none.
    pub fn facts(&self, instance: &str) -> &'a Value {
        self.artifact(instance).map_or(&Value::Null, |artifact| &artifact.meta)
    }

    /// What the result of an instance shows: metrics with their columns, samples and findings; nothing where there is none.
    pub fn shown(&self, instance: &str) -> Shown {
        Shown::of(self.facts(instance))
    }

    /// The metrics of every instance that has some, in the order of the pipeline.
    pub fn metrics(&self) -> Vec<(&'a str, BTreeMap<String, f64>)> {
        let of = |meta: &Value| {
            let metrics = Shown::of(meta).metrics.unwrap_or_default().into_iter();
            metrics.filter_map(|(name, value)| Some((name, value?.as_f64()?))).collect::<BTreeMap<_, _>>()
        };
        let stages = self.report.stages.iter();
        let all = stages.filter_map(|stage| Some((stage.instance.as_str(), of(&stage.artifact.as_ref()?.meta))));
        all.filter(|(_, metrics)| !metrics.is_empty()).collect()
    }

    /// A file of a result, by the logical name that the stage gave it; `None` where there is none, or its contents are no longer to be
    /// found.
    ///
    /// # Errors
    /// When a file outside the store cannot be read to see whether it still holds the contents.
    pub fn file(&self, instance: &str, name: &str) -> Result<Option<PathBuf>, Error> {
        match self.artifact(instance).and_then(|artifact| artifact.files.get(name)) {
            Some(file) => self.store.find(file),
            None => Ok(None),
        }
    }
}
