//! The scores of a stage: a row for each cell of the matrix, the best of each column marked.

use palinode::shown::{Better, Shown, value};

use super::cell::{Cell, plain};
use super::metrics::{Metric, metrics_of};
use crate::terminal::Style;
use crate::terminal::table::{Column, Field, Look, table};

/// The scores of one stage.
pub struct Scores {
    axes: Vec<String>,
    metrics: Vec<Metric>,
    rows: Vec<Row>,
}

struct Row {
    cell: Vec<String>,
    values: Vec<Option<f64>>,
}

impl Scores {
    /// The scores of these instances, given with their facts.
    pub fn of(axes: &[String], members: &[(&Cell, &Shown)]) -> Self {
        let has = |axis: &&String| members.iter().any(|(cell, _)| cell.iter().any(|(name, _)| name == *axis));
        let axes: Vec<String> = axes.iter().filter(has).cloned().collect();
        let mut metrics: Vec<Metric> = Vec::new();
        for metric in members.iter().flat_map(|(_, shown)| metrics_of(shown)) {
            if metrics.iter().all(|known| known.name != metric.name) {
                metrics.push(metric);
            }
        }
        let row = |(cell, shown): &(&Cell, &Shown)| {
            let value = |axis: &String| cell.iter().find(|(name, _)| name == axis).map(|(_, value)| plain(value));
            Row {
                cell: axes.iter().map(|axis| value(axis).unwrap_or_default()).collect(),
                values: metrics.iter().map(|metric| shown.metric(&metric.name)).collect(),
            }
        };
        Self { rows: members.iter().map(row).collect(), axes, metrics }
    }

    /// The series that these instances tell beside their scores, such as one row after every tenth round; `None` where they
    /// tell none.
    pub fn series(axes: &[String], members: &[(&Cell, &Shown)]) -> Option<Self> {
        let known = |shown: &&Shown| shown.series.as_ref().is_some_and(|series| !series.rows.is_empty());
        let steps = members.iter().map(|(_, shown)| *shown).find(known)?.series.as_ref()?.axes.clone();
        let Self { axes, metrics, rows } = Self::of(axes, members);
        let mut longer = Vec::new();
        for (row, (_, shown)) in rows.iter().zip(members) {
            longer.extend(shown.series.iter().flat_map(|series| &series.rows).map(|step| {
                let place = |axis: &String| match step.values.get(axis) {
                    Some(Some(number)) => number.to_string(),
                    _ => "null".to_owned(),
                };
                Row {
                    cell: row.cell.iter().cloned().chain(steps.iter().map(place)).collect(),
                    values: metrics.iter().map(|metric| value(&step.values, &metric.name)).collect(),
                }
            }));
        }
        Some(Self { axes: axes.into_iter().chain(steps).collect(), metrics, rows: longer })
    }

    /// The table; several below each other where one would be wider than the terminal.
    pub fn table(&self, style: &Style) -> String {
        let drawn: Vec<Vec<(String, bool)>> = (0..self.metrics.len()).map(|at| self.column(at)).collect();
        let tables: Vec<String> = self.parts(&drawn, style).iter().map(|part| self.part(part, &drawn, style)).collect();
        let mut text = tables.join("\n");
        if drawn.iter().flatten().any(|(_, best)| *best) {
            text.push_str(&style.dim("* best of its column\n"));
        }
        text
    }

    /// A table of some of the metrics.
    fn part(&self, metrics: &[usize], drawn: &[Vec<(String, bool)>], style: &Style) -> String {
        let mut columns: Vec<(&str, Column)> = self.axes.iter().map(|axis| (axis.as_str(), Column::Name)).collect();
        columns.extend(metrics.iter().map(|&metric| (self.metrics[metric].label.as_str(), Column::Number)));
        let rows = self.rows.iter().enumerate().map(|(at, row)| {
            let cell = row.cell.iter().map(|value| Field::from(value.as_str()));
            let values = metrics.iter().map(|&metric| {
                let (text, best) = &drawn[metric][at];
                Field::new(text.clone(), if *best { Look::Bold } else { Look::Plain })
            });
            cell.chain(values).collect()
        });
        table(style, &columns, rows.collect())
    }

    /// The metrics that anything is known of, as many beside each other as there is room for.
    fn parts(&self, drawn: &[Vec<(String, bool)>], style: &Style) -> Vec<Vec<usize>> {
        let width =
            |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count() + 2).max().unwrap_or(0);
        let axis = |(at, name): (usize, &String)| {
            width(&mut self.rows.iter().map(|row| row.cell[at].as_str()).chain([name.as_str()]))
        };
        let axes: usize = self.axes.iter().enumerate().map(axis).sum();
        let room = if style.terminal { style.width } else { usize::MAX };
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let mut taken = room;
        for (at, metric) in self.metrics.iter().enumerate() {
            if self.rows.iter().all(|row| row.values[at].is_none()) {
                continue;
            }
            let own = width(&mut drawn[at].iter().map(|(text, _)| text.as_str()).chain([metric.label.as_str()]));
            match parts.last_mut() {
                Some(part) if taken.saturating_add(own) <= room => {
                    part.push(at);
                    taken += own;
                }
                _ => {
                    parts.push(vec![at]);
                    taken = axes + own;
                }
            }
        }
        parts
    }

    /// The row that is best by the first metric of which it is known what is better.
    pub fn best_row(&self) -> Option<usize> {
        let at = self.metrics.iter().position(|metric| metric.better.is_some())?;
        self.column(at).iter().position(|(_, best)| *best)
    }

    /// The values of a metric as text, and which are the best. Marks stand in front, so that the digits stay lined up.
    fn column(&self, at: usize) -> Vec<(String, bool)> {
        let metric = &self.metrics[at];
        let values: Vec<Option<f64>> = self.rows.iter().map(|row| row.values[at]).collect();
        let decimals = metric.decimals(&values);
        let known: Vec<f64> = values.iter().copied().flatten().collect();
        let differ = known.iter().any(|value| *value != known[0]);
        let best = metric.better.filter(|_| differ).and_then(|better| {
            known.iter().copied().reduce(|a, b| match better {
                Better::Max => a.max(b),
                Better::Min => a.min(b),
            })
        });
        let draw = |value: &Option<f64>| match value {
            None => ("–".to_owned(), false),
            Some(value) => {
                let is_best = best == Some(*value);
                let mark = if is_best { "*" } else { "" };
                (format!("{mark}{}", metric.text(*value, decimals)), is_best)
            }
        };
        values.iter().map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn scores(columns: Value, rows: &[(&[&str], Value)]) -> Scores {
        let metrics = metrics_of(&Shown::of(&json!({ "columns": columns, "metrics": rows[0].1 })));
        let row = |(cell, values): &(&[&str], Value)| Row {
            cell: cell.iter().map(|&value| value.to_owned()).collect(),
            values: metrics.iter().map(|metric| values[&metric.name].as_f64()).collect(),
        };
        let axes = ["objective", "strategy"].iter().take(rows[0].0.len()).map(|&axis| axis.to_owned()).collect();
        Scores { rows: rows.iter().map(row).collect(), axes, metrics }
    }

    #[test]
    fn tables() {
        let style = Style { color: false, terminal: false, width: 80 };
        let columns = json!([
            { "name": "score", "label": "score", "format": "number", "better": "max" },
            { "name": "efficacy", "label": "efficacy", "format": "percent", "better": "max" },
            { "name": "perplexity", "label": "perplexity", "format": "number", "better": "min" },
            { "name": "unknown", "label": "unknown" },
        ]);
        let matrix = scores(
            columns.clone(),
            &[
                (&["rome", "single"], json!({ "score": 81.234, "efficacy": 1.0, "perplexity": 17.5, "n": 3 })),
                (&["memit", "single"], json!({ "score": 9.5, "efficacy": 1.0, "perplexity": 9.25 })),
                (&["emmet", "memit"], json!({ "score": 79, "efficacy": 0.0625 })),
            ],
        );
        assert_eq!(matrix.best_row(), Some(0));
        let alone = scores(columns, &[(&[], json!({ "score": 81.234, "efficacy": 1.0, "perplexity": 1234.5 }))]);
        assert_eq!(alone.best_row(), None);
        let bare =
            scores(json!([]), &[(&["a"], json!({ "x": 0.5, "y": 3 })), (&["b"], json!({ "x": 0.125, "y": 14 }))]);
        let narrow = Style { terminal: true, width: 40, ..style };
        let mut tables: Vec<String> = [&matrix, &alone, &bare].iter().map(|scores| scores.table(&style)).collect();
        tables.push(matrix.table(&narrow));
        insta::assert_snapshot!(tables.join("────────\n"));
    }
}
