//! The graph for Graphviz.

use super::model::{Graph, State};

/// Draws the graph.
pub fn draw(graph: &Graph) -> String {
    let mut text = format!(
        "digraph \"{}\" {{\n  node [shape=box style=rounded fontname=\"Helvetica\" fontsize=11]\n",
        escape(&graph.name)
    );
    for (at, node) in graph.nodes.iter().enumerate() {
        let says = if node.state == State::Unknown { String::new() } else { format!("\\n{}", node.says()) };
        let label = format!("{}\\n{}{says}", escape(&node.title()), node.uses);
        text.push_str(&format!("  n{at} [label=\"{label}\"{}]\n", look(node.state)));
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        for from in &node.inputs {
            text.push_str(&format!("  n{from} -> n{at}\n"));
        }
    }
    text + "}\n"
}

fn look(state: State) -> &'static str {
    match state {
        State::Cached => " color=\"#2e9e5b\" penwidth=2",
        State::WillRun => " color=\"#c98a00\" style=\"rounded,dashed\" penwidth=2",
        State::Depends => " color=\"#8a8f98\" style=\"rounded,dashed\"",
        State::Mixed => " color=\"#c98a00\" penwidth=2",
        State::Working => " color=\"#3b82f6\" penwidth=3",
        State::Failed => " color=\"#d0453b\" penwidth=2",
        State::Unknown => "",
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
