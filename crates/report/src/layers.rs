//! What was written into each layer.

use std::iter::empty;

use crate::choose::{figure, legend, sentence};
use crate::curve::{self, Line, Point};
use crate::data::{Cell, LayerFacts, Layers, Level, Metric};
use crate::figure::Figure;
use crate::look::{label, looks, varying, words};
use crate::number::{decimals, fixed};
use crate::scores::axis_field;
use crate::table::{Column, Field, Table};

/// Panels of the figure: the first metrics.
const PANELS: usize = 4;

impl Layers {
    /// The rows with what their lines and fields are told apart by: the cell, and the weight where layers have several that are edited.
    fn cells(&self) -> Vec<(Cell, &LayerFacts)> {
        let several = self.rows.iter().any(|row| row.module != self.rows[0].module);
        let cell = |row: &LayerFacts| {
            let weight = several.then(|| ("weight".to_owned(), Level::Text(row.module.clone())));
            row.cell.iter().cloned().chain(weight).collect()
        };
        self.rows.iter().map(|row| (cell(row), row)).collect()
    }

    /// What is edited, where it is one weight of each layer.
    fn weight(&self) -> String {
        let one = self.rows.first().map(|row| row.module.as_str()).filter(|module| !module.is_empty());
        let one = one.filter(|module| self.rows.iter().all(|row| row.module == *module));
        one.map(|module| format!(", {module}")).unwrap_or_default()
    }

    /// What values are means over.
    fn means(&self) -> String {
        if self.repeated.is_empty() {
            return "means over batches".to_owned();
        }
        format!("means over batches and values of {}", self.repeated.join(", "))
    }

    /// Lines over the layers, one for each cell.
    pub fn figure(&self) -> Option<Figure> {
        let rows = self.cells();
        let mut cells: Vec<&Cell> = Vec::new();
        for (cell, _) in &rows {
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
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
                    rows.iter().filter(|(of, _)| of == *cell).filter_map(|(_, row)| point(row)).collect();
                points.sort_by(|a, b| a.x.total_cmp(&b.x));
                Line { look, label: label(cell, &axes), points }
            });
            curve::panel(metric, "layer", &levels, &lines.collect::<Vec<_>>())
        };
        let panels = self.metrics.iter().enumerate().take(PANELS).map(panel).collect();
        let legend = legend(cells.iter().map(|cell| label(cell, &axes)).zip(drawn.iter().copied()));
        let bars = if self.rows.iter().any(|row| row.batches > 1) {
            format!(" {}; bars reach from the least to the greatest.", sentence(&self.means()))
        } else {
            String::new()
        };
        let caption = format!("{}, layer by layer{}.{bars}", words(&self.stage), self.weight());
        Some(figure(&format!("{}-layers", self.stage), &caption, panels, &legend, &axes, false))
    }

    /// All values.
    pub fn table(&self) -> Table {
        let rows = self.cells();
        let cells: Vec<&Cell> = rows.iter().map(|(cell, _)| cell).collect();
        let axes = if cells.is_empty() { Vec::new() } else { varying(&cells) };
        let mut columns: Vec<Column> = axes.iter().map(|axis| Column::text(&words(axis))).collect();
        columns.push(Column::number("layer", "", ""));
        columns.push(Column::number("batches", "", ""));
        columns.extend(self.metrics.iter().map(|metric| {
            let unit = if metric.percent { " (%)" } else { "" };
            Column::number(&metric.label, unit, &metric.doc)
        }));
        let digits: Vec<usize> = (0..self.metrics.len())
            .map(|at| decimals(self.metrics[at].percent, self.rows.iter().map(|row| row.values[at].mean), empty()))
            .collect();
        let row = |(cell, row): &(Cell, &LayerFacts)| {
            let mut fields: Vec<Field> = axes.iter().map(|axis| axis_field(cell, axis)).collect();
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
            caption: sentence(&format!("{}, layer by layer{}: {}.", words(&self.stage), self.weight(), self.means())),
            columns,
            rows: rows.iter().map(row).collect(),
            note: String::new(),
            aside: true,
        }
    }
}
