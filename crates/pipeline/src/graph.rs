//! A checked pipeline: a graph of stage instances.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::{Diagnostics, Source, Span};
use crate::files::{Disk, Files};
use crate::kinds::{Params, Stage};
use crate::limits::Limits;
use crate::stage::{Beside, ExternalFile};

/// The name in the environment of what a pipeline is computed on.
pub const DEVICE: &str = "device";

/// A pipeline that can be planned and run: expressions evaluated, the matrix multiplied out, everything checked that can be
/// checked before a stage runs.
///
/// ```
/// # use std::path::Path;
/// # use palinode_pipeline::{Kinds, Pipeline, Source};
/// let text = "name: two mistakes\nstages:\n  a: { uses: solve }\n  b: { uses: solve, inputs: { update: aa } }\n";
/// // All mistakes are found at once, each with its place; no kind of stage is known here.
/// let mistakes = Pipeline::load(&Source::new("p.yaml", text), Path::new("."), &[], &Kinds::default()).unwrap_err();
/// let found: Vec<_> = mistakes.0.iter().map(|it| (it.span.line, it.message.as_str())).collect();
/// assert!(found.contains(&(4, "no stage is named `aa`")), "{found:?}");
/// assert!(found.iter().any(|(line, message)| *line == 3 && message.contains("solve")), "{found:?}");
/// ```
#[derive(Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What keys cover besides under `numerics: strict`, beside the build: the device, once it is told.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether what is doubtful about its requests and resources ends a run before it begins.
    pub strict_checks: bool,
    /// Texts of parameters that stand for something that moves, such as a branch, with what they stand for now: records of runs have the
    /// latter.
    pub pins: BTreeMap<String, String>,
    /// Its folder; relative paths start here.
    pub base: PathBuf,
    /// The file.
    pub source: Arc<Source>,
    /// The axes of its matrix, in the order of the file.
    pub axes: Vec<String>,
    /// Those of them along which the same is only repeated, such as seeds.
    pub replicates: Vec<String>,
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
    pub kind: Arc<dyn Stage>,
    /// Its parameters.
    pub params: Params,
    /// The instance at each connected port, as an index into [`Pipeline::instances`].
    pub inputs: BTreeMap<String, usize>,
    /// The external files that it reads, with full paths.
    pub files: Vec<ExternalFile>,
    /// What lies beside its result outside the store.
    pub beside: Arc<Beside>,
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
    /// The instance of this name.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// Where stages publish files or folders outside the store, as full paths by where they really lead: stage instance, parameter, path.
    pub fn published(&self) -> Vec<(&Instance, &'static str, PathBuf)> {
        let mut all = Vec::new();
        for instance in &self.instances {
            for (field, path) in instance.kind.publishes(&instance.params) {
                all.push((instance, field, Disk.place(&self.base.join(path))));
            }
        }
        all
    }

    /// Finds out what texts of parameters stand for now, by asking `of` about each.
    pub fn pin(&mut self, of: impl Fn(&str) -> Option<String>) {
        fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::String(text) => found.push(text),
                Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
                Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut found = Vec::new();
        self.instances.iter().for_each(|instance| texts(&instance.params.value, &mut found));
        self.pins = found.into_iter().filter_map(|text| Some((text.to_owned(), of(text)?))).collect();
    }

    /// Says what the stages compute on, such as the model of a CPU and the number of its threads. Under
    /// `numerics: strict` this is part of every key; otherwise a result is a result wherever it was computed.
    pub fn compute_on(&mut self, device: impl Into<String>) {
        if let Some(environment) = &mut self.environment {
            environment.insert(DEVICE.to_owned(), device.into());
        }
    }
}
