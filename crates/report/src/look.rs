//! How lines differ: by colour, by mark and by dash, so that they can be told apart in print and by everybody.

use crate::data::{Cell, Level};
use crate::svg::{Svg, n};

/// Okabe and Ito's colours, told apart with any colour vision; without the yellow, which paper swallows. The page has lighter
/// ones for its dark theme under the same class names.
const COLORS: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B7280"];
const DASHES: [&str; 4] = ["", "6 3", "2 2.5", "9 3 2 3"];
const MARKS: usize = 5;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    color: usize,
    mark: usize,
    dash: usize,
}

impl Look {
    /// The n-th of lines that differ in one way only.
    pub fn nth(at: usize) -> Self {
        Self { color: at % COLORS.len(), mark: at % MARKS, dash: at / COLORS.len() % DASHES.len() }
    }

    /// Attributes of a group that is drawn like this.
    pub fn group(self) -> String {
        format!(r#"class="c{}" color="{}""#, self.color, COLORS[self.color])
    }

    /// Attributes of a line that is drawn like this.
    pub fn line(self) -> String {
        let dash = DASHES[self.dash];
        let dash = if dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{dash}""#) };
        format!(r#"stroke-width="1.6" stroke-linejoin="round"{dash}"#)
    }

    /// Draws the mark of a point.
    pub fn mark(self, svg: &mut Svg, (x, y): (f64, f64)) {
        let fill = r#"fill="currentColor""#;
        let polygon = |svg: &mut Svg, corners: &[(f64, f64)]| {
            let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            svg.area(&corners, "");
        };
        match self.mark {
            0 => svg.push(&format!(r#"<circle cx="{}" cy="{}" r="3.2" {fill}/>"#, n(x), n(y))),
            1 => svg.rect((x - 2.9, y - 2.9), (5.8, 5.8), fill),
            2 => polygon(svg, &[(0.0, -4.0), (3.8, 2.8), (-3.8, 2.8)]),
            3 => polygon(svg, &[(0.0, -4.2), (4.2, 0.0), (0.0, 4.2), (-4.2, 0.0)]),
            _ => polygon(svg, &[(0.0, 4.0), (3.8, -2.8), (-3.8, -2.8)]),
        }
    }
}

/// The axes on which cells differ.
pub fn varying<'a>(cells: &[&'a Cell]) -> Vec<&'a str> {
    let mut axes: Vec<&str> = Vec::new();
    for (axis, _) in cells.iter().flat_map(|cell| cell.iter()) {
        let first = level(cells[0], axis);
        if !axes.contains(&axis.as_str()) && cells.iter().any(|cell| level(cell, axis) != first) {
            axes.push(axis);
        }
    }
    axes
}

/// The value of a cell on an axis.
pub fn level<'a>(cell: &'a Cell, axis: &str) -> Option<&'a Level> {
    cell.iter().find(|(name, _)| name == axis).map(|(_, level)| level)
}

/// A cell in a few words, on these axes only: "memit · batch 8".
pub fn label(cell: &Cell, axes: &[&str]) -> String {
    let word = |axis: &&str| match level(cell, axis)? {
        Level::Number(value) => Some(format!("{} {}", words(axis), crate::number::short(*value))),
        Level::Text(text) => Some(text.clone()),
    };
    axes.iter().filter_map(word).collect::<Vec<_>>().join(" · ")
}

/// A name as words.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Looks for cells: one colour for each value of the first axis on which they differ, a mark and a dash for the others.
pub fn looks(cells: &[&Cell]) -> Vec<Look> {
    let axes = varying(cells);
    let [first, rest @ ..] = axes.as_slice() else { return (0..cells.len()).map(Look::nth).collect() };
    let (mut colors, mut others): (Vec<String>, Vec<String>) = Default::default();
    let place = |known: &mut Vec<String>, name: String| {
        known.iter().position(|other| *other == name).unwrap_or_else(|| {
            known.push(name);
            known.len() - 1
        })
    };
    let mut look = |cell: &&Cell| {
        let color = place(&mut colors, label(cell, &[first]));
        if rest.is_empty() {
            return Look::nth(color);
        }
        let other = place(&mut others, label(cell, rest));
        Look { color: color % COLORS.len(), mark: other % MARKS, dash: (other + color / COLORS.len()) % DASHES.len() }
    };
    cells.iter().map(&mut look).collect()
}
