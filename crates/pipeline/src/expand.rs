//! The second step: what the variables and axes of a pipeline are worth, and which axes each stage mentions.
//!
//! Stages themselves are multiplied out in the next step: a stage also has the axes of all that it takes inputs from.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::eval::{eval, mentions};
use super::expr::{Mention, Scope, Template};
use super::matrix::Matrix;
use super::places::child;
use super::report::Report;
use super::spec::{Spec, StageSpec, texts};
use super::yaml::Tree;
use palinode_error::{did_you_mean, one_of};

/// A pipeline whose variables and axes have values.
pub struct Expanded {
    /// The pipeline as written.
    pub spec: Spec,
    /// The variables.
    pub vars: Map<String, Value>,
    /// The axes and their cells.
    pub matrix: Matrix,
    /// What each stage mentions, by stage number.
    pub mentioned: Vec<Mentioned>,
}

/// The axes, by number, that a stage mentions.
pub struct Mentioned {
    /// Anywhere in it.
    pub axes: BTreeSet<usize>,
    /// In each of its inputs.
    pub by_input: Vec<BTreeSet<usize>>,
}

/// Evaluates variables and axes. Names that are neither, wherever they stand, are reported.
pub fn expand(spec: Spec, report: &mut Report) -> Expanded {
    let vars = variables(&spec, report);
    let matrix = Matrix::read(&spec, &vars, report);
    let mentioned: Vec<Mentioned> = spec.stages.iter().map(|stage| mentioned(stage, &vars, &matrix, report)).collect();
    // A text that does not parse may mention anything, and an axis that has no values is a mistake already. What stands where parameters
    // should be is a mistake that is told later: the axes went with them.
    let whole = spec.stages.iter().all(|stage| matches!(stage.with, Tree::Map(_) | Tree::Null));
    if report.mistakes.0.is_empty() && whole {
        unread_axes(&matrix, &mentioned, report);
    }
    unread_variables(&spec, report);
    Expanded { spec, vars, matrix, mentioned }
}

/// Reports axes that no stage mentions: their cells would be one and the same, and a forgotten `${matrix.seed}` would give one run in
/// place of three. With one value nothing is lost, and it is a warning.
fn unread_axes(matrix: &Matrix, mentioned: &[Mentioned], report: &mut Report) {
    for (number, axis) in matrix.axes.iter().enumerate() {
        if mentioned.iter().any(|stage| stage.axes.contains(&number)) {
            continue;
        }
        if matrix.project(&[number]).len() < 2 {
            report.warn(&child("matrix", axis), format!("no stage reads the axis `{axis}`"));
        } else {
            report.key(&child("matrix", axis), format!("no stage reads the axis `{axis}`"), |it| {
                it.label("its cells would all be the same").expected(format!("`${{matrix.{axis}}}` in a stage"))
            });
        }
    }
}

/// Says which variables nobody reads: a warning where the file itself defines them, a mistake where an override gives one a value. Those of an
/// included file are for other pipelines as well.
fn unread_variables(spec: &Spec, report: &mut Report) {
    let mut read: BTreeSet<String> = BTreeSet::new();
    let mut all = false;
    let mut note = |text: &str| {
        for Mention { root, name, .. } in
            Template::parse(text).and_then(|template| template.mentions()).unwrap_or_default()
        {
            match name {
                Some(name) if root == "vars" => drop(read.insert(name)),
                None if root == "vars" => all = true,
                _ => {}
            }
        }
    };
    let axes = spec.axes.iter().map(|(_, tree)| tree).chain(&spec.include).chain(&spec.exclude);
    for tree in spec.vars.iter().map(|(_, tree)| tree).chain(axes) {
        texts(tree, "", &mut |_, text| note(text));
    }
    for stage in &spec.stages {
        note(&stage.uses);
        stage.inputs.iter().for_each(|(_, from)| note(from));
        for tree in [&stage.with, &stage.retries, &stage.timeout] {
            texts(tree, "", &mut |_, text| note(text));
        }
    }
    for (name, _) in spec.vars.iter().filter(|(name, _)| !all && !read.contains(name)) {
        let path = child("vars", name);
        let source = Arc::clone(report.places.key(&path).0);
        if let Some(set) = report.places.set_within(&path) {
            let names = || spec.vars.iter().map(|(name, _)| name.as_str()).filter(|name| read.contains(*name));
            report.key(&set, format!("nothing reads the variable `{name}`"), |it| {
                let expected =
                    if names().next().is_none() { "no variable: none is read".to_owned() } else { one_of(names()) };
                it.label("has no effect").expected(expected).hint(did_you_mean(name, names()))
            });
        } else if source.name == report.places.key("").0.name && !report.places.is_anchored(&path) {
            report.warn(&path, format!("nothing reads the variable `{name}`"));
        }
    }
}

impl Expanded {
    /// What the expressions of a stage in one cell can use.
    pub fn scope(&self, cell: &[(String, Value)]) -> Scope {
        Scope::new(&self.vars, &cell.iter().cloned().collect())
    }
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

fn mentioned(stage: &StageSpec, vars: &Map<String, Value>, matrix: &Matrix, report: &mut Report) -> Mentioned {
    let path = stage.path();
    let mut axes = BTreeSet::new();
    let mut own = |path: &str, text: &str| axes.extend(axes_of(text, path, vars, matrix, report));
    own(&child(&path, "uses"), &stage.uses);
    for (key, tree) in [("with", &stage.with), ("retries", &stage.retries), ("timeout", &stage.timeout)] {
        texts(tree, &child(&path, key), &mut own);
    }
    let under = child(&path, "inputs");
    let inputs = stage.inputs.iter();
    let by_input: Vec<BTreeSet<usize>> =
        inputs.map(|(port, from)| axes_of(from, &child(&under, port), vars, matrix, report)).collect();
    axes.extend(by_input.iter().flatten());
    Mentioned { axes, by_input }
}

/// The axes that a text mentions. Names that are neither variables nor axes are reported.
fn axes_of(text: &str, path: &str, vars: &Map<String, Value>, matrix: &Matrix, report: &mut Report) -> BTreeSet<usize> {
    let mut axes = BTreeSet::new();
    for Mention { root, name, expr } in mentions(text, path, report) {
        match (root.as_str(), name) {
            ("vars", Some(name)) if !vars.contains_key(&name) => {
                let names = || vars.keys().map(String::as_str);
                report.part(path, &expr, format!("there is no variable `{name}`"), |it| {
                    let none = names().next().is_none();
                    let expected =
                        if none { "a variable of `vars:`, which has none".to_owned() } else { one_of(names()) };
                    it.label("unknown variable").expected(expected).hint(did_you_mean(&name, names()))
                });
            }
            ("matrix", Some(name)) => {
                if let Some(axis) = matrix.axes.iter().position(|axis| *axis == name) {
                    axes.insert(axis);
                } else {
                    let names = || matrix.axes.iter().map(String::as_str);
                    report.part(path, &expr, format!("the matrix has no axis `{name}`"), |it| {
                        let none = names().next().is_none();
                        let expected =
                            if none { "an axis of `matrix:`, which has none".to_owned() } else { one_of(names()) };
                        it.label("unknown axis").expected(expected).hint(did_you_mean(&name, names()))
                    });
                }
            }
            ("matrix", None) => axes.extend(0..matrix.axes.len()),
            ("vars", _) => {}
            (root, _) => report.part(path, &expr, format!("`{root}` is not known here"), |it| {
                let hint = if vars.contains_key(root) { Some(format!("write `vars.{root}`")) } else { None };
                let hint = hint
                    .or_else(|| matrix.axes.iter().any(|axis| axis == root).then(|| format!("write `matrix.{root}`")));
                it.label("unknown name").expected("`vars.…` or `matrix.…`").hint(hint)
            }),
        }
    }
    axes
}
