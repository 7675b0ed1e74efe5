//! Which stage feeds which, before the matrix is multiplied out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use petgraph::Incoming;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use serde_json::{Map, Value};

use super::expr::{Mention, Scope, Template};
use super::matrix::Matrix;
use super::places::child;
use super::report::Report;
use super::resolve::mentions;
use super::spec::{Spec, texts};
use crate::suggest::{did_you_mean, one_of};

/// The order of stages and the axes that each depends on.
pub struct Links {
    /// Numbers of stages, each after those it takes inputs from.
    pub order: Vec<usize>,
    /// The axes that each stage depends on, by stage number.
    pub axes: Vec<BTreeSet<usize>>,
    /// Inputs, by stage number and port, that take part in a cycle or name no stage: reported already.
    pub broken: BTreeSet<(usize, String)>,
    /// The number of each stage.
    pub numbers: BTreeMap<String, usize>,
}

/// Finds links, reports inputs that name no stage, and cycles.
pub fn find(spec: &Spec, vars: &Map<String, Value>, matrix: &Matrix, report: &mut Report) -> Links {
    let numbers = spec.stages.iter().enumerate().map(|(number, stage)| (stage.id.clone(), number)).collect();
    let mut links = Links { order: Vec::new(), axes: Vec::new(), broken: BTreeSet::new(), numbers };
    let mut graph = DiGraphMap::<usize, ()>::new();
    let mut ports: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for (number, stage) in spec.stages.iter().enumerate() {
        graph.add_node(number);
        let path = stage.path();
        let mut direct = BTreeSet::new();
        let mut own = |path: &str, text: &str| direct.extend(axes_of(text, path, vars, matrix, report));
        own(&child(&path, "uses"), &stage.uses);
        for (key, tree) in [("with", &stage.with), ("retries", &stage.retries), ("timeout", &stage.timeout)] {
            texts(tree, &child(&path, key), &mut own);
        }
        for (port, from) in &stage.inputs {
            let at = child(&child(&path, "inputs"), port);
            let axes = axes_of(from, &at, vars, matrix, report);
            for name in candidates(from, &at, &axes, vars, matrix, report) {
                if let Some(&upstream) = links.numbers.get(name.as_str()) {
                    graph.add_edge(upstream, number, ());
                    ports.insert((upstream, number), port.clone());
                } else {
                    links.broken.insert((number, port.clone()));
                    let names = || links.numbers.keys().map(String::as_str).filter(|name| *name != stage.id);
                    report.value(&at, format!("no stage is named `{name}`"), |it| {
                        let none = names().next().is_none();
                        let expected = if none { "a stage beside this one".to_owned() } else { one_of(names()) };
                        it.label("no such stage").expected(expected).hint(did_you_mean(&name, names()))
                    });
                }
            }
            direct.extend(axes);
        }
        links.axes.push(direct);
    }
    links.order = sort(graph, spec, &ports, &mut links.broken, report, &mut links.axes);
    links
}

/// Sorts the stages and hands axes on downstream. Each cycle is reported and opened, so that the rest can be checked.
fn sort(
    mut graph: DiGraphMap<usize, ()>,
    spec: &Spec,
    ports: &BTreeMap<(usize, usize), String>,
    broken: &mut BTreeSet<(usize, String)>,
    report: &mut Report,
    axes: &mut [BTreeSet<usize>],
) -> Vec<usize> {
    while let Some(cycle) = cycle(&graph) {
        let (last, first) = (cycle[cycle.len() - 1], cycle[0]);
        let names: Vec<_> = cycle.iter().chain([&first]).map(|&number| spec.stages[number].id.as_str()).collect();
        let port = ports.get(&(last, first)).cloned().unwrap_or_default();
        let at = child(&child(&spec.stages[first].path(), "inputs"), &port);
        let path = names.join(" → ");
        let message = if names.len() == 2 {
            format!("stage `{}` takes its own output as input", names[0])
        } else {
            format!("stages feed each other in a circle: {path}")
        };
        report.value(&at, message, |it| it.label("closes the circle"));
        broken.insert((first, port));
        graph.remove_edge(last, first);
    }
    let order = in_order(&graph);
    for &number in &order {
        let upstream: BTreeSet<usize> =
            graph.neighbors_directed(number, Incoming).flat_map(|from| axes[from].clone()).collect();
        axes[number].extend(upstream);
    }
    order
}

/// Every stage after those it takes inputs from, otherwise in the order of the file.
fn in_order(graph: &DiGraphMap<usize, ()>) -> Vec<usize> {
    let mut missing: BTreeMap<usize, usize> =
        graph.nodes().map(|number| (number, graph.neighbors_directed(number, Incoming).count())).collect();
    let mut ready: BTreeSet<usize> =
        missing.iter().filter(|(_, count)| **count == 0).map(|(number, _)| *number).collect();
    let mut order = Vec::new();
    while let Some(number) = ready.pop_first() {
        order.push(number);
        for next in graph.neighbors(number) {
            if let Some(count) = missing.get_mut(&next) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(next);
                }
            }
        }
    }
    order
}

/// One cycle, beginning at its first stage in the file; each stage feeds the next.
fn cycle(graph: &DiGraphMap<usize, ()>) -> Option<Vec<usize>> {
    let component = tarjan_scc(graph)
        .into_iter()
        .find(|component| component.len() > 1 || graph.contains_edge(component[0], component[0]))?;
    let start = *component.iter().min()?;
    // Walk inside the component by breadth until the start comes round: the shortest way is the easiest to read.
    let mut parent: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in graph.neighbors(at).filter(|next| component.contains(next)) {
            if next == start {
                let mut path = vec![at];
                while let Some(&before) = parent.get(path.last()?) {
                    path.push(before);
                }
                path.reverse();
                return Some(path);
            }
            if let Entry::Vacant(unseen) = parent.entry(next) {
                unseen.insert(at);
                queue.push_back(next);
            }
        }
    }
    None
}

/// The axes that a text mentions. Names that are neither variables nor axes are reported.
fn axes_of(text: &str, path: &str, vars: &Map<String, Value>, matrix: &Matrix, report: &mut Report) -> BTreeSet<usize> {
    let mut axes = BTreeSet::new();
    for Mention { root, name, expr } in mentions(text, path, report) {
        match (root.as_str(), name) {
            ("vars", Some(name)) if !vars.contains_key(&name) => {
                let names = || vars.keys().map(String::as_str);
                report.part(path, &expr, format!("there is no variable `{name}`"), |it| {
                    it.label("unknown variable").expected(one_of(names())).hint(did_you_mean(&name, names()))
                });
            }
            ("matrix", Some(name)) => {
                if let Some(axis) = matrix.axes.iter().position(|axis| *axis == name) {
                    axes.insert(axis);
                } else {
                    let names = || matrix.axes.iter().map(String::as_str);
                    report.part(path, &expr, format!("the matrix has no axis `{name}`"), |it| {
                        it.label("unknown axis").expected(one_of(names())).hint(did_you_mean(&name, names()))
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

/// The stages that an input may name: one, or one for each cell that it mentions.
fn candidates(
    text: &str,
    path: &str,
    axes: &BTreeSet<usize>,
    vars: &Map<String, Value>,
    matrix: &Matrix,
    report: &mut Report,
) -> BTreeSet<String> {
    if !text.contains("${") {
        return BTreeSet::from([text.to_owned()]);
    }
    let Ok(template) = Template::parse(text) else { return BTreeSet::new() };
    let axes: Vec<usize> = axes.iter().copied().collect();
    let mut names = BTreeSet::new();
    for cell in matrix.project(&axes) {
        match template.eval(&Scope::new(vars, &cell.into_iter().collect())) {
            Ok(Value::String(name)) => {
                names.insert(name);
            }
            Ok(other) => report.value(path, format!("the input is {other}"), |it| it.expected("the name of a stage")),
            // An unknown name in it is reported already.
            Err(_) => {}
        }
    }
    names
}
