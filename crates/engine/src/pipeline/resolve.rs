//! Turns what is written into stage instances, and reports everything that does not fit.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::environment;
use super::expr::{Mention, Scope, Template};
use super::links::{self, Links};
use super::matrix::{Matrix, label};
use super::places::{child, item};
use super::report::Report;
use super::spec::{self, Spec, StageSpec, texts};
use super::yaml::Tree;
use super::{Instance, Pipeline, include, limit, overrides};
use crate::catalogue::{Catalogue, ErasedStage, StageInfo};
use crate::diagnostic::{Diagnostics, Source};
use crate::error::{ErrorKind, FieldError};
use crate::renamed::{OldName, to_new};
use crate::stage::{DescribeCx, ExternalFile};
use crate::suggest::{did_you_mean, one_of};

/// See [`Pipeline::check`].
pub fn check(
    source: &Arc<Source>,
    base: &Path,
    overrides: &[String],
    catalogue: &Catalogue,
) -> Result<(Pipeline, Diagnostics), Diagnostics> {
    let (mut tree, mut report) = include::read(source, base)?;
    for text in overrides {
        overrides::apply(&mut tree, text, &mut report);
    }
    let spec = spec::read(&tree, &mut report);
    let vars = variables(&spec, &mut report);
    let matrix = Matrix::read(&spec, &vars, &mut report);
    let links = links::find(&spec, &vars, &matrix, &mut report);
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let builder = Builder { spec: &spec, vars: &vars, matrix: &matrix, links: &links, base: &base, catalogue };
    let instances = builder.instances(&mut report);
    published(instances.iter().flatten(), &base, &mut report);
    let absent = report.mistakes.check(source)?;
    let pipeline = Pipeline {
        name: spec.name,
        description: spec.description,
        environment: spec.strict.then(environment::of_build),
        base,
        source: Arc::clone(source),
        axes: matrix.axes,
        instances: instances.into_iter().flatten().collect(),
        warnings: report.warnings.sorted(source),
    };
    Ok((pipeline, absent))
}

/// Evaluates the variables from top to bottom; each can use those above it.
fn variables(spec: &Spec, report: &mut Report) -> Map<String, Value> {
    let mut vars = Map::new();
    for (name, tree) in &spec.vars {
        let path = child("vars", name);
        texts(tree, &path, &mut |path, text| {
            for mention in mentions(text, path, report) {
                let known = mention.root == "vars" && mention.name.as_ref().is_none_or(|name| vars.contains_key(name));
                if !known {
                    let names = || vars.keys().map(String::as_str);
                    let what = mention.name.as_ref().map_or(String::new(), |name| format!(".{name}"));
                    report.part(path, &mention.expr, format!("`{}{what}` is not known here", mention.root), |it| {
                        it.label("not known here")
                            .expected(if vars.is_empty() { "no variable".to_owned() } else { one_of(names()) })
                            .hint("a variable can use those above it, and no axis".to_owned())
                    });
                }
            }
        });
        let scope = Scope::new(&vars, &Map::new());
        let value = eval(tree, &path, &scope, report);
        // A variable that has no value still has a name: those who use it have made no mistake.
        vars.insert(name.clone(), value.unwrap_or(Value::Null));
    }
    vars
}

/// The value of a tree with its expressions evaluated; `None` when one has none, which is reported.
pub fn eval(tree: &Tree, path: &str, scope: &Scope, report: &mut Report) -> Option<Value> {
    Some(match tree {
        Tree::Text(text) => {
            let value = Template::parse(text).and_then(|template| template.eval(scope));
            match value {
                Ok(value) => value,
                Err(error) => {
                    report.part(path, &error.expr, error.message, |mut it| {
                        it.expected = error.expected;
                        it
                    });
                    return None;
                }
            }
        }
        Tree::List(items) => {
            let values: Vec<_> =
                items.iter().enumerate().map(|(index, tree)| eval(tree, &item(path, index), scope, report)).collect();
            Value::Array(values.into_iter().collect::<Option<_>>()?)
        }
        Tree::Map(pairs) => {
            let values: Vec<_> = pairs
                .iter()
                .map(|(name, tree)| eval(tree, &child(path, name), scope, report).map(|value| (name.clone(), value)))
                .collect();
            Value::Object(values.into_iter().collect::<Option<_>>()?)
        }
        plain => plain.to_value(),
    })
}

/// The names in a text; one that does not parse is reported and has none.
pub fn mentions(text: &str, path: &str, report: &mut Report) -> Vec<Mention> {
    match Template::parse(text).and_then(|template| template.mentions()) {
        Ok(mentions) => mentions,
        Err(error) => {
            report.part(path, &error.expr, error.message, |mut it| {
                it.expected = error.expected;
                it
            });
            Vec::new()
        }
    }
}

/// Reports instances that publish to one place: the later would overwrite the earlier, run after run.
fn published<'a>(instances: impl Iterator<Item = &'a Instance>, base: &Path, report: &mut Report) {
    let mut taken: BTreeMap<PathBuf, &Instance> = BTreeMap::new();
    for instance in instances {
        for (field, path) in instance.kind.publishes(&instance.params) {
            let full: PathBuf = base.join(&path).components().collect();
            let Some(other) = taken.insert(full, instance) else { continue };
            let at = child(&child(&child("stages", &instance.stage), "with"), field);
            let missing: Vec<_> = instance.cell.iter().filter(|value| !other.cell.contains(value)).collect();
            let message = format!("`{}` and `{}` both write to {}", other.name, instance.name, path.display());
            report.value(&at, message, |it| match missing.as_slice() {
                [(axis, _), ..] if other.stage == instance.stage => {
                    it.expected("a path for each").hint(format!("put `${{matrix.{axis}}}` into the path"))
                }
                _ => it.expected("a path for each"),
            });
        }
    }
}

/// Takes parameters under old names for those under the new ones, with a warning; `None` where one stands under both.
fn old_names(value: &mut Value, info: &StageInfo, with: &str, report: &mut Report) -> Option<Vec<OldName>> {
    let names = to_new(value, info.renamed);
    for OldName { old, new, both } in &names {
        let at = child(with, old);
        if *both {
            report.key(&at, format!("`{old}` is the old name of `{new}`, which is given as well"), |it| {
                it.label("given twice").expected(format!("`{new}` alone"))
            });
        } else {
            report.warn(&at, format!("`{old}` of `{}` is now called `{new}`; the old name is still read", info.name));
        }
    }
    names.iter().all(|name| !name.both).then_some(names)
}

/// A mistake in a parameter, at the name under which that stands in the file.
fn as_written(mut error: FieldError, old_names: &[OldName]) -> FieldError {
    if let Some(name) = old_names.iter().find(|name| name.new == error.field) {
        error.field = name.old.to_owned();
    }
    error
}

struct Builder<'a> {
    spec: &'a Spec,
    vars: &'a Map<String, Value>,
    matrix: &'a Matrix,
    links: &'a Links,
    base: &'a Path,
    catalogue: &'a Catalogue,
}

/// Instances by stage number and cell; `None` for one with a mistake.
type Known = HashMap<(usize, String), usize>;

impl Builder<'_> {
    /// All instances in order. One with a mistake is `None`, so that those who take inputs from it are spared.
    fn instances(&self, report: &mut Report) -> Vec<Option<Instance>> {
        let mut known = Known::new();
        let mut instances = Vec::new();
        for &number in &self.links.order {
            let axes: Vec<usize> = self.links.axes[number].iter().copied().collect();
            for cell in self.matrix.project(&axes) {
                known.insert((number, label(&cell)), instances.len());
                let instance = self.instance(number, cell, &known, &instances, report);
                instances.push(instance);
            }
        }
        instances
    }

    fn instance(
        &self,
        number: usize,
        cell: Vec<(String, Value)>,
        known: &Known,
        instances: &[Option<Instance>],
        report: &mut Report,
    ) -> Option<Instance> {
        let stage = &self.spec.stages[number];
        let path = stage.path();
        let scope = Scope::new(self.vars, &cell.iter().cloned().collect());
        let kind = self.kind(stage, &scope, report)?;
        let inputs = self.inputs(number, &cell, &scope, kind.as_ref(), (known, instances), report);
        let limits = limit::read(stage, &scope, report);
        let with = child(&path, "with");
        let mut value = eval(&stage.with, &with, &scope, report)?;
        let old_names = old_names(&mut value, kind.info(), &with, report)?;
        let params = match kind.params(value) {
            Ok(params) => params,
            Err(errors) => {
                for error in errors {
                    report.field(&with, as_written(error, &old_names));
                }
                return None;
            }
        };
        let (files, absent) = match kind.files(&params, self.base) {
            Ok(files) => self.files(files, &with, report),
            Err(error) => {
                let absent = error.absent;
                report.field(&with, error);
                (absent.then(Vec::new), absent)
            }
        };
        let inputs = inputs?;
        let facts: BTreeMap<&str, &Value> = inputs
            .iter()
            .map(|(port, &from)| (port.as_str(), instances[from].as_ref().map_or(&Value::Null, |from| &from.facts)))
            .collect();
        let facts = match kind.describe(&params, &DescribeCx::new(self.base, facts)) {
            Ok(facts) => facts,
            // Without its files a stage cannot say anything sensible.
            Err(_) if files.is_none() => return None,
            Err(mut errors) => {
                // Where some are not here, what it says of files may be due to that.
                errors.retain(|error| !absent || error.kind == ErrorKind::Pipeline);
                let mistaken = !errors.is_empty();
                for error in errors {
                    report.field(&with, as_written(error, &old_names));
                }
                if mistaken {
                    return None;
                }
                Value::Null
            }
        };
        let name = if cell.is_empty() { stage.id.clone() } else { format!("{}[{}]", stage.id, label(&cell)) };
        let (source, place) = report.places.key(&path);
        let source = Arc::clone(source);
        let (stage, files, limits) = (stage.id.clone(), files?, limits?);
        Some(Instance { name, stage, cell, kind, params, inputs, files, facts, limits, source, place })
    }

    fn kind(&self, stage: &StageSpec, scope: &Scope, report: &mut Report) -> Option<Arc<dyn ErasedStage>> {
        if stage.uses.is_empty() {
            return None;
        }
        let path = child(&stage.path(), "uses");
        // A mistake in an expression has been reported with the stage's mentions.
        let name = Template::parse(&stage.uses).ok()?.eval(scope).ok()?;
        let name = name.as_str().unwrap_or(&stage.uses);
        let kind = self.catalogue.get(name);
        if kind.is_none() {
            report.value(&path, format!("there is no stage kind `{name}`"), |it| {
                it.label("unknown stage kind")
                    .expected(one_of(self.catalogue.names()))
                    .hint(did_you_mean(name, self.catalogue.names()))
            });
        }
        kind.cloned()
    }

    /// The instance at each port; `None` when one is missing, wrong or has mistakes of its own.
    fn inputs(
        &self,
        number: usize,
        cell: &[(String, Value)],
        scope: &Scope,
        kind: &dyn ErasedStage,
        (known, instances): (&Known, &[Option<Instance>]),
        report: &mut Report,
    ) -> Option<BTreeMap<String, usize>> {
        let stage = &self.spec.stages[number];
        let info = kind.info();
        let under = child(&stage.path(), "inputs");
        let mut inputs = Some(BTreeMap::new());
        for (name, from) in &stage.inputs {
            let path = child(&under, name);
            let Some(port) = info.port(name) else {
                let names = || info.inputs.iter().map(|port| port.name);
                report.key(&path, format!("`{}` has no input `{name}`", info.name), |it| {
                    let expected = if info.inputs.is_empty() { "no inputs".to_owned() } else { one_of(names()) };
                    it.label("unknown input").expected(expected).hint(did_you_mean(name, names()))
                });
                inputs = None;
                continue;
            };
            let upstream = self.upstream(number, name, from, cell, scope, known);
            let Some((at, upstream)) = upstream.and_then(|at| Some((at, instances[at].as_ref()?))) else {
                inputs = None;
                continue;
            };
            let output = upstream.kind.info().output;
            if !port.accepts.contains(&output) {
                let accepted = port.accepts.join("` or `");
                report.value(&path, format!("input `{name}` does not take `{output}`"), |it| {
                    it.label(format!("`{}` yields `{output}`", upstream.stage))
                        .expected(format!("a stage that yields `{accepted}`"))
                        .hint(self.yielding(port.accepts, &stage.id))
                });
                inputs = None;
                continue;
            }
            if let Some(inputs) = &mut inputs {
                inputs.insert(name.clone(), at);
            }
        }
        for port in info.inputs.iter().filter(|port| port.required) {
            if !stage.inputs.iter().any(|(name, _)| name == port.name) {
                let at = if stage.inputs.is_empty() { stage.path() } else { under.clone() };
                report.key(&at, format!("`{}` needs the input `{}`", info.name, port.name), |it| {
                    it.label("incomplete")
                        .expected(format!("`{}:` and a stage that yields `{}`", port.name, port.accepts.join("` or `")))
                        .hint(self.yielding(port.accepts, &stage.id))
                });
                inputs = None;
            }
        }
        inputs
    }

    fn upstream(
        &self,
        number: usize,
        port: &str,
        from: &str,
        cell: &[(String, Value)],
        scope: &Scope,
        known: &Known,
    ) -> Option<usize> {
        if self.links.broken.contains(&(number, port.to_owned())) {
            return None;
        }
        let id = Template::parse(from).ok()?.eval(scope).ok()?;
        let upstream = *self.links.numbers.get(id.as_str()?)?;
        let axes = &self.links.axes[upstream];
        let on_axes = |axis: &str| axes.iter().any(|&number| self.matrix.axes[number] == axis);
        let part: Vec<_> = cell.iter().filter(|(axis, _)| on_axes(axis)).cloned().collect();
        known.get(&(upstream, label(&part))).copied()
    }

    /// "`a` yields that" for stages of this pipeline that would fit.
    fn yielding(&self, kinds: &[&str], not: &str) -> Option<String> {
        let fits = |stage: &&StageSpec| {
            stage.id != not && self.catalogue.get(&stage.uses).is_some_and(|kind| kinds.contains(&kind.info().output))
        };
        let names: Vec<_> = self.spec.stages.iter().filter(fits).map(|stage| format!("`{}`", stage.id)).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(format!("{one} yields that")),
            many => Some(format!("{} yield that", many.join(", "))),
        }
    }

    /// Full paths of external files, and whether some are not here; those are reported at their parameters and left out, and
    /// one that cannot be read otherwise leaves nothing.
    fn files(&self, files: Vec<ExternalFile>, with: &str, report: &mut Report) -> (Option<Vec<ExternalFile>>, bool) {
        let (mut found, mut some_absent) = (Some(Vec::new()), false);
        for file in files {
            let path = self.base.join(&file.path);
            let mut absent = false;
            let problem = match std::fs::metadata(&path) {
                Err(error) => {
                    absent = error.kind() == std::io::ErrorKind::NotFound;
                    Some(crate::error::plain(&error))
                }
                Ok(metadata) if metadata.is_dir() => Some("it is a folder".to_owned()),
                Ok(_) => None,
            };
            if let Some(problem) = problem {
                let message = format!("cannot read {}: {problem}", file.path.display());
                let mut error = FieldError::new(&file.field, message).expected(format!("the file for `{}`", file.name));
                error.kind = ErrorKind::Input;
                error.absent = absent;
                some_absent |= absent;
                if file.path.is_relative() {
                    error.hint = Some("paths start from the pipeline file's folder".to_owned());
                }
                report.field(with, error);
                if !absent {
                    found = None;
                }
            } else if let Some(found) = &mut found {
                found.push(ExternalFile { path, ..file });
            }
        }
        (found, some_absent)
    }
}
