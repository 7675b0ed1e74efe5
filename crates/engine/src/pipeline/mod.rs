//! From a pipeline file to a checked graph of stage instances.

mod environment;
mod expr;
mod include;
mod limit;
mod links;
mod matrix;
mod overrides;
mod places;
mod report;
mod resolve;
mod schema;
mod spec;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

pub use schema::pipeline_schema;

use crate::catalogue::{Catalogue, ErasedStage, Params};
use crate::diagnostic::{Diagnostics, Source, Span};
use crate::event::{Event, Observer};
use crate::limits::{self, Limits};
use crate::stage::ExternalFile;

/// A pipeline that can be planned and run: expressions evaluated, the matrix multiplied out, everything checked that can be
/// checked before a stage runs.
#[derive(Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What keys cover besides under `numerics: strict`: the build, and the device once it is told.
    pub(crate) environment: Option<BTreeMap<String, String>>,
    /// Its folder; relative paths start here.
    pub base: PathBuf,
    /// The file.
    pub source: Arc<Source>,
    /// The axes of its matrix, in the order of the file.
    pub axes: Vec<String>,
    /// Its stage instances; each comes after those it takes inputs from.
    pub instances: Vec<Instance>,
    /// What is no mistake, but should be written otherwise: parameters under names that they had before.
    pub warnings: Diagnostics,
}

/// One stage in one cell of the matrix.
pub struct Instance {
    /// Its name, such as `solve[objective=rome,strategy=single]`.
    pub name: String,
    /// The stage's name in the file.
    pub stage: String,
    /// Its values of the axes that it depends on.
    pub cell: Vec<(String, Value)>,
    /// What it uses.
    pub kind: Arc<dyn ErasedStage>,
    /// Its parameters.
    pub params: Params,
    /// The instance at each connected port, as an index into [`Pipeline::instances`].
    pub inputs: BTreeMap<String, usize>,
    /// The external files that it reads, with full paths.
    pub files: Vec<ExternalFile>,
    /// What is known of its output before it runs.
    pub facts: Value,
    /// How long it may work, and how often it is tried.
    pub limits: Limits,
    /// The file that the stage stands in.
    pub source: Arc<Source>,
    /// Where it stands there.
    pub place: Span,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("name", &self.name).field("params", &self.params).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Reads and checks a pipeline.
    ///
    /// `overrides` are `path=value` texts as given with `--set`; `base` is the folder that relative paths start from.
    ///
    /// # Errors
    /// All mistakes of the file, and the files that it names and that are not here.
    pub fn load(
        source: &Arc<Source>,
        base: &Path,
        overrides: &[String],
        catalogue: &Catalogue,
    ) -> Result<Self, Diagnostics> {
        let (pipeline, absent) = resolve::check(source, base, overrides, catalogue)?;
        if absent.0.is_empty() { Ok(pipeline) } else { Err(absent) }
    }

    /// Reads and checks a pipeline that may be meant for another place: files that are not here are no mistake, but told
    /// beside the pipeline. It cannot run: instances lack those files.
    ///
    /// # Errors
    /// All mistakes of the file; with them, the files that are not here.
    pub fn check(
        source: &Arc<Source>,
        base: &Path,
        overrides: &[String],
        catalogue: &Catalogue,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        resolve::check(source, base, overrides, catalogue)
    }

    /// Says the warnings, each with its place.
    pub(crate) fn warn(&self, observer: &dyn Observer) {
        for warning in &self.warnings.0 {
            observer.event(&Event::Warning { message: warning.line() });
        }
    }

    /// The instance of this name.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// The pipeline as it will run, with all values filled in, as YAML.
    pub fn resolved(&self) -> String {
        let stages: serde_json::Map<String, Value> = self
            .instances
            .iter()
            .map(|instance| {
                let inputs: BTreeMap<_, _> =
                    instance.inputs.iter().map(|(port, &from)| (port, &self.instances[from].name)).collect();
                let uses = instance.kind.info().name;
                let mut stage = json!({ "uses": uses, "inputs": inputs, "with": instance.params.value });
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
        yaml::write(&whole)
    }
}

/// The value of a YAML text without places or checks: for files that the program wrote itself.
pub(crate) fn read_value(text: &str) -> Option<Value> {
    yaml::parse(text).ok().map(|tree| tree.to_value())
}
