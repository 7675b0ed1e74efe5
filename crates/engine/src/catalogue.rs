//! The stages that a pipeline can use.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::artifact::Artifact;
use crate::context::StageContext;
use crate::error::{FieldError, StageError};
use crate::field;
use crate::renamed::Renames;
use crate::stage::{ArtifactKind, DescribeCx, ExternalFile, Port, StageKind};
use crate::takes::Takes;
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
    /// Parameters that stay out of the key.
    pub unkeyed: &'static [&'static str],
    /// See [`StageKind::carries`].
    pub carries: &'static [u32],
    /// Parameters that had another name before.
    pub renamed: Renames,
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

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A kind of stage with its parameter type erased.
pub trait ErasedStage: Send + Sync {
    /// Its description.
    fn info(&self) -> &StageInfo;

    /// Reads parameters.
    ///
    /// # Errors
    /// All mistakes found.
    fn params(&self, with: Value) -> Result<Params, Vec<FieldError>>;

    /// See [`StageKind::files`].
    ///
    /// # Errors
    /// When a parameter cannot be turned into files.
    fn files(&self, params: &Params, base: &Path) -> Result<Vec<ExternalFile>, FieldError>;

    /// See [`StageKind::takes`].
    fn takes(&self, params: &Params) -> Takes;

    /// See [`StageKind::publishes`].
    fn publishes(&self, params: &Params) -> Vec<(&'static str, PathBuf)>;

    /// See [`StageKind::describe`].
    ///
    /// # Errors
    /// All mistakes found.
    fn describe(&self, params: &Params, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>>;

    /// See [`StageKind::units`].
    fn units(&self, params: &Params, cx: &DescribeCx<'_>) -> Option<UnitPlan>;

    /// See [`StageKind::run`].
    ///
    /// # Errors
    /// When there is no result.
    fn run(&self, params: &Params, cx: &StageContext) -> Result<Artifact, StageError>;
}

/// The stages that a pipeline can use, by name.
#[derive(Default)]
pub struct Catalogue {
    stages: BTreeMap<&'static str, Arc<dyn ErasedStage>>,
}

impl Catalogue {
    /// An empty catalogue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of stage.
    ///
    /// # Panics
    /// When the name is taken: two kinds of one name are a mistake in the program.
    pub fn register<S: StageKind>(&mut self) -> &mut Self {
        let before = self.stages.insert(S::NAME, Arc::new(Typed::<S>::new()));
        assert!(before.is_none(), "two stages are named `{}`", S::NAME);
        self
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.stages.keys().copied()
    }

    /// The stage of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ErasedStage>> {
        self.stages.get(name)
    }

    /// All stages, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ErasedStage>> {
        self.stages.values()
    }
}

struct Typed<S> {
    info: StageInfo,
    stage: PhantomData<fn() -> S>,
}

impl<S: StageKind> Typed<S> {
    fn new() -> Self {
        // Definitions are inlined, so that schemas of several stages can stand in one document without clashing names.
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        Self {
            info: StageInfo {
                name: S::NAME,
                version: S::VERSION,
                summary: S::SUMMARY,
                doc: S::DOC,
                output: S::OUTPUT,
                inputs: S::inputs(),
                unkeyed: S::unkeyed(),
                carries: S::carries(),
                renamed: S::renamed(),
                schema: settings.into_generator().into_root_schema_for::<S::Params>().to_value(),
            },
            stage: PhantomData,
        }
    }
}

fn typed<S: StageKind>(params: &Params) -> &S::Params {
    params.typed.downcast_ref().expect("parameters were read by the same stage kind")
}

impl<S: StageKind> ErasedStage for Typed<S> {
    fn info(&self) -> &StageInfo {
        &self.info
    }

    fn params(&self, with: Value) -> Result<Params, Vec<FieldError>> {
        let typed: S::Params = field::read(with, self.info.name, self.info.fields().as_deref())?;
        let value = serde_json::to_value(&typed).map_err(|error| vec![FieldError::new("", error.to_string())])?;
        Ok(Params { typed: Arc::new(typed), value })
    }

    fn files(&self, params: &Params, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        S::files(typed::<S>(params), base)
    }

    fn takes(&self, params: &Params) -> Takes {
        S::takes(typed::<S>(params))
    }

    fn publishes(&self, params: &Params) -> Vec<(&'static str, PathBuf)> {
        S::publishes(typed::<S>(params))
    }

    fn describe(&self, params: &Params, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        S::describe(typed::<S>(params), cx)
    }

    fn units(&self, params: &Params, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        S::units(typed::<S>(params), cx)
    }

    fn run(&self, params: &Params, cx: &StageContext) -> Result<Artifact, StageError> {
        S::run(typed::<S>(params), cx)
    }
}
