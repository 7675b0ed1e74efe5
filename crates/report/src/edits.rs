//! Edit by edit: the table that is searched when a score is not what it should be.

use serde::Serialize;

use crate::data::{Better, Edit, Edits, Metric};
use crate::number::short;
use crate::table::{Column, Field, Table};

/// So many rows are on the page, split evenly among the cells; the file has all of them.
const MOST: usize = 1500;

/// What the page shows.
#[derive(Debug, Serialize)]
pub struct View {
    /// The cells; none to choose from where there is one.
    pub cells: Vec<String>,
    /// Titles and explanations of the metrics' columns.
    pub metrics: Vec<(String, String)>,
    /// The rows.
    pub rows: Vec<ViewRow>,
    /// How many cells there are.
    pub cells_count: usize,
    /// How many more rows there are.
    pub hidden: usize,
    /// Whether it is known what was true before.
    pub old: bool,
    /// What makes an edit a failed one; empty where there are no such edits or nobody can tell.
    pub failing: String,
}

/// A row of the page.
#[derive(Debug, Serialize)]
pub struct ViewRow {
    cell: usize,
    cell_name: String,
    id: String,
    /// The prompt up to the subject, the subject, and the rest.
    prompt: [String; 3],
    new: String,
    old: String,
    numbers: Vec<ViewNumber>,
    failed: bool,
}

/// A number, shown and to sort by.
#[derive(Debug, Serialize)]
pub struct ViewNumber {
    title: String,
    text: String,
    /// Empty where it is not known.
    sort: String,
    /// Whether it is as bad as it can be.
    bad: bool,
}

impl Edits {
    /// What the page shows; nothing of nothing.
    pub fn view(&self) -> Option<View> {
        if self.rows.is_empty() {
            return None;
        }
        let each = (MOST / self.cells.len().max(1)).max(1);
        let mut taken = vec![0usize; self.cells.len()];
        let mut rows = Vec::new();
        for edit in &self.rows {
            let Some(taken) = taken.get_mut(edit.cell).filter(|taken| **taken < each) else { continue };
            if rows.len() >= MOST {
                break;
            }
            *taken += 1;
            rows.push(self.row(edit));
        }
        let old = self.rows.iter().any(|edit| edit.old.is_some());
        let failing = match self.metrics.first() {
            Some(metric) if rows.iter().any(|row| row.failed) => format!("{} below {}", metric.label, whole(metric)),
            _ => String::new(),
        };
        Some(View {
            cells: if self.cells.len() > 1 { self.cells.clone() } else { Vec::new() },
            metrics: self.titles(old).into_iter().map(|(title, doc)| (title, doc.to_owned())).collect(),
            cells_count: self.cells.len(),
            hidden: self.rows.len() - rows.len(),
            rows,
            old,
            failing,
        })
    }

    /// The titles of the columns of numbers, with what they say.
    fn titles(&self, old: bool) -> Vec<(String, &str)> {
        let mut titles = vec![
            ("p(new) before".to_owned(), "probability of the new target on the unedited model, per token"),
            ("p(new) after".to_owned(), "the same on the edited model"),
        ];
        if old {
            titles.push(("p(old) after".to_owned(), "probability of the old target on the edited model, per token"));
        }
        titles.extend(self.metrics.iter().map(|metric| {
            let unit = if metric.percent { " %" } else { "" };
            (format!("{}{unit}", metric.label), metric.doc.as_str())
        }));
        titles
    }

    fn row(&self, edit: &Edit) -> ViewRow {
        let old = self.rows.iter().any(|edit| edit.old.is_some());
        let mut values: Vec<(Option<f64>, String, bool)> = [edit.p_new[0], edit.p_new[1]]
            .into_iter()
            .chain(old.then_some(edit.p_old[1]))
            .map(|value| (value, value.map_or_else(|| "–".to_owned(), probability), false))
            .collect();
        values.extend(self.metrics.iter().zip(&edit.values).map(|(metric, value)| {
            let text = value.map_or_else(|| "–".to_owned(), |v| short(if metric.percent { v * 100.0 } else { v }));
            (*value, text, metric.percent && metric.better == Some(Better::Max) && *value == Some(0.0))
        }));
        let titles = self.titles(old);
        let numbers = values.into_iter().zip(titles).map(|((value, text, bad), (title, _))| ViewNumber {
            title,
            text,
            sort: value.filter(|value| value.is_finite()).map(|value| value.to_string()).unwrap_or_default(),
            bad,
        });
        let at = if edit.subject.is_empty() { None } else { edit.prompt.find(&edit.subject) };
        let prompt = match at {
            Some(at) => {
                let end = at + edit.subject.len();
                [&edit.prompt[..at], &edit.prompt[at..end], &edit.prompt[end..]].map(str::to_owned)
            }
            None => [edit.prompt.clone(), String::new(), String::new()],
        };
        let failed = match (self.metrics.first(), edit.values.first()) {
            (Some(metric), Some(Some(value))) => metric.percent && *value < 1.0,
            _ => false,
        };
        ViewRow {
            cell: edit.cell,
            cell_name: if self.cells.len() > 1 {
                self.cells.get(edit.cell).cloned().unwrap_or_default()
            } else {
                String::new()
            },
            id: edit.id.clone(),
            prompt,
            new: edit.new.trim().to_owned(),
            old: edit.old.as_deref().unwrap_or_default().trim().to_owned(),
            numbers: numbers.collect(),
            failed,
        }
    }

    /// All of it.
    pub fn table(&self) -> Table {
        let texts = ["cell", "id", "prompt", "subject", "new target", "old target"];
        let numbers = ["p(new) before", "p(new) after", "p(old) before", "p(old) after"];
        let metrics = self.metrics.iter().map(|metric| metric.label.as_str());
        let mut columns: Vec<Column> = texts.map(Column::text).to_vec();
        columns.extend(numbers.into_iter().chain(metrics).map(|title| Column::number(title, "", "")));
        let row = |edit: &Edit| {
            let cell = self.cells.get(edit.cell).map_or("", String::as_str);
            let texts =
                [cell, &edit.id, &edit.prompt, &edit.subject, &edit.new, edit.old.as_deref().unwrap_or_default()];
            let number = |value: &Option<f64>| {
                let exact = value.map(|value| value.to_string()).unwrap_or_default();
                Field::shown(value.map(short).unwrap_or_default(), exact)
            };
            let numbers = edit.p_new.iter().chain(&edit.p_old).chain(&edit.values).map(number);
            texts.into_iter().map(Field::text).chain(numbers).collect()
        };
        Table {
            name: "edits".to_owned(),
            caption: "Every edit in every cell.".to_owned(),
            columns,
            rows: self.rows.iter().map(row).collect(),
            note: String::new(),
            aside: true,
        }
    }
}

/// A probability in few digits; the file and the order of the rows know all of them.
fn probability(value: f64) -> String {
    if value >= 0.0005 || value.is_nan() { format!("{value:.3}") } else { "<0.001".to_owned() }
}

fn whole(metric: &Metric) -> &'static str {
    if metric.percent { "100 %" } else { "1" }
}
