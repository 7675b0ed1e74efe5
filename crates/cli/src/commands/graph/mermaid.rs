//! The graph as a Mermaid flowchart, which Markdown viewers draw.

use super::model::{Graph, State};

/// Colours that are readable on light and dark: outlines only.
const CLASSES: [(State, &str); 6] = [
    (State::Cached, "stroke:#2e9e5b,stroke-width:2px"),
    (State::WillRun, "stroke:#c98a00,stroke-width:2px,stroke-dasharray:4"),
    (State::Depends, "stroke:#8a8f98,stroke-dasharray:4"),
    (State::Mixed, "stroke:#c98a00,stroke-width:2px"),
    (State::Working, "stroke:#3b82f6,stroke-width:3px"),
    (State::Failed, "stroke:#d0453b,stroke-width:2px"),
];

/// Draws the graph.
pub fn draw(graph: &Graph) -> String {
    let mut text = String::from("flowchart TD\n");
    for (at, node) in graph.nodes.iter().enumerate() {
        let label = format!("<b>{}</b><br>{}", escape(&node.title()), node.uses);
        text.push_str(&format!("  n{at}[\"{label}\"]\n"));
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        for from in &node.inputs {
            text.push_str(&format!("  n{from} --> n{at}\n"));
        }
    }
    for (state, look) in CLASSES {
        let members = graph.nodes.iter().enumerate().filter(|(_, node)| node.state == state);
        let members: Vec<String> = members.map(|(at, _)| format!("n{at}")).collect();
        if !members.is_empty() {
            let class = state.class();
            text.push_str(&format!("  classDef {class} {look}\n  class {} {class}\n", members.join(",")));
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
