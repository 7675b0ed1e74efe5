//! What a pipeline has to know of a kind of stage: all but how it does its work.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palinode_error::FieldError;
use serde_json::Value;

use crate::artifact::{ArtifactKind, Port};
use crate::renamed::Renames;
use crate::resources::Resources;
use crate::stage::{Beside, DescribeCx, ExternalFile, Taken};
use crate::unit_plan::UnitPlan;

/// Everything about a kind of stage that can be told without its parameter type.
#[derive(Clone, Debug)]
pub struct StageInfo {
    /// The word after `uses:`.
    pub name: &'static str,
    /// Part of every key.
    pub version: u32,
    /// One line for lists.
    pub summary: &'static str,
    /// Paragraphs of documentation.
    pub doc: &'static str,
    /// The kind of artifact it yields.
    pub output: ArtifactKind,
    /// The inputs it takes.
    pub inputs: Vec<Port>,
    /// Parameters that never change a bit: they are in no key.
    pub unkeyed: &'static [&'static str],
    /// Parameters that change last digits alone, by dotted name: they are in keys under strict numerics.
    pub last_digits: &'static [&'static str],
    /// Earlier versions whose results still hold.
    pub carries: &'static [u32],
    /// Parameters that had another name before.
    pub renamed: Renames,
    /// The port whose input's surroundings are its own.
    pub hands_on: Option<&'static str>,
    /// Whether a file of this name decided nothing, although earlier versions had it in keys and results.
    pub decides_nothing: fn(&str) -> bool,
    /// JSON Schema of the parameters.
    pub schema: Value,
}

impl StageInfo {
    /// The port of this name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// The names of the parameters, where they form a plain mapping.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let properties = self.schema.get("properties")?.as_object()?;
        Some(properties.keys().map(String::as_str).collect())
    }
}

/// Parameters that fit a stage kind: typed for the stage, and as a value with all defaults filled in for keys and people.
#[derive(Clone)]
pub struct Params {
    typed: Arc<dyn Any + Send + Sync>,
    /// The parameters with defaults filled in.
    pub value: Value,
}

impl Params {
    /// Of typed parameters, and the same as a value.
    pub fn new(typed: Arc<dyn Any + Send + Sync>, value: Value) -> Self {
        Self { typed, value }
    }

    /// As the type that the stage kind reads them as; `None` for those of another stage kind.
    pub fn typed<T: 'static>(&self) -> Option<&T> {
        self.typed.downcast_ref()
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A kind of stage, as far as a pipeline is concerned.
pub trait Stage: Send + Sync {
    /// Its description.
    fn info(&self) -> &StageInfo;

    /// Reads parameters.
    ///
    /// # Errors
    /// All mistakes found.
    fn params(&self, with: Value) -> Result<Params, Vec<FieldError>>;

    /// The external files that it reads.
    ///
    /// # Errors
    /// When a parameter cannot be turned into files.
    fn files(&self, params: &Params, base: &Path) -> Result<Vec<ExternalFile>, FieldError>;

    /// What lies beside its result outside the store; of a stage that hands on, that of its input counts.
    fn beside(&self, params: &Params, base: &Path) -> Beside;

    /// What it takes of what lies beside its input.
    fn takes(&self, params: &Params, beside: &Beside) -> Taken;

    /// The resources that it needs while it runs.
    fn resources(&self, params: &Params) -> Resources;

    /// Where it publishes files or folders outside the store: pairs of the parameter that says so and the path.
    fn publishes(&self, params: &Params) -> Vec<(&'static str, PathBuf)>;

    /// Facts about the output that are known before anything runs.
    ///
    /// # Errors
    /// All mistakes found.
    fn describe(&self, params: &Params, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>>;

    /// How the work is cut into units, where that can be known before anything runs.
    fn units(&self, params: &Params, cx: &DescribeCx<'_>) -> Option<UnitPlan>;

    /// What parameters that change last digits come to on a device, by dotted name.
    fn resolved(&self, params: &Params, device: Option<&str>) -> BTreeMap<String, Value>;
}

/// The kinds of stages that a pipeline can use, by name.
#[derive(Clone, Default)]
pub struct Kinds {
    kinds: BTreeMap<&'static str, Arc<dyn Stage>>,
}

impl Kinds {
    /// Adds a kind of stage; `false` when the name is taken, and the one that has it stays.
    pub fn add(&mut self, kind: Arc<dyn Stage>) -> bool {
        let name = kind.info().name;
        let free = !self.kinds.contains_key(name);
        self.kinds.entry(name).or_insert(kind);
        free
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.keys().copied()
    }

    /// The kind of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Stage>> {
        self.kinds.get(name)
    }

    /// All kinds, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Stage>> {
        self.kinds.values()
    }
}
