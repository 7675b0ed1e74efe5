//! The table of what a stage measured: a row for each cell, and a mark where one is shown to be the best of a column.

use crate::choose::sentence;
use crate::data::{Better, Cell, Level, Mark, Measure, Measured, Metric, Steps};
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

    /// The row that is shown to be the best in a metric, where one is: a number is marked for nothing else.
    fn best_row(&self, metric: usize) -> Option<usize> {
        match self.marks.get(metric) {
            Some(Mark::Row(row)) => Some(*row),
            _ => None,
        }
    }

    /// What stands behind the numbers: records, repetitions, and what intervals are; empty where nothing is known.
    pub fn behind(&self) -> String {
        let mut text = String::new();
        let counts: Vec<(usize, usize)> = self
            .known()
            .into_iter()
            .filter_map(|at| Some((at, self.rows.iter().filter_map(|row| row.values[at].n).max()?)))
            .collect();
        if let Some(most) = counts.iter().map(|(_, n)| *n).max() {
            let fewer = counts.iter().filter(|(_, n)| *n < most);
            let fewer: Vec<String> = fewer.map(|(at, n)| format!("{} {n}", self.metrics[*at].label)).collect();
            let fewer = if fewer.is_empty() { String::new() } else { format!(" ({})", fewer.join(", ")) };
            let what = match (self.result, most) {
                (true, 1) => " record",
                (true, _) => " records",
                (false, _) => "",
            };
            text.push_str(&format!(" n = {most}{what}{fewer}."));
        }
        if !self.repeated.is_empty() {
            let counts: Vec<usize> = self.rows.iter().map(|row| row.repetitions).collect();
            let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
            let of = if least == most { most.to_string() } else { format!("{least} to {most}") };
            text.push_str(&format!(
                " Means over {of} values of {}, ± their standard deviation.",
                self.repeated.join(", ")
            ));
            if least != most {
                text.push_str(" Rows are compared over those that both have.");
            }
        }
        if !self.alone.is_empty() {
            text.push_str(&format!(" All of {} alone.", self.alone));
        }
        text
    }

    /// What intervals are, in a few words.
    pub fn intervals(&self) -> &'static str {
        match (self.repeated.is_empty(), self.result) {
            (true, _) => "95 % intervals over records",
            (false, true) => "95 % intervals over repetitions and records",
            // Nothing is known of records one by one.
            (false, false) => self.step_intervals(),
        }
    }

    /// What intervals of steps are.
    pub fn step_intervals(&self) -> &'static str {
        if self.repeated.is_empty() {
            "95 % intervals over records"
        } else {
            "Student's 95 % intervals over repetitions"
        }
    }

    /// The table of cells.
    pub fn table(&self) -> Table {
        let (axes, known) = (self.axes(), self.known());
        let rows: Vec<(&Cell, &[Measure])> = self.rows.iter().map(|row| (&row.cell, row.values.as_slice())).collect();
        let best: Vec<Option<usize>> = known.iter().map(|&at| self.best_row(at)).collect();
        let mut table = Table {
            name: self.stage.clone(),
            caption: self.caption(&known),
            columns: axes.iter().map(|axis| Column::text(&words(axis))).collect(),
            rows: rows.iter().map(|(cell, _)| axes.iter().map(|axis| axis_field(cell, axis)).collect()).collect(),
            note: self.note(&known),
            aside: !self.result,
        };
        table.mark_groups(axes.len());
        let base: Vec<Option<f64>> = known.iter().map(|&at| self.unedited(at)).collect();
        let mut first: Vec<Field> = axes.iter().map(|_| Field::default()).collect();
        if let Some(field) = first.first_mut() {
            *field = Field::text(UNEDITED);
        }
        for ((&at, best), base) in known.iter().zip(&best).zip(&base) {
            let metric = &self.metrics[at];
            let values: Vec<Measure> = rows.iter().map(|(_, values)| values[at]).collect();
            let decimals =
                decimals(metric.percent, values.iter().filter_map(|m| m.value).chain(*base), widths(values.iter()));
            table.columns.push(column(metric));
            for (at, (row, value)) in table.rows.iter_mut().zip(&values).enumerate() {
                row.push(measure_field(metric, value, decimals, *best == Some(at)));
            }
            let plain = Measure { value: *base, ..Measure::default() };
            first.push(if base.is_some() { measure_field(metric, &plain, decimals, false) } else { Field::default() });
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
        let caption = format!("{}, step by step.", words(&self.stage));
        Some(self.table_of(self.steps.as_ref()?, &format!("{}-steps", self.stage), &caption))
    }

    /// The table of what is left of edits by their age, where it was measured.
    pub fn retention_table(&self) -> Option<Table> {
        let caption =
            format!("{} at the end, by the number of edits that were made after an edit.", words(&self.stage));
        Some(self.table_of(self.retention.as_ref()?, &format!("{}-retention", self.stage), &caption))
    }

    fn table_of(&self, steps: &Steps, name: &str, caption: &str) -> Table {
        let has = |at: &usize| steps.rows.iter().any(|step| step.values[*at].value.is_some());
        let (axes, known) = (self.axes(), self.known().into_iter().filter(has).collect::<Vec<_>>());
        let titles = axes.iter().copied().chain(steps.axes.iter().map(String::as_str));
        let mut table = Table {
            name: name.to_owned(),
            caption: sentence(caption),
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
                decimals(self.metrics[at].percent, values, widths(steps.rows.iter().map(|step| &step.values[at])))
            })
            .collect();
        for step in &steps.rows {
            let Some(row) = self.rows.get(step.row) else { continue };
            let mut fields: Vec<Field> = axes.iter().map(|axis| axis_field(&row.cell, axis)).collect();
            fields.extend(step.at.iter().map(|at| Field::shown(crate::number::short(*at), at.to_string())));
            let measures = known.iter().zip(&digits);
            fields.extend(measures.map(|(&at, &d)| measure_field(&self.metrics[at], &step.values[at], d, false)));
            table.rows.push(fields);
        }
        table
    }

    fn caption(&self, known: &[usize]) -> String {
        let mut text = match self.rows.len() {
            1 => format!("{}.", words(&self.stage)),
            cells => format!("{} in all {cells} cells.", words(&self.stage)),
        };
        let mark = |at: &usize| self.marks.get(*at).copied().unwrap_or_default();
        if known.iter().any(|at| mark(at) != Mark::Untested) && self.rows.len() > 1 {
            text.push_str(if self.result {
                " Bold: shown to be better than every other row (pairs of records, 95 % intervals, tests adjusted by Holm); where nothing \
                 is bold, no difference is shown."
            } else {
                " Bold: its 95 % interval meets that of no other row; where nothing is bold, no difference is shown."
            });
        }
        let with_interval = |at: &usize| self.rows.iter().any(|row| row.values[*at].interval.is_some());
        if known.iter().any(with_interval) {
            text.push_str(&format!(" In brackets: {}.", self.intervals()));
        }
        text.push_str(&self.behind());
        sentence(&text)
    }

    /// What the columns say.
    fn note(&self, known: &[usize]) -> String {
        let told = known.iter().map(|&at| &self.metrics[at]).filter(|metric| !metric.doc.is_empty());
        let told: Vec<String> = told.map(|metric| format!("{}: {}", metric.label, metric.doc)).collect();
        if told.is_empty() { String::new() } else { told.join("; ") + "." }
    }
}

/// How wide intervals and deviations are.
fn widths<'a>(measures: impl Iterator<Item = &'a Measure> + Clone) -> impl Iterator<Item = f64> + Clone {
    measures.flat_map(|measure| measure.interval.map(|[low, high]| high - low).into_iter().chain(measure.spread))
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

fn measure_field(metric: &Metric, measure: &Measure, decimals: usize, best: bool) -> Field {
    let Some(value) = measure.value else { return Field::shown("–", "") };
    let show = |value: f64| fixed(value, metric.percent, decimals);
    let spread = measure.spread.map(|spread| format!(" ± {}", show(spread))).unwrap_or_default();
    Field {
        interval: measure.interval.map(|[low, high]| format!("{}, {}", show(low), show(high))).unwrap_or_default(),
        ends: measure.interval,
        best,
        spread: measure.spread,
        n: measure.n,
        ..Field::shown(show(value) + &spread, value.to_string())
    }
}
