//! What is measured: how a metric is called, written and compared.

use palinode::shown::{Better, Column, Format, Shown};
use palinode_report::readable;

/// A column of a table of scores.
pub struct Metric {
    /// Its name among the metrics of a result.
    pub name: String,
    /// Its title.
    pub label: String,
    /// Whether it is a fraction that reads better as a percentage.
    pub percent: bool,
    /// Which way is better, where anyone knows.
    pub better: Option<Better>,
}

impl Metric {
    fn of(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            label: column.label().to_owned(),
            percent: column.format == Format::Percent,
            better: column.better(),
        }
    }

    /// Decimals for all values of a column: as many as the largest of them needs for four digits, or all that they have where those are few; and
    /// more where the smallest value, or the narrowest interval, would lose its digits.
    pub fn decimals(&self, values: &[Option<f64>], intervals: &[Option<[f64; 2]>]) -> usize {
        const FEW: usize = 3;
        let known = values.iter().copied().flatten();
        let widths = intervals.iter().flatten().map(|[low, high]| high - low);
        if self.percent {
            return readable(1, true, known, widths);
        }
        let own = |value: f64| value.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let least = match known.clone().map(f64::abs).fold(0.0, f64::max) {
            _ if known.clone().all(|value| own(value) <= FEW) => return known.map(own).max().unwrap_or(0),
            most if most >= 1000.0 => 0,
            most if most >= 100.0 => 1,
            most if most >= 10.0 => 2,
            most if most >= 1.0 => 3,
            _ => 4,
        };
        readable(least, false, known, widths)
    }

    /// A value as text. What is too small for the decimals of its column, and is not nothing, is written with a power of ten.
    pub fn text(&self, value: f64, decimals: usize) -> String {
        // Less than this is what sums of numbers leave.
        const NOTHING: f64 = 1e-12;
        let text = if self.percent { format!("{:.decimals$}%", value * 100.0) } else { format!("{value:.decimals$}") };
        if text.contains(|char: char| ('1'..='9').contains(&char)) {
            return text;
        }
        if !self.percent && value.abs() > NOTHING {
            return format!("{value:.1e}");
        }
        // What rounds to nothing has no sign.
        text.strip_prefix('-').map(str::to_owned).unwrap_or(text)
    }

    /// A difference of two values as text: that of two percentages is in points.
    pub fn difference(&self, change: f64, decimals: usize) -> String {
        if self.percent { format!("{:.decimals$} pt", change * 100.0) } else { self.text(change, decimals) }
    }

    /// Whether `a` is better than `b`.
    pub fn prefers(&self, a: f64, b: f64) -> bool {
        match self.better {
            Some(Better::Max) => a > b,
            Some(Better::Min) => a < b,
            None => false,
        }
    }
}

/// The metrics that have a column; all of them where nothing is said of columns.
pub fn metrics_of(shown: &Shown) -> Vec<Metric> {
    shown.shown_columns().iter().map(Metric::of).collect()
}

/// The first metrics of which it is known what is better, each at its best over these results: "score 81.2, efficacy 100.0%".
pub fn headline(results: &[Shown]) -> String {
    const MOST: usize = 2;
    let Some(first) = results.first() else { return String::new() };
    let known = metrics_of(first);
    let told = known.iter().filter(|metric| metric.better.is_some()).filter_map(|metric| {
        let values = results.iter().filter_map(|shown| shown.metric(&metric.name));
        let best = values.reduce(|best, value| if metric.prefers(value, best) { value } else { best })?;
        Some(format!("{} {}", metric.label, metric.text(best, metric.decimals(&[Some(best)], &[]))))
    });
    told.take(MOST).collect::<Vec<_>>().join(", ")
}
