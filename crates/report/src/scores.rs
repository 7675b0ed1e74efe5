//! The table of what a stage measured: a row for each cell, the best of each column marked.

use crate::choose::sentence;
use crate::data::{Better, Cell, Level, Measure, Measured, Metric};
use crate::look::{level, words};
use crate::number::{decimals, fixed};
use crate::table::{Column, Field, Table};

/// What stands before the name of a metric that is of the unedited model.
const BEFORE: &str = "before_";
/// What its row is called.
const UNEDITED: &str = "unedited";

impl Measured {
    /// All axes of its cells, in their order.
    pub fn axes(&self) -> Vec<&str> {
        let mut axes: Vec<&str> = Vec::new();
        for (axis, _) in self.rows.iter().flat_map(|row| &row.cell) {
            if !axes.contains(&axis.as_str()) {
                axes.push(axis);
            }
        }
        axes
    }

    /// The metrics that anything is known of, by index, without those of the unedited model.
    pub fn known(&self) -> Vec<usize> {
        let known = |at: &usize| self.rows.iter().any(|row| row.values[*at].value.is_some());
        (0..self.metrics.len()).filter(known).filter(|at| !self.metrics[*at].name.starts_with(BEFORE)).collect()
    }

    /// The value of a metric on the unedited model, where all rows agree on it.
    pub fn unedited(&self, metric: usize) -> Option<f64> {
        let name = format!("{BEFORE}{}", self.metrics[metric].name);
        let at = self.metrics.iter().position(|metric| metric.name == name)?;
        let first = self.rows.first()?.values[at].value?;
        self.rows.iter().all(|row| row.values[at].value == Some(first)).then_some(first)
    }

    /// The best value of a metric, where it is known what is better and not all are alike.
    pub fn best(&self, metric: usize) -> Option<f64> {
        let mut known = self.rows.iter().filter_map(|row| row.values[metric].value).filter(|value| value.is_finite());
        let first = known.clone().next()?;
        if known.all(|value| value == first) {
            return None;
        }
        let known = self.rows.iter().filter_map(|row| row.values[metric].value).filter(|value| value.is_finite());
        match self.metrics[metric].better? {
            Better::Max => known.reduce(f64::max),
            Better::Min => known.reduce(f64::min),
        }
    }

    /// The table of cells.
    pub fn table(&self) -> Table {
        let (axes, known) = (self.axes(), self.known());
        let rows: Vec<(&Cell, &[Measure])> = self.rows.iter().map(|row| (&row.cell, row.values.as_slice())).collect();
        let best: Vec<Option<f64>> = known.iter().map(|&at| self.best(at)).collect();
        let mut table = Table {
            name: self.stage.clone(),
            caption: self.caption(&known, best.iter().any(Option::is_some)),
            columns: axes.iter().map(|axis| Column::text(&words(axis))).collect(),
            rows: rows.iter().map(|(cell, _)| axes.iter().map(|axis| axis_field(cell, axis)).collect()).collect(),
            note: self.note(&known),
            aside: !self.result,
        };
        let base: Vec<Option<f64>> = known.iter().map(|&at| self.unedited(at)).collect();
        let mut first: Vec<Field> = axes.iter().map(|_| Field::default()).collect();
        if let Some(field) = first.first_mut() {
            *field = Field::text(UNEDITED);
        }
        for ((&at, best), base) in known.iter().zip(&best).zip(&base) {
            let metric = &self.metrics[at];
            let values: Vec<Measure> = rows.iter().map(|(_, values)| values[at]).collect();
            let decimals = decimals(metric.percent, values.iter().filter_map(|m| m.value).chain(*base));
            table.columns.push(column(metric));
            for (row, value) in table.rows.iter_mut().zip(&values) {
                row.push(measure_field(metric, value, decimals, *best));
            }
            let plain = Measure { value: *base, interval: None };
            first.push(if base.is_some() { measure_field(metric, &plain, decimals, None) } else { Field::default() });
        }
        if base.iter().any(Option::is_some) {
            if axes.is_empty() {
                // One cell has no name; beside the unedited model it needs one.
                table.columns.insert(0, Column::text("model"));
                first.insert(0, Field::text(UNEDITED));
                table.rows.iter_mut().for_each(|row| row.insert(0, Field::text("edited")));
            }
            table.rows.insert(0, first);
        }
        table
    }

    /// The table of steps, where there are any.
    pub fn steps_table(&self) -> Option<Table> {
        let steps = self.steps.as_ref()?;
        let (axes, known) = (self.axes(), self.known());
        let titles = axes.iter().copied().chain(steps.axes.iter().map(String::as_str));
        let mut table = Table {
            name: format!("{}-steps", self.stage),
            caption: sentence(&format!("{}, step by step.", words(&self.stage))),
            columns: titles.map(|title| Column::text(&words(title))).collect(),
            rows: Vec::new(),
            note: String::new(),
            aside: true,
        };
        table.columns.extend(known.iter().map(|&at| column(&self.metrics[at])));
        let digits: Vec<usize> = known
            .iter()
            .map(|&at| {
                let values = steps.rows.iter().filter_map(|step| step.values[at].value);
                decimals(self.metrics[at].percent, values)
            })
            .collect();
        for step in &steps.rows {
            let Some(row) = self.rows.get(step.row) else { continue };
            let mut fields: Vec<Field> = axes.iter().map(|axis| axis_field(&row.cell, axis)).collect();
            fields.extend(step.at.iter().map(|at| Field::shown(crate::number::short(*at), at.to_string())));
            let measures = known.iter().zip(&digits);
            fields.extend(measures.map(|(&at, &d)| measure_field(&self.metrics[at], &step.values[at], d, None)));
            table.rows.push(fields);
        }
        Some(table)
    }

    fn caption(&self, known: &[usize], marked: bool) -> String {
        let mut text = match self.rows.len() {
            1 => format!("{}.", words(&self.stage)),
            cells => format!("{} in all {cells} cells.", words(&self.stage)),
        };
        if marked {
            text.push_str(" The best of each column is bold.");
        }
        let with_interval = |at: &usize| self.rows.iter().any(|row| row.values[*at].interval.is_some());
        if known.iter().any(with_interval) {
            text.push_str(" In brackets: 95 % bootstrap intervals over records.");
        }
        sentence(&text)
    }

    /// What the columns say.
    fn note(&self, known: &[usize]) -> String {
        let told = known.iter().map(|&at| &self.metrics[at]).filter(|metric| !metric.doc.is_empty());
        let told: Vec<String> = told.map(|metric| format!("{}: {}", metric.label, metric.doc)).collect();
        if told.is_empty() { String::new() } else { told.join("; ") + "." }
    }
}

fn column(metric: &Metric) -> Column {
    let unit = if metric.percent { " (%)" } else { "" };
    let arrow = match metric.better {
        Some(Better::Max) => " ↑",
        Some(Better::Min) => " ↓",
        None => "",
    };
    Column::number(&metric.label, &format!("{unit}{arrow}"), &metric.doc)
}

/// The field of an axis.
pub fn axis_field(cell: &Cell, axis: &str) -> Field {
    match level(cell, axis) {
        Some(Level::Number(value)) => Field::shown(crate::number::short(*value), value.to_string()),
        Some(Level::Text(text)) => Field::text(text.clone()),
        None => Field::default(),
    }
}

fn measure_field(metric: &Metric, measure: &Measure, decimals: usize, best: Option<f64>) -> Field {
    let Some(value) = measure.value else { return Field::shown("–", "") };
    let show = |value: f64| fixed(value, metric.percent, decimals);
    Field {
        interval: measure.interval.map(|[low, high]| format!("{}, {}", show(low), show(high))).unwrap_or_default(),
        ends: measure.interval,
        best: best == Some(value),
        ..Field::shown(show(value), value.to_string())
    }
}
