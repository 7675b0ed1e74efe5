//! What a pipeline knows of the surroundings of a stage: ports, files, and facts of its inputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The name of a kind of artifact, such as "model" or "moments"; ports accept kinds.
pub type ArtifactKind = &'static str;

/// An input of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name used under `inputs:`.
    pub name: &'static str,
    /// The artifact kinds that fit.
    pub accepts: &'static [ArtifactKind],
    /// Whether the stage cannot do without it.
    pub required: bool,
    /// One line for lists.
    pub doc: &'static str,
}

/// A file outside the store that a stage reads; its contents enter the key, its name does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalFile {
    /// The logical name, such as "weights"; the same whatever the file is called.
    pub name: String,
    /// Where it lies: relative to the pipeline's folder, or absolute.
    pub path: PathBuf,
    /// The parameter to point at when it is missing.
    pub field: String,
}

impl ExternalFile {
    /// The file `path`, known to the stage as `name`, given in parameter `field`.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, field: impl Into<String>) -> Self {
        Self { name: name.into(), path: path.into(), field: field.into() }
    }
}

/// What is known about a stage's surroundings before anything runs.
#[derive(Debug)]
pub struct DescribeCx<'a> {
    base: &'a Path,
    inputs: BTreeMap<&'a str, &'a Value>,
}

impl<'a> DescribeCx<'a> {
    /// The surroundings with this folder and these facts by port.
    pub fn new(base: &'a Path, inputs: BTreeMap<&'a str, &'a Value>) -> Self {
        Self { base, inputs }
    }

    /// The pipeline's folder; relative paths in parameters start here.
    pub fn base_dir(&self) -> &Path {
        self.base
    }

    /// What the stage at this port said about its output; `Null` when the port is not connected.
    pub fn input(&self, port: &str) -> &Value {
        self.inputs.get(port).copied().unwrap_or(&Value::Null)
    }

    /// Whether a stage is connected to this port.
    pub fn connected(&self, port: &str) -> bool {
        self.inputs.contains_key(port)
    }
}
