//! A pipeline as it runs, as YAML: written beside the record of a run, and read again from there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::graph::Pipeline;
use super::yaml;
use crate::limits::{self, Limits};

impl Pipeline {
    /// The pipeline as it will run, with all values filled in, as YAML.
    pub fn resolved(&self) -> String {
        let stages: serde_json::Map<String, Value> = self
            .instances
            .iter()
            .map(|instance| {
                let inputs: BTreeMap<_, _> =
                    instance.inputs.iter().map(|(port, &from)| (port, &self.instances[from].name)).collect();
                let uses = instance.kind.info().name;
                let mut stage = json!({ "uses": uses, "inputs": inputs, "with": self.pinned(&instance.params.value) });
                let Limits { retries, timeout } = instance.limits;
                if retries > 0 {
                    stage["retries"] = retries.into();
                }
                if let Some(timeout) = timeout {
                    stage["timeout"] = limits::written(timeout).into();
                }
                (instance.name.clone(), stage)
            })
            .collect();
        let mut whole = json!({ "name": self.name, "description": self.description, "stages": stages });
        if self.environment.is_some() {
            whole["numerics"] = "strict".into();
        }
        if self.strict_checks {
            whole["checks"] = "strict".into();
        }
        if !self.replicates.is_empty() {
            whole["replicates"] = json!(self.replicates);
        }
        yaml::write(&whole)
    }

    /// A value with the texts replaced that stand for something else now.
    fn pinned(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.pins.get(text).unwrap_or(text).clone().into(),
            Value::Array(items) => items.iter().map(|item| self.pinned(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), self.pinned(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }
}

/// The value of a YAML text without places or checks: for files that the program wrote itself.
pub fn read_value(text: &str) -> Option<Value> {
    yaml::parse(text).ok().map(|tree| tree.to_value())
}

/// The value of a YAML text of someone else's, or what is wrong with it and in which line, counted from 1.
///
/// # Errors
/// For a text that is no YAML document, and for numbers that are none.
pub fn read_yaml(text: &str) -> Result<Value, (String, Option<usize>)> {
    let mut tree = yaml::parse(text).map_err(|error| {
        let line = error.offset.map(|offset| text[..offset.min(text.len())].matches('\n').count() + 1);
        (error.message, line)
    })?;
    let mut wrong = None;
    tree.take_unfit("", &mut |path, what| {
        wrong.get_or_insert_with(|| (format!("`{path}` {what}"), None));
    });
    wrong.map_or_else(|| Ok(tree.to_value()), Err)
}
