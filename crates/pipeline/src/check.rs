//! The fourth step: whether every instance fits its kind of stage. Parameters, inputs and files are looked at, and each
//! stage describes what it will yield; those below it are checked against that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::connect::Node;
use super::eval::eval;
use super::expand::Expanded;
use super::expr::{Scope, Template};
use super::field::without_out_of_range;
use super::files::Files;
use super::graph::Instance;
use super::places::child;
use super::read_limits;
use super::report::Report;
use super::spec::StageSpec;
use crate::artifact::ArtifactKind;
use crate::diagnostic::Origin;
use crate::kinds::Params;
use crate::kinds::{Kinds, Stage, StageInfo};
use crate::renamed::{OldName, to_new};
use crate::stage::{Beside, DescribeCx, ExternalFile, Taken};
use palinode_error::{ErrorKind, FieldError};
use palinode_error::{did_you_mean, one_of};

/// What instances are checked against, besides each other.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The files of the place.
    pub files: &'a dyn Files,
    /// The pipeline's folder, as a full path.
    pub base: &'a Path,
    /// The kinds of stages.
    pub catalogue: &'a Kinds,
}

/// Checks all nodes in their order and reports what does not fit. An instance with a mistake is `None`, so that those who
/// take inputs from it are spared.
pub fn check(
    expanded: &Expanded,
    nodes: Vec<Node>,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Vec<Option<Instance>> {
    let checker = Checker { stages: &expanded.spec.stages, around };
    let mut instances = Vec::new();
    for node in nodes {
        let scope = expanded.scope(&node.cell);
        let instance = checker.instance(node, &scope, &instances, report);
        instances.push(instance);
    }
    published(&instances.iter().flatten().collect::<Vec<_>>(), around, report);
    instances
}

/// Reports instances that publish to one place, where the later would overwrite the earlier, run after run; and those that publish to
/// where others read, which would be lost. Places are compared by where they really are.
fn published(instances: &[&Instance], around: &Surroundings<'_>, report: &mut Report) {
    let home = around.files.place(around.base);
    let read: Vec<(PathBuf, &Instance)> = instances
        .iter()
        .flat_map(|instance| instance.files.iter().map(|file| (around.files.place(&file.path), *instance)))
        .collect();
    let mut taken: BTreeMap<PathBuf, &Instance> = BTreeMap::new();
    for instance in instances {
        for (field, path) in instance.kind.publishes(&instance.params) {
            let at = child(&child(&child("stages", &instance.stage), "with"), field);
            if path.as_os_str().is_empty() {
                report.value(&at, format!("`{field}` of `{}` is empty", instance.stage), |it| {
                    it.expected("a path of its own")
                });
                continue;
            }
            let place = around.files.place(&around.base.join(&path));
            if home.starts_with(&place) {
                let message =
                    format!("`{}` would write into the pipeline's own folder, or one around it", instance.name);
                report.value(&at, message, |it| it.expected("a folder of its own"));
                continue;
            }
            let harmed =
                read.iter().find(|(file, _)| file.starts_with(&place) || file.parent() == Some(place.as_path()));
            if let Some((file, reader)) = harmed {
                let message =
                    format!("`{}` would overwrite what `{}` reads: {}", instance.name, reader.name, file.display());
                report.value(&at, message, |it| it.expected("a path of its own"));
                continue;
            }
            let Some(other) = taken.insert(place, instance) else { continue };
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

/// Parameters and files of an instance with those that it takes of what lies beside its input.
fn taken(
    kind: &dyn Stage,
    params: Params,
    files: Option<Vec<ExternalFile>>,
    beside: &Beside,
) -> (Params, Option<Vec<ExternalFile>>) {
    let Taken { files: more, values } = kind.takes(&params, beside);
    let files = files.map(|files| files.into_iter().chain(more).collect());
    if values.is_empty() {
        return (params, files);
    }
    let mut value = params.value.clone();
    if let Value::Object(map) = &mut value {
        map.extend(values.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    (kind.params(value).unwrap_or(params), files)
}

/// Reports a kind of stage that is not there.
pub fn unknown_kind(catalogue: &Kinds, name: &str, path: &str, report: &mut Report) {
    report.value(path, format!("there is no stage kind `{name}`"), |it| {
        it.label("unknown stage kind").expected(one_of(catalogue.names())).hint(did_you_mean(name, catalogue.names()))
    });
}

/// Reports an input that a kind of stage does not have.
pub fn unknown_input(info: &StageInfo, name: &str, path: &str, report: &mut Report) {
    let names = || info.inputs.iter().map(|port| port.name);
    report.key(path, format!("`{}` has no input `{name}`", info.name), |it| {
        let expected = if info.inputs.is_empty() { "no inputs".to_owned() } else { one_of(names()) };
        it.label("unknown input").expected(expected).hint(did_you_mean(name, names()))
    });
}

struct Checker<'a> {
    stages: &'a [StageSpec],
    around: &'a Surroundings<'a>,
}

impl Checker<'_> {
    fn instance(
        &self,
        node: Node,
        scope: &Scope,
        instances: &[Option<Instance>],
        report: &mut Report,
    ) -> Option<Instance> {
        let stage = &self.stages[node.stage];
        let path = stage.path();
        let kind = self.kind(stage, scope, report)?;
        // All of a stage is looked at before one mistake ends it, so that none hides another.
        let inputs = self.inputs(stage, &node.inputs, kind.as_ref(), instances, report);
        let limits = read_limits::read(stage, scope, report);
        let with = child(&path, "with");
        let mut value = eval(&stage.with, &with, scope, report)?;
        let old_names = old_names(&mut value, kind.info(), &with, report)?;
        let (params, mistaken) = match kind.params(value.clone()) {
            Ok(params) => (params, false),
            Err(errors) => {
                // A number that is out of range hides none of the mistakes that the stage itself would find.
                let rest = without_out_of_range(value, &errors).and_then(|rest| kind.params(rest).ok());
                for error in errors {
                    report.field(&with, as_written(error, &old_names));
                }
                (rest?, true)
            }
        };
        let (files, absent) = match kind.files(&params, self.around.base) {
            Ok(files) => self.files(files, &with, report),
            Err(error) => {
                let absent = error.absent;
                report.field(&with, error);
                (absent.then(Vec::new), absent)
            }
        };
        let inputs = inputs?;
        let beside = self.beside(kind.as_ref(), &params, &inputs, instances);
        let (params, files) = taken(kind.as_ref(), params, files, &beside);
        let facts = inputs.iter().filter_map(|(port, &from)| {
            let from = instances[from].as_ref()?;
            Some((port.as_str(), (from.kind.info().output, &from.facts)))
        });
        let facts: BTreeMap<&str, (ArtifactKind, &Value)> = facts.collect();
        let facts = match kind.describe(&params, &DescribeCx::new(self.around.base, facts)) {
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
        if mistaken {
            return None;
        }
        let Node { name, cell, .. } = node;
        let (source, place) = report.places.key(&path);
        let source = Arc::clone(source);
        let (stage, files, limits) = (stage.id.clone(), files?, limits?);
        Some(Instance { name, stage, cell, kind, params, inputs, files, beside, facts, limits, source, place })
    }

    fn kind(&self, stage: &StageSpec, scope: &Scope, report: &mut Report) -> Option<Arc<dyn Stage>> {
        if stage.uses.is_empty() {
            return None;
        }
        let path = child(&stage.path(), "uses");
        // A mistake in an expression has been reported with the stage's mentions.
        let name = Template::parse(&stage.uses).ok()?.eval(scope).ok()?;
        let name = name.as_str().unwrap_or(&stage.uses);
        let kind = self.around.catalogue.get(name);
        if kind.is_none() {
            unknown_kind(self.around.catalogue, name, &path, report);
        }
        kind.cloned()
    }

    /// What lies beside the result of an instance: its own, and what lies beside the input that it hands on.
    fn beside(
        &self,
        kind: &dyn Stage,
        params: &Params,
        inputs: &BTreeMap<String, usize>,
        instances: &[Option<Instance>],
    ) -> Arc<Beside> {
        let from = kind.info().hands_on.and_then(|port| instances[*inputs.get(port)?].as_ref());
        let own = kind.beside(params, self.around.base);
        let Some(from) = from else { return Arc::new(own) };
        if own == Beside::default() {
            return Arc::clone(&from.beside);
        }
        let files = from.beside.files.iter().cloned().chain(own.files).collect();
        Arc::new(Beside { files, name: from.beside.name.clone().or(own.name) })
    }

    /// The instance at each port; `None` when one is missing, wrong or has mistakes of its own.
    fn inputs(
        &self,
        stage: &StageSpec,
        feeders: &[Option<usize>],
        kind: &dyn Stage,
        instances: &[Option<Instance>],
        report: &mut Report,
    ) -> Option<BTreeMap<String, usize>> {
        let info = kind.info();
        let under = child(&stage.path(), "inputs");
        let mut inputs = Some(BTreeMap::new());
        for ((name, _), feeder) in stage.inputs.iter().zip(feeders) {
            let path = child(&under, name);
            let Some(port) = info.port(name) else {
                unknown_input(info, name, &path, report);
                inputs = None;
                continue;
            };
            let Some((at, upstream)) = feeder.and_then(|at| Some((at, instances[at].as_ref()?))) else {
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

    /// "`a` yields that" for stages of this pipeline that would fit.
    fn yielding(&self, kinds: &[&str], not: &str) -> Option<String> {
        let fits = |stage: &&StageSpec| {
            stage.id != not
                && self.around.catalogue.get(&stage.uses).is_some_and(|kind| kinds.contains(&kind.info().output))
        };
        let names: Vec<_> = self.stages.iter().filter(fits).map(|stage| format!("`{}`", stage.id)).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(format!("{one} yields that")),
            many => Some(format!("{} yield that", many.join(", "))),
        }
    }

    /// "did you mean `facts.json`?", of what lies in the same folder.
    fn near(&self, path: &Path) -> Option<String> {
        let names = self.around.files.names(path.parent()?);
        did_you_mean(path.file_name()?.to_str()?, names.iter().map(String::as_str))
    }

    /// Full paths of external files, and whether some are not here; those are reported at their parameters and left out, and
    /// one that cannot be read otherwise leaves nothing.
    fn files(&self, files: Vec<ExternalFile>, with: &str, report: &mut Report) -> (Option<Vec<ExternalFile>>, bool) {
        let (mut found, mut some_absent) = (Some(Vec::new()), false);
        for file in files {
            let path = self.around.base.join(&file.path);
            let mut absent = false;
            let problem = match self.around.files.is_file(&path) {
                Err(error) => {
                    absent = error.kind() == std::io::ErrorKind::NotFound;
                    Some(palinode_error::plain(&error))
                }
                Ok(true) => None,
                Ok(false) => Some("it is a folder".to_owned()),
            };
            if let Some(problem) = problem {
                let message = format!("cannot read {}: {problem}", file.path.display());
                let expected = if absent { "a file that exists" } else { "a file that can be read" };
                let mut error = FieldError::new(&file.field, message).expected(expected);
                error.kind = ErrorKind::Input;
                error.absent = absent;
                some_absent |= absent;
                error.hint = self.near(&path).filter(|_| absent).map(Into::into);
                let in_a_file = report.places.value(with).0.origin != Origin::Code;
                if error.hint.is_none() && file.path.is_relative() && in_a_file {
                    error.hint = Some("paths start from the pipeline file's folder".into());
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
