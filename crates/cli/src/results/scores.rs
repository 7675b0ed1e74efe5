//! The scores of a stage: a row for each cell of the matrix, and a star where one is shown to be the best of a column.

use palinode::shown::{Better, Shown, Step, value};
use palinode::{Best, Repeated, Scored, best, best_apart, mean_and_deviation, over_repetitions, over_values};

use super::cell::{Cell, plain};
use super::metrics::{Metric, metrics_of};
use crate::terminal::Style;
use crate::terminal::table::{Column, Field, Look, table};

/// The scores of one stage.
pub struct Scores {
    axes: Vec<String>,
    metrics: Vec<Metric>,
    rows: Vec<Row>,
    /// What is known of which row is the best, one for each metric.
    best: Vec<Best>,
    /// What stands behind the numbers; empty where nothing is known.
    behind: String,
    /// Whether rows are compared record by record.
    paired: bool,
    /// Whether rows are steps of one experiment, which are no choice.
    steps: bool,
}

#[derive(Default)]
struct Row {
    cell: Vec<String>,
    values: Vec<Option<f64>>,
    /// Standard deviations over repetitions.
    spread: Vec<Option<f64>>,
    /// 95 % intervals.
    intervals: Vec<Option<[f64; 2]>>,
    /// How many experiments it is the mean of.
    repetitions: usize,
}

/// An instance of a stage: its cell, what its result shows, and its scores record by record.
pub type Member<'a> = (&'a Cell, &'a Shown, Option<&'a Scored>);

/// Instances that differ in nothing but what is repeated, with what each is called there.
type Group<'a> = (Vec<String>, Vec<(String, Member<'a>)>);

impl Scores {
    /// The scores of these instances. Those that differ along `replicates` alone are one row.
    pub fn of(axes: &[String], replicates: &[String], members: &[Member<'_>]) -> Self {
        let has = |axis: &&String| members.iter().any(|(cell, ..)| cell.iter().any(|(name, _)| name == *axis));
        let (repeated, axes): (Vec<String>, Vec<String>) =
            axes.iter().filter(has).cloned().partition(|axis| replicates.contains(axis));
        let mut metrics: Vec<Metric> = Vec::new();
        for metric in members.iter().flat_map(|(_, shown, _)| metrics_of(shown)) {
            if metrics.iter().all(|known| known.name != metric.name) {
                metrics.push(metric);
            }
        }
        let mut groups: Vec<Group<'_>> = Vec::new();
        for member in members {
            let (own, called) = (on(member.0, &axes), on(member.0, &repeated).join(", "));
            match groups.iter_mut().find(|(cell, _)| *cell == own) {
                Some((_, group)) => group.push((called, *member)),
                None => groups.push((own, vec![(called, *member)])),
            }
        }
        let row = |(cell, group): &Group<'_>| {
            let scores = repetitions(group);
            let mut row = Row { cell: cell.clone(), repetitions: group.len(), ..Row::default() };
            for metric in &metrics {
                let values: Vec<f64> =
                    group.iter().filter_map(|(_, (_, shown, _))| shown.metric(&metric.name)).collect();
                let (mean, spread) = mean_and_deviation(&values).unzip();
                row.values.push(mean);
                row.spread.push(spread.flatten());
                row.intervals.push(if let [(_, (_, shown, _))] = group.as_slice() {
                    interval(shown, &metric.name)
                } else {
                    let n = metric.percent.then(|| records(group, &metric.name)).flatten();
                    over_repetitions(scores.as_ref(), &metric.name, &values, n)
                });
            }
            row
        };
        let rows: Vec<Row> = groups.iter().map(row).collect();
        let scores: Option<Vec<Repeated<'_>>> = groups.iter().map(|(_, group)| repetitions(group)).collect();
        let known = |(at, metric): (usize, &Metric)| {
            let Some(least) = metric.better.map(|better| better == Better::Min) else { return Best::Untested };
            let apart = || {
                let known = rows.iter().map(|row| Some((row.values[at]?, row.intervals[at]?)));
                known.collect::<Option<Vec<_>>>().map_or(Best::Untested, |known| best_apart(&known, least))
            };
            let found = scores.as_ref().map_or(Best::Untested, |scores| best(scores, &metric.name, least));
            if found == Best::Untested { apart() } else { found }
        };
        Self {
            best: metrics.iter().enumerate().map(known).collect(),
            behind: behind(&metrics, &repeated, &groups),
            paired: scores.is_some(),
            steps: false,
            rows,
            axes,
            metrics,
        }
    }

    /// The series that these instances tell beside their scores, such as one row after every tenth round; `None` where they
    /// tell none.
    pub fn series(axes: &[String], replicates: &[String], members: &[Member<'_>]) -> Option<Self> {
        let known = |shown: &&Shown| shown.series.as_ref().is_some_and(|series| !series.rows.is_empty());
        let steps = members.iter().map(|(_, shown, _)| *shown).find(known)?.series.as_ref()?.axes.clone();
        let alone: Vec<Member<'_>> = members.iter().map(|(cell, shown, _)| (*cell, *shown, None)).collect();
        let Self { axes, metrics, behind, .. } = Self::of(axes, replicates, &alone);
        let mut places: Vec<(Vec<String>, Vec<&Step>)> = Vec::new();
        for (cell, shown, _) in members {
            for step in shown.series.iter().flat_map(|series| &series.rows) {
                let place = |axis: &String| match step.values.get(axis) {
                    // 4.0 of one file is the 4 of another.
                    Some(Some(number)) => number.as_f64().map_or_else(|| number.to_string(), |value| value.to_string()),
                    _ => "null".to_owned(),
                };
                let at: Vec<String> = on(cell, &axes).into_iter().chain(steps.iter().map(place)).collect();
                match places.iter_mut().find(|(known, _)| *known == at) {
                    Some((_, same)) => same.push(step),
                    None => places.push((at, vec![step])),
                }
            }
        }
        let row = |(cell, same): (Vec<String>, Vec<&Step>)| {
            let mut row = Row { cell, repetitions: same.len(), ..Row::default() };
            for metric in &metrics {
                let values: Vec<f64> = same.iter().filter_map(|step| value(&step.values, &metric.name)).collect();
                let (mean, spread) = mean_and_deviation(&values).unzip();
                row.values.push(mean);
                row.spread.push(spread.flatten());
                // A ratio that may exceed 1 is neither better nor worse.
                row.intervals.push(over_values(&values, metric.percent && metric.better.is_some()));
            }
            row
        };
        let rows = places.into_iter().map(row).collect();
        // One edit after another is no choice between experiments: none is the best.
        let best = vec![Best::NotShown; metrics.len()];
        let axes = axes.into_iter().chain(steps).collect();
        let behind = if replicates.is_empty() { String::new() } else { behind };
        Some(Self { axes, metrics, rows, best, behind, paired: false, steps: true })
    }

    /// The table; several below each other where one would be wider than the terminal.
    pub fn table(&self, style: &Style) -> String {
        let drawn: Vec<Vec<(String, bool)>> = (0..self.metrics.len()).map(|at| self.column(at)).collect();
        let tables: Vec<String> = self.parts(&drawn, style).iter().map(|part| self.part(part, &drawn, style)).collect();
        let mut text = tables.join("\n");
        let marked = |at: usize| drawn[at].iter().any(|(_, best)| *best);
        let tested = |at: &usize| self.best[*at] != Best::Untested && self.metrics[*at].better.is_some();
        let all = || 0..self.metrics.len();
        if self.rows.len() > 1 && all().any(|at| tested(&at)) && !self.behind.is_empty() && !self.steps {
            let any = all().any(|at| tested(&at) && marked(at));
            let words = if any {
                "* shown to be better than every other row; no star: no difference shown"
            } else {
                "no row is shown to be better than every other: no star"
            };
            let how = match (self.paired, any) {
                (true, _) => "pairs of records, 95 % intervals, tests adjusted by Holm",
                (false, true) => "its 95 % interval meets that of no other row",
                (false, false) => "their 95 % intervals meet",
            };
            text.push_str(&style.below(&format!("{words} ({how})")));
        }
        if !self.behind.is_empty() {
            text.push_str(&style.below(&self.behind));
        }
        text
    }

    /// A table of some of the metrics.
    fn part(&self, metrics: &[usize], drawn: &[Vec<(String, bool)>], style: &Style) -> String {
        let mut columns: Vec<(&str, Column)> = self.axes.iter().map(|axis| (axis.as_str(), Column::Name)).collect();
        columns.extend(metrics.iter().map(|&metric| (self.metrics[metric].label.as_str(), Column::Number)));
        let mut rows: Vec<Vec<Field>> = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            let cell = row.cell.iter().map(|value| Field::from(value.as_str()));
            let values = metrics.iter().map(|&metric| {
                let (text, best) = &drawn[metric][at];
                Field::new(text.clone(), if *best { Look::Bold } else { Look::Plain })
            });
            rows.push(cell.chain(values).collect());
            let ends: Vec<String> = metrics.iter().map(|&metric| self.ends(at, metric)).collect();
            if ends.iter().any(|ends| !ends.is_empty()) {
                let blank = row.cell.iter().map(|_| Field::from(""));
                rows.push(blank.chain(ends.into_iter().map(|ends| Field::new(ends, Look::Dim))).collect());
            }
        }
        table(style, &columns, rows)
    }

    /// The decimals of a column.
    fn decimals(&self, at: usize) -> usize {
        let values: Vec<Option<f64>> = self.rows.iter().map(|row| row.values[at]).collect();
        let shown = self.rows.iter().filter(|row| row.repetitions > 1);
        let widths = shown.flat_map(|row| {
            let spread = row.spread.get(at).copied().flatten().map(|spread| [0.0, spread]);
            [row.intervals.get(at).copied().flatten(), spread]
        });
        self.metrics[at].decimals(&values, &widths.collect::<Vec<_>>())
    }

    /// The interval of a mean over repetitions, which stands below it; empty elsewhere.
    fn ends(&self, row: usize, metric: usize) -> String {
        let of = &self.metrics[metric];
        let decimals = self.decimals(metric);
        let row = &self.rows[row];
        let known = row.intervals.get(metric).copied().flatten().filter(|_| row.repetitions > 1);
        let end = |value: f64| of.text(value, decimals).trim_end_matches('%').to_owned();
        known.map(|ends| format!("[{}]", ends.map(end).join(", "))).unwrap_or_default()
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
            let ends: Vec<String> = (0..self.rows.len()).map(|row| self.ends(row, at)).collect();
            let texts = drawn[at].iter().map(|(text, _)| text.as_str()).chain(ends.iter().map(String::as_str));
            let own = width(&mut texts.chain([metric.label.as_str()]));
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
        let shown = self.column(at).iter().position(|(_, best)| *best);
        // What is shown of one has to be of some: of the first whose value is the best.
        shown.or_else(|| {
            let prefers = |a: usize, b: usize| match (self.rows[a].values[at], self.rows[b].values[at]) {
                (Some(a), Some(b)) => self.metrics[at].prefers(a, b),
                (a, b) => a.is_some() && b.is_none(),
            };
            (self.rows.len() > 1)
                .then(|| (1..self.rows.len()).fold(0, |best, row| if prefers(row, best) { row } else { best }))
        })
    }

    /// The values of a metric as text, and which is shown to be the best. Marks stand in front, so that the digits stay lined up.
    fn column(&self, at: usize) -> Vec<(String, bool)> {
        let metric = &self.metrics[at];
        let values: Vec<Option<f64>> = self.rows.iter().map(|row| row.values[at]).collect();
        let decimals = self.decimals(at);
        let draw = |(row, value): (usize, &Option<f64>)| match value {
            None => ("–".to_owned(), false),
            Some(value) => {
                // Where nothing is known of chance, the largest number is the largest number.
                let is_best = self.best[at] == Best::Shown(row);
                let mark = if is_best { "*" } else { "" };
                let spread = self.rows[row].spread.get(at).copied().flatten();
                let spread = spread.map(|spread| format!(" ± {}", metric.text(spread, decimals))).unwrap_or_default();
                (format!("{mark}{}{spread}", metric.text(*value, decimals)), is_best)
            }
        };
        values.iter().enumerate().map(draw).collect()
    }
}

/// The scores of repetitions, with what each is called.
fn repetitions<'a>(group: &[(String, Member<'a>)]) -> Option<Repeated<'a>> {
    group.iter().map(|(called, (_, _, scored))| Some((called.clone(), (*scored)?))).collect()
}

/// The values of a cell on these axes.
fn on(cell: &Cell, axes: &[String]) -> Vec<String> {
    let value = |axis: &String| cell.iter().find(|(name, _)| name == axis).map(|(_, value)| plain(value));
    axes.iter().map(|axis| value(axis).unwrap_or_default()).collect()
}

/// The interval of a metric as its result has it.
fn interval(shown: &Shown, metric: &str) -> Option<[f64; 2]> {
    let [low, high] = *shown.intervals.as_ref()?.get(metric)?;
    Some([low?, high?])
}

/// How many records or questions a metric is a mean of in these instances.
fn records(group: &[(String, Member<'_>)], metric: &str) -> Option<usize> {
    let of =
        |(_, shown, scored): &Member<'_>| scored.and_then(|scored| scored.n(metric)).or_else(|| shown.count(metric));
    group.iter().filter_map(|(_, member)| of(member)).max().filter(|n| *n > 0)
}

/// "seed 1 alone", of experiments that were not repeated.
fn alone(repeated: &[String], groups: &[Group<'_>]) -> String {
    let mut called: Vec<&str> = groups.iter().flat_map(|(_, group)| group).map(|(called, _)| called.as_str()).collect();
    called.dedup();
    match called.as_slice() {
        [one] if repeated.len() == 1 => format!("{} {one} alone", repeated[0]),
        [one] => format!("{} ({one}) alone", repeated.join(", ")),
        _ => format!("one value of {} each", repeated.join(", ")),
    }
}

/// "n = 32 records (NS 30); means over 3 values of seed, ± their standard deviation"
fn behind(metrics: &[Metric], repeated: &[String], groups: &[Group<'_>]) -> String {
    let mut parts = Vec::new();
    let n = |metric: &Metric| groups.iter().filter_map(|(_, group)| records(group, &metric.name)).max();
    let one_by_one = groups.iter().flat_map(|(_, group)| group).any(|(_, (_, _, scored))| scored.is_some());
    let counts: Vec<(&str, usize)> =
        metrics.iter().filter_map(|metric| Some((metric.label.as_str(), n(metric)?))).collect();
    if let Some(most) = counts.iter().map(|(_, n)| *n).max() {
        let fewer: Vec<String> =
            counts.iter().filter(|(_, n)| *n < most).map(|(label, n)| format!("{label} {n}")).collect();
        let fewer = if fewer.is_empty() { String::new() } else { format!(" ({})", fewer.join(", ")) };
        let what = if one_by_one { if most == 1 { " record" } else { " records" } } else { "" };
        parts.push(format!("n = {most}{what}{fewer}"));
    }
    if !repeated.is_empty() {
        let (least, most) = groups
            .iter()
            .fold((usize::MAX, 0), |(least, most), (_, group)| (least.min(group.len()), most.max(group.len())));
        let of = if least == most { most.to_string() } else { format!("{least} to {most}") };
        let ends = if one_by_one { "95 % intervals over repetitions and records" } else { "Student's 95 % intervals" };
        parts.push(if most == 1 {
            alone(repeated, groups)
        } else {
            let over = if least == most { "" } else { "; rows are compared over those that both have" };
            format!(
                "means over {of} values of {}, ± their standard deviation; below them, {ends}{over}",
                repeated.join(", ")
            )
        });
    }
    parts.join("; ")
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
            ..Row::default()
        };
        let axes = ["objective", "strategy"].iter().take(rows[0].0.len()).map(|&axis| axis.to_owned()).collect();
        let best = vec![Best::Untested; metrics.len()];
        Scores {
            rows: rows.iter().map(row).collect(),
            axes,
            metrics,
            best,
            behind: String::new(),
            paired: false,
            steps: false,
        }
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
        // Every value of a column can be read, however large another is.
        let columns = json!([
            { "name": "perplexity", "label": "perplexity", "format": "number", "better": "min" },
            { "name": "norm", "label": "norm", "format": "number" },
            { "name": "share", "label": "share", "format": "percent", "better": "max" },
        ]);
        let far = scores(
            columns,
            &[
                (&["rome"], json!({ "perplexity": 15_234.567_8, "norm": 2.345_678, "share": 0.5 })),
                (&["memit"], json!({ "perplexity": 8.123_456, "norm": 0.012_345_6, "share": 0.000_31 })),
                (&["emmet"], json!({ "perplexity": 8.129, "norm": 1.234e-9, "share": 0 })),
            ],
        );
        let mut tables: Vec<String> =
            [&matrix, &alone, &bare, &far].iter().map(|scores| scores.table(&style)).collect();
        tables.push(matrix.table(&narrow));
        insta::assert_snapshot!(tables.join("────────\n"));
    }
}
