//! The graph as a picture that needs nothing else, for light pages and dark ones.

use super::layout::layout;
use super::model::{Graph, Node, State};

/// Points of a letter of each line, on average: the font is the reader's, so there is room to spare.
const LETTER: f64 = 7.6;
const SMALL: f64 = 6.2;
const HEIGHT: f64 = 46.0;
const LAYER: f64 = 84.0;
const MARGIN: f64 = 14.0;

/// Colours by state for light and dark. No state is shown by colour alone: each box names it.
const STYLE: &str = "\
  text { font-family: ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .name { font-size: 13px; font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  rect { fill: #ffffff; stroke: #8c959f; stroke-width: 1.5 }
  path { fill: none; stroke: #8c959f; stroke-width: 1.3 }
  .tip { fill: #8c959f; stroke: none }
  .cached rect { stroke: #1a7f37; fill: #f0faf3 }
  .run rect { stroke: #bf8700; fill: #fff8e5; stroke-dasharray: 5 3 }
  .depends rect { stroke-dasharray: 5 3 }
  .mixed rect { stroke: #bf8700; fill: #fff8e5 }
  .working rect { stroke: #0969da; fill: #eaf4ff; stroke-width: 2.5 }
  .failed rect { stroke: #cf222e; fill: #fff0ee }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    rect { fill: #151b23; stroke: #656c76 }
    path { stroke: #656c76 }
    .tip { fill: #656c76 }
    .cached rect { stroke: #3fb950; fill: #12261a }
    .run rect, .mixed rect { stroke: #d29922; fill: #272115 }
    .working rect { stroke: #4493f8; fill: #121d2f }
    .failed rect { stroke: #f85149; fill: #2a1517 }
  }
";

/// Draws the graph.
pub fn draw(graph: &Graph) -> String {
    let inputs = graph.reduced();
    let layout = layout(&inputs);
    let wide = graph.nodes.iter().map(width).fold(90.0, f64::max);
    let x = |units: f64| MARGIN + units * wide;
    let y = |layer: usize| MARGIN + layer as f64 * LAYER;
    let (right, bottom) = (x(layout.width) + MARGIN, y(layout.layers.saturating_sub(1)) + HEIGHT + MARGIN);
    let name = escape(&graph.name);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {right:.0} {bottom:.0}\" width=\"{right:.0}\" \
         height=\"{bottom:.0}\" role=\"img\" aria-label=\"stages of {name}\">\n<title>{name}</title>\n\
         <style>\n{STYLE}</style>\n"
    );
    for (from, to, passed) in &layout.edges {
        let ((start, above), (end, below)) = (layout.boxes[*from], layout.boxes[*to]);
        let mut stops = vec![(x(start), y(above) + HEIGHT)];
        for (index, &place) in passed.iter().enumerate() {
            let top = y(above + 1 + index);
            stops.extend([(x(place), top), (x(place), top + HEIGHT)]);
        }
        stops.push((x(end), y(below) - 5.0));
        text.push_str(&format!("<path d=\"{}\"/>\n", curve(&stops)));
        let (tip, top) = (x(end), y(below));
        let left_right = (tip - 3.5, tip + 3.5, top - 6.0);
        let (left, right, back) = left_right;
        text.push_str(&format!(
            "<path class=\"tip\" d=\"M{tip:.1} {top:.1}L{left:.1} {back:.1}L{right:.1} {back:.1}Z\"/>\n"
        ));
    }
    for (node, &(middle, layer)) in graph.nodes.iter().zip(&layout.boxes) {
        text.push_str(&boxed(graph, node, x(middle), y(layer), wide));
    }
    text + "</svg>\n"
}

fn boxed(graph: &Graph, node: &Node, middle: f64, top: f64, wide: f64) -> String {
    let (left, first, second) = (middle - wide / 2.0, top + 20.0, top + 36.0);
    let (title, below) = lines(node);
    let from: Vec<String> = node.inputs.iter().map(|&from| graph.nodes[from].title()).collect();
    let from = if from.is_empty() { String::new() } else { format!(", from {}", from.join(", ")) };
    let tip = escape(&format!("{} ({}){from}", node.title(), node.uses));
    format!(
        "<g class=\"{}\"><title>{tip}</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" \
         height=\"{HEIGHT}\" rx=\"7\"/><text class=\"name\" x=\"{middle:.1}\" y=\"{first:.1}\" \
         text-anchor=\"middle\">{}</text><text class=\"small\" x=\"{middle:.1}\" y=\"{second:.1}\" \
         text-anchor=\"middle\">{}</text></g>\n",
        node.state.class(),
        escape(&title),
        escape(&below),
    )
}

/// The two lines in a box: the name, and what it is and how it stands.
fn lines(node: &Node) -> (String, String) {
    let title = if node.cells > 1 { node.title() } else { node.stage.clone() };
    let what = if node.cell.is_empty() { node.uses } else { node.cell.as_str() };
    let says = if node.state == State::Unknown { String::new() } else { format!(" · {}", node.says()) };
    (title, format!("{what}{says}"))
}

fn width(node: &Node) -> f64 {
    let (title, below) = lines(node);
    (title.chars().count() as f64 * LETTER).max(below.chars().count() as f64 * SMALL) + 24.0
}

/// A line through these points that leaves and enters each upright.
fn curve(stops: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, &(x, y)) in stops.iter().enumerate() {
        if index == 0 {
            path.push_str(&format!("M{x:.1} {y:.1}"));
            continue;
        }
        let (before_x, before_y) = stops[index - 1];
        let half = f64::midpoint(before_y, y);
        path.push_str(&format!("C{before_x:.1} {half:.1} {x:.1} {half:.1} {x:.1} {y:.1}"));
    }
    path
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
