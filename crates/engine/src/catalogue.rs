//! The stages that a program has: how they are described, and how they do their work.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palinode_error::{Error, FieldError};
use palinode_pipeline::{
    Beside, DescribeCx, ExternalFile, Kind as _, Kinds, Params, Resources, Stage, StageInfo, Taken, UnitPlan,
    read_params,
};
use palinode_store::Artifact;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::context::StageContext;
use crate::share::Inputs;
use crate::stage::StageKind;

/// A kind of stage with its parameter type erased.
pub trait ErasedStage: Stage {
    /// See [`StageKind::parts`].
    ///
    /// # Errors
    /// When the facts of an input do not read.
    fn parts(&self, params: &Params, inputs: &BTreeMap<String, Artifact>) -> Result<Option<UnitPlan>, Error>;

    /// See [`StageKind::run`].
    ///
    /// # Errors
    /// When there is no result.
    fn run(&self, params: &Params, cx: &StageContext) -> Result<Artifact, Error>;
}

/// The stages of a program, by name. To a pipeline it is the [`Kinds`] that it can use.
#[derive(Clone, Default)]
pub struct Catalogue {
    kinds: Kinds,
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
        let stage = Arc::new(Typed::<S>::new());
        assert!(self.kinds.add(stage.clone()), "two stages are named `{}`", S::NAME);
        self.stages.insert(S::NAME, stage);
        self
    }

    /// The stage of this name, to be run.
    pub fn runnable(&self, name: &str) -> Option<&Arc<dyn ErasedStage>> {
        self.stages.get(name)
    }
}

impl Deref for Catalogue {
    type Target = Kinds;

    fn deref(&self) -> &Kinds {
        &self.kinds
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
                output: S::Output::NAME,
                inputs: S::inputs(),
                unkeyed: S::unkeyed(),
                last_digits: S::last_digits(),
                carries: S::carries(),
                renamed: S::renamed(),
                hands_on: S::hands_on(),
                decides_nothing: S::decides_nothing,
                schema: settings.into_generator().into_root_schema_for::<S::Params>().to_value(),
            },
            stage: PhantomData,
        }
    }
}

fn typed<S: StageKind>(params: &Params) -> &S::Params {
    params.typed().expect("parameters were read by the same stage kind")
}

impl<S: StageKind> Stage for Typed<S> {
    fn info(&self) -> &StageInfo {
        &self.info
    }

    fn params(&self, with: Value) -> Result<Params, Vec<FieldError>> {
        let typed: S::Params = read_params(with, self.info.name, self.info.fields().as_deref())?;
        let value = serde_json::to_value(&typed).map_err(|error| vec![FieldError::new("", error.to_string())])?;
        Ok(Params::new(Arc::new(typed), value))
    }

    fn files(&self, params: &Params, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        S::files(typed::<S>(params), base)
    }

    fn beside(&self, params: &Params, base: &Path) -> Beside {
        S::beside(typed::<S>(params), base)
    }

    fn takes(&self, params: &Params, beside: &Beside) -> Taken {
        S::takes(typed::<S>(params), beside)
    }

    fn resources(&self, params: &Params) -> Resources {
        S::resources(typed::<S>(params))
    }

    fn publishes(&self, params: &Params) -> Vec<(&'static str, PathBuf)> {
        S::publishes(typed::<S>(params))
    }

    fn describe(&self, params: &Params, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let said = S::describe(typed::<S>(params), cx)?;
        serde_json::to_value(&said).map_err(|error| vec![FieldError::new("", error.to_string())])
    }

    fn units(&self, params: &Params, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        S::units(typed::<S>(params), cx)
    }

    fn resolved(&self, params: &Params, device: Option<&str>) -> BTreeMap<String, Value> {
        let resolved = S::resolved(typed::<S>(params), device).into_iter();
        resolved.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl<S: StageKind> ErasedStage for Typed<S> {
    fn parts(&self, params: &Params, inputs: &BTreeMap<String, Artifact>) -> Result<Option<UnitPlan>, Error> {
        S::parts(typed::<S>(params), &Inputs(inputs))
    }

    fn run(&self, params: &Params, cx: &StageContext) -> Result<Artifact, Error> {
        S::run(typed::<S>(params), cx)
    }
}
