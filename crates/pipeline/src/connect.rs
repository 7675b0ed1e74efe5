//! The third step: which stage feeds which, and the instances of each, one for every cell that it or what feeds it depends on.
//!
//! A matrix of three objectives and two distributions has six cells, but a covariance that mentions neither axis has to run once and
//! not six times. So a stage has instances only over the axes that it depends on: those that its own text mentions, and those that the
//! stages above it depend on, handed down in the order of the graph. An instance then reads the upstream instance with the same values on
//! the axes that both have. That there is exactly one follows from the handing down: every axis of the upstream stage is an axis of this
//! one. An input may itself mention an axis (`update: solve_${objective}`); it then stands for a stage in each cell, all of which count as
//! feeding it when circles are looked for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use petgraph::Incoming;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use serde_json::Value;

use super::cell::{self, Cell, CellId};
use super::expand::Expanded;
use super::expr::Template;
use super::places::child;
use super::report::Report;
use super::spec::Spec;
use palinode_error::{did_you_mean, one_of};

/// An instance that is not checked yet: a stage in one cell, and what feeds it.
pub struct Node {
    /// The number of its stage.
    pub stage: usize,
    /// Its name.
    pub name: String,
    /// Its values of the axes that it depends on.
    pub cell: Cell,
    /// The node at each input of its stage, in their order; `None` where there is none, which is reported.
    pub inputs: Vec<Option<usize>>,
}

/// Connects all inputs. Those that name no stage, and cycles, are reported. Each node comes after those that feed it.
pub fn connect(expanded: &Expanded, report: &mut Report) -> Vec<Node> {
    let links = Links::find(expanded, report);
    // An instance is found by its stage and the values of its cell; its name is for people.
    let mut known: HashMap<(usize, CellId), usize> = HashMap::new();
    let mut nodes = Vec::new();
    for &number in &links.order {
        let axes: Vec<usize> = links.axes[number].iter().copied().collect();
        let cells = expanded.matrix.project(&axes);
        let names = cell::names(&cells);
        let id = &expanded.spec.stages[number].id;
        for (cell, label) in cells.into_iter().zip(names) {
            known.insert((number, CellId::of(&cell)), nodes.len());
            let inputs = links.inputs(number, &cell, expanded, &known);
            let name = if cell.is_empty() { id.clone() } else { format!("{id}[{label}]") };
            nodes.push(Node { stage: number, name, cell, inputs });
        }
    }
    nodes
}

/// Which stage feeds which, before they are multiplied out.
struct Links {
    /// Numbers of stages, each after those it takes inputs from.
    order: Vec<usize>,
    /// The axes that each stage depends on, by stage number.
    axes: Vec<BTreeSet<usize>>,
    /// Inputs, by stage number and port, that take part in a cycle or name no stage: reported already.
    broken: BTreeSet<(usize, String)>,
    /// The number of each stage.
    numbers: BTreeMap<String, usize>,
}

impl Links {
    fn find(expanded: &Expanded, report: &mut Report) -> Self {
        let spec = &expanded.spec;
        let numbers = spec.stages.iter().enumerate().map(|(number, stage)| (stage.id.clone(), number)).collect();
        let axes = expanded.mentioned.iter().map(|mentioned| mentioned.axes.clone()).collect();
        let mut links = Self { order: Vec::new(), axes, broken: BTreeSet::new(), numbers };
        let mut graph = DiGraphMap::<usize, ()>::new();
        let mut ports: BTreeMap<(usize, usize), String> = BTreeMap::new();
        for (number, stage) in spec.stages.iter().enumerate() {
            graph.add_node(number);
            let under = child(&stage.path(), "inputs");
            for ((port, from), axes) in stage.inputs.iter().zip(&expanded.mentioned[number].by_input) {
                let at = child(&under, port);
                for name in candidates(from, &at, axes, expanded, report) {
                    if let Some(&upstream) = links.numbers.get(name.as_str()) {
                        graph.add_edge(upstream, number, ());
                        ports.insert((upstream, number), port.clone());
                    } else {
                        links.broken.insert((number, port.clone()));
                        let names = || links.numbers.keys().map(String::as_str).filter(|name| *name != stage.id);
                        report.value(&at, format!("no stage is named `{name}`"), |it| {
                            let none = names().next().is_none();
                            let expected = if none {
                                "the name of another stage; this pipeline has none".to_owned()
                            } else {
                                one_of(names())
                            };
                            it.label("no such stage").expected(expected).hint(did_you_mean(&name, names()))
                        });
                    }
                }
            }
        }
        links.order = sort(graph, spec, &ports, &mut links.broken, report, &mut links.axes);
        links
    }

    /// The node at each input of a stage in one cell: the one with the same values, of those that are `known` so far.
    fn inputs(
        &self,
        number: usize,
        cell: &[(String, Value)],
        expanded: &Expanded,
        known: &HashMap<(usize, CellId), usize>,
    ) -> Vec<Option<usize>> {
        let scope = expanded.scope(cell);
        let input = |(port, from): &(String, String)| {
            if self.broken.contains(&(number, port.clone())) {
                return None;
            }
            let id = Template::parse(from).ok()?.eval(&scope).ok()?;
            let upstream = *self.numbers.get(id.as_str()?)?;
            let has = |axis: &str| self.axes[upstream].iter().any(|&number| expanded.matrix.axes[number] == axis);
            let part: Cell = cell.iter().filter(|(axis, _)| has(axis)).cloned().collect();
            known.get(&(upstream, CellId::of(&part))).copied()
        };
        expanded.spec.stages[number].inputs.iter().map(input).collect()
    }
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

/// The stages that an input may name: one, or one for each cell that it mentions.
fn candidates(
    text: &str,
    path: &str,
    axes: &BTreeSet<usize>,
    expanded: &Expanded,
    report: &mut Report,
) -> BTreeSet<String> {
    if !text.contains("${") {
        return BTreeSet::from([text.to_owned()]);
    }
    let Ok(template) = Template::parse(text) else { return BTreeSet::new() };
    let axes: Vec<usize> = axes.iter().copied().collect();
    let mut names = BTreeSet::new();
    for cell in expanded.matrix.project(&axes) {
        match template.eval(&expanded.scope(&cell)) {
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
