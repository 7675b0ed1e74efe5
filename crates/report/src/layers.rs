//! What was written into each layer.

use crate::choose::{figure, legend, sentence};
use crate::curve::{self, Line, Point};
use crate::data::{Cell, LayerFacts, Layers, Metric};
use crate::figure::Figure;
use crate::look::{label, looks, varying, words};
use crate::number::{decimals, fixed};
use crate::scores::axis_field;
use crate::table::{Column, Field, Table};

/// Panels of the figure: the first metrics.
const PANELS: usize = 4;

impl Layers {
    fn cells(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = Vec::new();
        for row in &self.rows {
            if !cells.contains(&&row.cell) {
                cells.push(&row.cell);
            }
        }
        cells
    }

    /// Lines over the layers, one for each cell.
    pub fn figure(&self) -> Option<Figure> {
        let cells = self.cells();
        if cells.is_empty() {
            return None;
        }
        let (axes, drawn) = (varying(&cells), looks(&cells));
        let levels: Vec<f64> = self.rows.iter().map(|row| row.layer as f64).collect();
        let panel = |(at, metric): (usize, &Metric)| {
            let lines = cells.iter().zip(&drawn).map(|(cell, &look)| {
                let point = |row: &LayerFacts| {
                    let spread = row.values[at];
                    let interval = (row.batches > 1).then_some([spread.min, spread.max]);
                    spread.mean.is_finite().then_some(Point { x: row.layer as f64, y: spread.mean, interval })
                };
                let mut points: Vec<Point> =
                    self.rows.iter().filter(|row| row.cell == **cell).filter_map(point).collect();
                points.sort_by(|a, b| a.x.total_cmp(&b.x));
                Line { look, label: label(cell, &axes), points }
            });
            curve::panel(metric, "layer", &levels, &lines.collect::<Vec<_>>())
        };
        let panels = self.metrics.iter().enumerate().take(PANELS).map(panel).collect();
        let legend = legend(cells.iter().map(|cell| label(cell, &axes)).zip(drawn.iter().copied()));
        let bars = if self.rows.iter().any(|row| row.batches > 1) {
            " Means over batches; bars reach from the least to the greatest."
        } else {
            ""
        };
        let caption = format!("{}, layer by layer.{bars}", words(&self.stage));
        Some(figure(&format!("{}-layers", self.stage), &caption, panels, &legend, &axes, false))
    }

    /// All values.
    pub fn table(&self) -> Table {
        let cells = self.cells();
        let axes = if cells.is_empty() { Vec::new() } else { varying(&cells) };
        let mut columns: Vec<Column> = axes.iter().map(|axis| Column::text(&words(axis))).collect();
        columns.push(Column::number("layer", "", ""));
        columns.push(Column::number("batches", "", ""));
        columns.extend(self.metrics.iter().map(|metric| {
            let unit = if metric.percent { " (%)" } else { "" };
            Column::number(&metric.label, unit, &metric.doc)
        }));
        let digits: Vec<usize> = (0..self.metrics.len())
            .map(|at| decimals(self.metrics[at].percent, self.rows.iter().map(|row| row.values[at].mean)))
            .collect();
        let row = |row: &LayerFacts| {
            let mut fields: Vec<Field> = axes.iter().map(|axis| axis_field(&row.cell, axis)).collect();
            fields.push(Field::text(row.layer.to_string()));
            fields.push(Field::text(row.batches.to_string()));
            fields.extend(row.values.iter().zip(&self.metrics).zip(&digits).map(|((spread, metric), &digits)| Field {
                ends: (row.batches > 1).then_some([spread.min, spread.max]),
                ..Field::shown(fixed(spread.mean, metric.percent, digits), spread.mean.to_string())
            }));
            fields
        };
        Table {
            name: format!("{}-layers", self.stage),
            caption: sentence(&format!("{}, layer by layer: means over batches.", words(&self.stage))),
            columns,
            rows: self.rows.iter().map(row).collect(),
            note: String::new(),
            aside: true,
        }
    }
}
