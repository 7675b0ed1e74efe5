//! A run's results as one HTML page that needs nothing else, with every figure as SVG and every table as CSV and LaTeX.
//!
//! Plain data in ([`Report`]), text out ([`Document`]): nothing here knows a store, a pipeline file or a metric. What to draw is
//! decided by the shape of the data alone: axes that are numbers become curves, two axes that are words a heat map.

mod beside;
mod choose;
mod curve;
mod data;
mod document;
mod dots;
mod edits;
mod figure;
mod graph;
mod heat;
mod layers;
mod look;
mod losses;
mod number;
mod page;
mod places;
mod scale;
mod scores;
mod section;
mod selection;
mod svg;
mod table;

pub use data::{
    Better, Cell, Digested, Edit, Edits, Effects, Instance, LayerFacts, Layers, Level, Losses, Mark, Measure, Measured,
    Metric, Outcome, PromptEffects, Report, Row, Sample, Spread, Stage, Step, Steps, Trace, Traced,
};
pub use document::{Asset, Document, render};
pub use number::{duration, readable};

/// A cell in a few words: "memit · batch 8".
pub fn cell_name(cell: &Cell) -> String {
    let axes: Vec<&str> = cell.iter().map(|(axis, _)| axis.as_str()).collect();
    look::label(cell, &axes)
}
