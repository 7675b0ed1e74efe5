//! The axes of a pipeline and the cells that they span.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::cell::{Cell, CellId};
use super::eval::eval;
use super::expr::Scope;
use super::places::{child, item};
use super::report::Report;
use super::spec::Spec;
use super::yaml::Tree;
use palinode_error::{did_you_mean, one_of};

/// More cells than anyone means to have.
const MOST: usize = 100_000;

/// Axes in the order of the file, and the cells: one value for each axis.
#[derive(Debug, Default)]
pub struct Matrix {
    /// The names of the axes.
    pub axes: Vec<String>,
    cells: Vec<Vec<Value>>,
}

impl Matrix {
    /// Evaluates the axes and spans the cells: their product, without what `exclude` matches, with what `include` adds.
    pub fn read(spec: &Spec, vars: &Map<String, Value>, report: &mut Report) -> Self {
        let scope = Scope::new(vars, &Map::new());
        let mut matrix = Self { axes: Vec::new(), cells: vec![Vec::new()] };
        for (name, tree) in &spec.axes {
            let path = child("matrix", name);
            let mut values = values(tree, &path, &scope, report);
            if values.len().saturating_mul(matrix.cells.len()) > MOST {
                report.key(&path, format!("the matrix has more than {MOST} cells"), |it| it.label("with this axis"));
                // The rest is checked in one cell: what is wrong with it is wrong in all of them.
                matrix.cells.truncate(1);
                values.truncate(1);
            }
            matrix.axes.push(name.clone());
            matrix.cells = matrix.cells.iter().flat_map(|cell| values.iter().map(|value| with(cell, value))).collect();
        }
        let excluded = matrix.entries(spec.exclude.as_ref(), "matrix.exclude", &scope, report);
        matrix.cells.retain(|cell| {
            let matches = |entry: &Vec<Option<Value>>| {
                entry.iter().zip(cell).all(|(wanted, value)| wanted.as_ref().is_none_or(|wanted| wanted == value))
            };
            !excluded.iter().any(matches)
        });
        for (index, entry) in
            matrix.entries(spec.include.as_ref(), "matrix.include", &scope, report).into_iter().enumerate()
        {
            match entry.into_iter().collect::<Option<Vec<_>>>() {
                Some(cell) => matrix.cells.push(cell),
                None => report.value(&item("matrix.include", index), "this cell does not name every axis", |it| {
                    it.expected(format!("values for {}", matrix.axes.join(", ")))
                }),
            }
        }
        matrix
    }

    /// The distinct cells over some axes, given by their numbers in rising order.
    pub fn project(&self, axes: &[usize]) -> Vec<Cell> {
        if axes.is_empty() {
            return if self.cells.is_empty() { Vec::new() } else { vec![Vec::new()] };
        }
        let mut distinct: Vec<Cell> = Vec::new();
        let mut seen = HashSet::new();
        for cell in &self.cells {
            let part: Cell = axes.iter().map(|&axis| (self.axes[axis].clone(), cell[axis].clone())).collect();
            if seen.insert(CellId::of(&part)) {
                distinct.push(part);
            }
        }
        distinct
    }

    /// The axes along which the same is only repeated, such as seeds: one name or a list of names.
    pub fn replicates(&self, tree: Option<&Tree>, report: &mut Report) -> Vec<String> {
        let path = "replicates";
        let named: Vec<(String, &Tree)> = match tree {
            None => return Vec::new(),
            Some(Tree::List(items)) => items.iter().enumerate().map(|(at, tree)| (item(path, at), tree)).collect(),
            Some(one) => vec![(path.to_owned(), one)],
        };
        let mut axes = Vec::new();
        for (path, tree) in named {
            let names = || self.axes.iter().map(String::as_str);
            match tree {
                Tree::Text(name) if self.axes.contains(name) => {
                    if !axes.contains(name) {
                        axes.push(name.clone());
                    }
                }
                Tree::Text(name) => report.value(&path, format!("the matrix has no axis `{name}`"), |it| {
                    let axes = if self.axes.is_empty() { "an axis of `matrix`".to_owned() } else { one_of(names()) };
                    it.expected(axes).hint(did_you_mean(name, names()))
                }),
                other => report.value(&path, format!("`replicates` is {}", other.what()), |it| {
                    it.expected("the name of an axis of `matrix`, or a list of such names")
                }),
            }
        }
        axes
    }

    fn entries(&self, tree: Option<&Tree>, path: &str, scope: &Scope, report: &mut Report) -> Vec<Vec<Option<Value>>> {
        let items = match tree {
            None => return Vec::new(),
            Some(Tree::List(items)) => items,
            Some(other) => {
                report.value(path, format!("`{path}` is {}", other.what()), |it| it.expected("a list of cells"));
                return Vec::new();
            }
        };
        let mut entries = Vec::new();
        for (index, tree) in items.iter().enumerate() {
            let path = item(path, index);
            let Tree::Map(pairs) = tree else {
                report.value(&path, format!("a cell is {}", tree.what()), |it| it.expected("a value for each axis"));
                continue;
            };
            let mut entry = vec![None; self.axes.len()];
            for (name, tree) in pairs {
                let path = child(&path, name);
                let names = || self.axes.iter().map(String::as_str);
                match self.axes.iter().position(|axis| axis == name) {
                    Some(axis) => entry[axis] = eval(tree, &path, scope, report),
                    None => report.key(&path, format!("the matrix has no axis `{name}`"), |it| {
                        it.expected(one_of(names())).hint(did_you_mean(name, names()))
                    }),
                }
            }
            entries.push(entry);
        }
        entries
    }
}

fn values(tree: &Tree, path: &str, scope: &Scope, report: &mut Report) -> Vec<Value> {
    let values = match eval(tree, path, scope, report) {
        Some(Value::Array(values)) => values,
        Some(_) => {
            report.value(path, format!("`{path}` is {}", tree.what()), |it| it.expected("a list of values"));
            return Vec::new();
        }
        None => return Vec::new(),
    };
    if values.is_empty() {
        report.value(path, format!("`{path}` is empty, so no stage that uses it would run"), |it| {
            it.expected("one value or more")
        });
    }
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if !seen.insert(value.to_string()) {
            report.value(&item(path, index), format!("`{path}` has this value twice"), |it| it.label("again"));
        }
    }
    values
}

fn with(cell: &[Value], value: &Value) -> Vec<Value> {
    cell.iter().chain([value]).cloned().collect()
}
