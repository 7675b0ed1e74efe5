//! What a pipeline knows of the surroundings of a stage: files, and facts of its inputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::artifact::{Accept, ArtifactKind, PortOf};

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

/// What lies beside a result outside the store, and takes no part in what is computed from it: other files of the same folder, and what
/// other programs call it. It is in no key but those of stages that write it somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Files that a copy of the whole has too.
    pub files: Vec<ExternalFile>,
    /// What other programs find it by.
    pub name: Option<String>,
}

/// What a stage takes of what lies beside its input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Files that it reads: part of its key from then on.
    pub files: Vec<ExternalFile>,
    /// Parameters that are not given, with the values that follow: part of its key as if they were.
    pub values: Vec<(&'static str, Value)>,
}

/// What is known about a stage's surroundings before anything runs.
#[derive(Debug)]
pub struct DescribeCx<'a> {
    base: &'a Path,
    inputs: BTreeMap<&'a str, (ArtifactKind, &'a Value)>,
}

impl<'a> DescribeCx<'a> {
    /// The surroundings with this folder, and by port the kind of what is connected and what its stage said of it.
    pub fn new(base: &'a Path, inputs: BTreeMap<&'a str, (ArtifactKind, &'a Value)>) -> Self {
        Self { base, inputs }
    }

    /// The pipeline's folder; relative paths in parameters start here.
    pub fn base_dir(&self) -> &Path {
        self.base
    }

    /// What the stage at this port said about its output; nothing is known when the port is not connected.
    pub fn input<A: Accept>(&self, port: PortOf<A>) -> A::Planned {
        self.inputs.get(port.name).map(|(kind, said)| A::planned(kind, said)).unwrap_or_default()
    }

    /// Whether a stage is connected to this port.
    pub fn connected<A>(&self, port: PortOf<A>) -> bool {
        self.inputs.contains_key(port.name)
    }
}
