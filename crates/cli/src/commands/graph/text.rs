//! The graph in lines: each stage on one of its own, what feeds it above it.

use renderdag::{Ancestor, GraphRowRenderer, Renderer};

use super::model::{Graph, Node, State};
use crate::terminal::Style;

/// Where the words of a row begin; occurs in no name.
const MARK: char = '\u{1}';

/// Draws the graph.
pub fn draw(graph: &Graph, style: &Style) -> String {
    if graph.nodes.is_empty() {
        return format!("{}: the pipeline has no stages\n", graph.name);
    }
    let inputs = graph.reduced();
    let mut feeds: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (node, from) in inputs.iter().enumerate() {
        for &from in from {
            feeds[from].push(node);
        }
    }
    let mut renderer = GraphRowRenderer::new()
        .output()
        .with_min_row_height(1)
        // Two stages that have nothing to do with each other do not stand below each other as if they had.
        .with_stagger_consecutive_disconnected_nodes(true)
        .build_box_drawing();
    let mut lines: Vec<(String, Option<usize>)> = Vec::new();
    for node in order(&inputs, &feeds) {
        // The renderer draws a node above its ancestors; here those come after it that take from it.
        let below = feeds[node].iter().map(|&next| Ancestor::Parent(next)).collect();
        let glyph = glyph(graph.nodes[node].state).to_owned();
        let drawn = renderer.next_row(node, below, glyph, MARK.to_string());
        for line in drawn.lines() {
            match line.split_once(MARK) {
                Some((lanes, _)) => lines.push((lanes.trim_end().to_owned(), Some(node))),
                None => lines.push((line.trim_end().to_owned(), None)),
            }
        }
    }
    let lanes = lines.iter().filter(|(_, node)| node.is_some()).map(|(lanes, _)| lanes.chars().count());
    let lanes = lanes.max().unwrap_or(0);
    let words = Words::of(graph, style.width.saturating_sub(lanes + 2));
    let mut text = String::new();
    for (drawn, node) in lines {
        let line = match node {
            None => drawn,
            Some(node) => {
                let state = graph.nodes[node].state;
                let padding = " ".repeat(lanes - drawn.chars().count() + 2);
                let drawn = drawn.replacen(glyph(state), &paint(style, state, glyph(state)), 1);
                format!("{drawn}{padding}{}", words.row(graph, node, style))
            }
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What stands beside the lanes, in columns.
struct Words {
    names: usize,
    uses: usize,
    says: usize,
    room: usize,
}

impl Words {
    fn of(graph: &Graph, room: usize) -> Self {
        let widest = |text: &dyn Fn(&Node) -> usize| graph.nodes.iter().map(text).max().unwrap_or(0);
        let names = widest(&|node| node.title().chars().count());
        Self { names, uses: widest(&|node| node.uses.len()), says: widest(&|node| node.says().len()), room }
    }

    fn row(&self, graph: &Graph, node: usize, style: &Style) -> String {
        let Self { names, uses, says, room } = *self;
        let node = &graph.nodes[node];
        let mut row = style.bold(&format!("{:names$}", node.title()));
        let mut left = room.saturating_sub(names);
        if left > uses + 2 + says + 2 {
            row.push_str(&format!("  {}", style.dim(&format!("{:uses$}", node.uses))));
            left -= uses + 2;
        }
        if says > 0 {
            row.push_str(&format!("  {}", paint(style, node.state, &format!("{:says$}", node.says()))));
            left = left.saturating_sub(says + 2);
        }
        // A cell takes from its own, so that the stage's name says it.
        let mut from: Vec<&str> = node.inputs.iter().map(|&from| graph.nodes[from].stage.as_str()).collect();
        from.dedup();
        let from = format!("← {}", from.join(", "));
        if !node.inputs.is_empty() && from.chars().count() + 2 <= left {
            row.push_str(&format!("  {}", style.dim(&from)));
        }
        row
    }
}

fn glyph(state: State) -> &'static str {
    match state {
        State::Cached => "●",
        State::Mixed => "◐",
        State::Failed => "✗",
        State::Working => "◉",
        State::WillRun | State::Depends | State::Unknown => "○",
    }
}

fn paint(style: &Style, state: State, text: &str) -> String {
    match state {
        State::Cached => style.green(text),
        State::WillRun | State::Mixed | State::Working => style.yellow(text),
        State::Failed => style.red(text),
        State::Depends => style.dim(text),
        State::Unknown => text.to_owned(),
    }
}

/// An order in which each node comes after those that feed it, and as late as it can: lanes stay few.
fn order(inputs: &[Vec<usize>], feeds: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; inputs.len()];
    let mut ends: Vec<usize> = (0..inputs.len()).filter(|&node| feeds[node].is_empty()).collect();
    while !ends.is_empty() {
        // An end that all is there for closes a lane; any other opens some.
        let ready = |&end: &usize| !inputs[end].is_empty() && inputs[end].iter().all(|&from| seen[from]);
        let ready = ends.iter().position(ready);
        let end = ends.remove(ready.unwrap_or(0));
        // A node is pushed a second time, to be taken once all that feeds it was.
        let mut todo = vec![(end, false)];
        while let Some((node, fed)) = todo.pop() {
            if fed {
                order.push(node);
            } else if !std::mem::replace(&mut seen[node], true) {
                todo.push((node, true));
                todo.extend(inputs[node].iter().rev().map(|&from| (from, false)));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_columns() {
        let node = |stage: &str, cells: usize, state: State, inputs: &[usize]| Node {
            stage: stage.to_owned(),
            name: None,
            cell: String::new(),
            cells,
            uses: "kind",
            state,
            cached: usize::from(state == State::Mixed),
            inputs: inputs.to_vec(),
        };
        let nodes = vec![
            node("model", 1, State::Cached, &[]),
            node("edits", 1, State::Cached, &[]),
            node("contexts", 1, State::Cached, &[0]),
            node("moments", 1, State::WillRun, &[0]),
            node("targets", 1, State::Failed, &[0, 1, 2]),
            node("plan", 2, State::Mixed, &[]),
            node("update", 6, State::Depends, &[0, 1, 2, 3, 4, 5]),
            node("scores", 6, State::Depends, &[1, 6]),
            node("out", 6, State::Depends, &[6]),
            node("alone", 1, State::Working, &[]),
        ];
        let graph = Graph { name: "test".to_owned(), nodes };
        let style = |width| Style { color: false, terminal: true, width };
        insta::assert_snapshot!(format!("{}────────\n{}", draw(&graph, &style(100)), draw(&graph, &style(50))));
        insta::assert_snapshot!("mermaid", super::super::mermaid::draw(&graph));
        insta::assert_snapshot!("dot", super::super::dot::draw(&graph));
        insta::assert_snapshot!("svg", super::super::svg::draw(&graph));
    }
}
