//! Parts of pipelines: files that others include. What a part does not have may stand in another file, so nothing is missing in one; what
//! it has is checked as far as it can be by itself.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::check::{unknown_input, unknown_kind};
use super::files::{Disk, Files};
use super::include;
use super::places::child;
use super::report::Report;
use super::spec::{self, Form, StageSpec};
use super::yaml::Tree;
use crate::diagnostic::{Diagnostics, Source};
use crate::kinds::Kinds;
use crate::renamed::to_new;

/// What a part has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its stages, whole or not, with those that it includes.
    pub stages: usize,
    /// Stages whose kind stands in it: their parameters were checked.
    pub checked: usize,
    /// What is not wrong, and yet not as it should be.
    pub warnings: Diagnostics,
}

impl Part {
    /// Checks a file that other files include, with what it includes itself.
    ///
    /// # Errors
    /// All mistakes that can be seen without those other files.
    pub fn check(source: &Arc<Source>, base: &Path, catalogue: &Kinds) -> Result<Self, Diagnostics> {
        Self::check_in(&Disk, source, base, catalogue)
    }

    /// As [`Part::check`], among these files.
    ///
    /// # Errors
    /// As [`Part::check`].
    pub fn check_in(
        files: &dyn Files,
        source: &Arc<Source>,
        base: &Path,
        catalogue: &Kinds,
    ) -> Result<Self, Diagnostics> {
        let (tree, mut report) = include::read(source, base, files)?;
        let spec = spec::read(&tree, Form::Part, &mut report);
        let known: Vec<bool> = spec.stages.iter().map(|stage| check_stage(stage, catalogue, &mut report)).collect();
        report.mistakes.check(source)?;
        let checked = known.iter().filter(|known| **known).count();
        Ok(Self { stages: known.len(), checked, warnings: report.warnings.sorted(source) })
    }
}

/// Checks what a stage has; `false` where its kind is not known.
fn check_stage(stage: &StageSpec, catalogue: &Kinds, report: &mut Report) -> bool {
    let path = stage.path();
    if stage.uses.is_empty() || stage.uses.contains("${") {
        return false;
    }
    let Some(kind) = catalogue.get(&stage.uses) else {
        unknown_kind(catalogue, &stage.uses, &child(&path, "uses"), report);
        return false;
    };
    let info = kind.info();
    let under = child(&path, "inputs");
    for (name, _) in stage.inputs.iter().filter(|(name, _)| info.port(name).is_none()) {
        unknown_input(info, name, &child(&under, name), report);
    }
    let with = child(&path, "with");
    let pairs = match &stage.with {
        Tree::Map(pairs) => pairs,
        Tree::Null => return true,
        other => {
            report.value(&with, format!("`with` is {}", other.what()), |it| it.expected("a mapping"));
            return true;
        }
    };
    // What an expression is worth is known where the part is included.
    let open: Vec<&str> = pairs.iter().filter(|(_, tree)| is_open(tree)).map(|(name, _)| name.as_str()).collect();
    let value = |(name, tree): &(String, Tree)| {
        let value = if open.contains(&name.as_str()) { Value::Null } else { tree.to_value() };
        (name.clone(), value)
    };
    let mut value = Value::Object(pairs.iter().map(value).collect::<Map<_, _>>());
    to_new(&mut value, info.renamed);
    for error in kind.params(value).err().unwrap_or_default() {
        let top = error.field.split(['.', '[']).next().unwrap_or_default();
        let due = error.missing || !error.name_at_fault && open.contains(&top);
        if !due {
            report.field(&with, error);
        }
    }
    true
}

/// Whether a value holds an expression, or takes something away.
fn is_open(tree: &Tree) -> bool {
    match tree {
        Tree::Text(text) => text.contains("${"),
        Tree::List(items) => items.iter().any(is_open),
        Tree::Map(pairs) => pairs.iter().any(|(_, tree)| is_open(tree)),
        Tree::Null => true,
        _ => false,
    }
}
