//! A pipeline as a run wrote it down: every instance with its parameters, nothing left to evaluate.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use palinode_fingerprint::flatten;
use palinode_pipeline::read_value;

/// What a run was asked to do.
#[derive(Clone, Debug, Serialize)]
pub struct ResolvedPipeline {
    /// The pipeline's name.
    pub name: String,
    /// Its stage instances by name.
    pub stages: Vec<ResolvedStage>,
}

/// A stage instance with all values filled in.
#[derive(Clone, Debug, Serialize)]
pub struct ResolvedStage {
    /// Its name.
    pub instance: String,
    /// Its stage kind.
    pub uses: String,
    /// The instance at each connected port.
    pub inputs: BTreeMap<String, String>,
    /// Parameters after defaults, by dotted name.
    pub params: BTreeMap<String, Value>,
}

impl ResolvedPipeline {
    pub(super) fn read(text: &str) -> Option<Self> {
        let file = read_value(text)?;
        let stage = |(instance, stage): (&String, &Value)| {
            let mut params = BTreeMap::new();
            flatten("", &stage["with"], &mut params);
            params.remove("");
            let inputs = stage["inputs"].as_object().into_iter().flatten();
            let inputs = inputs.filter_map(|(port, from)| Some((port.clone(), from.as_str()?.to_owned()))).collect();
            ResolvedStage {
                instance: instance.clone(),
                uses: stage["uses"].as_str().unwrap_or_default().to_owned(),
                inputs,
                params,
            }
        };
        let stages = file["stages"].as_object()?.iter().map(stage).collect();
        Some(Self { name: file["name"].as_str()?.to_owned(), stages })
    }

    /// The instance of this name.
    pub fn stage(&self, instance: &str) -> Option<&ResolvedStage> {
        self.stages.iter().find(|stage| stage.instance == instance)
    }

    /// An instance and all that it is made from, those farthest up first.
    pub fn ancestry(&self, instance: &str) -> Vec<&ResolvedStage> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        self.visit(instance, &mut seen, &mut found);
        found
    }

    fn visit<'a>(&'a self, instance: &str, seen: &mut BTreeSet<String>, found: &mut Vec<&'a ResolvedStage>) {
        let Some(stage) = self.stage(instance).filter(|_| seen.insert(instance.to_owned())) else { return };
        for from in stage.inputs.values() {
            self.visit(from, seen, found);
        }
        found.push(stage);
    }
}
