//! Summaries as an artifact tells them: values, intervals, and how tables show them.

use palinode_engine::shown::{self, Better, Column, Format, Intervals, Values};
use palinode_eval::{Group, METRICS, Metric, Summary};

/// The metrics of a summary that belong to these groups, and those of longer texts where there are any and EasyEdit does not
/// tell them by its own name.
pub fn metrics(summary: &Summary, groups: &[Group]) -> Vec<(&'static Metric, f64)> {
    let belongs = |metric: &Metric| match metric.group {
        Group::Answers => true,
        Group::Generation => metric.name != "GE" || groups != [Group::EasyEdit],
        group => groups.contains(&group),
    };
    summary.iter().filter(|(metric, _)| belongs(metric)).collect()
}

/// Values by name.
pub fn values(summary: &Summary, groups: &[Group]) -> Values {
    metrics(summary, groups).into_iter().map(|(metric, value)| (metric.name.to_owned(), shown::number(value))).collect()
}

/// How many edited models stand behind a row of scores.
pub const MODELS: &str = "models";
/// How many edits they hold together; steps of a sequence have `edits` of their own.
pub const EDITS: &str = "edits_made";

/// The columns that say what stands behind a row.
pub fn behind() -> [Column; 2] {
    let column = |name, label, doc| Column::new(name, label, Format::Number).ranked(None).doc(doc);
    [
        column(MODELS, "models", "edited models that were scored, each on the requests that were written into it"),
        column(EDITS, "edits", "requests that were written into these models together"),
    ]
}

/// 95 % intervals by name.
pub fn intervals(summary: &Summary, groups: &[Group], resamples: usize, seed: u64) -> Intervals {
    if resamples == 0 {
        return Intervals::new();
    }
    let shown: Vec<&str> = metrics(summary, groups).iter().map(|(metric, _)| metric.name).collect();
    let all = summary.intervals(resamples, seed).into_iter();
    all.filter(|(metric, _)| shown.contains(&metric.name))
        .map(|(metric, range)| (metric.name.to_owned(), range.map(Some)))
        .collect()
}

/// How tables show the metrics, and, with `before`, the successes before the edit beside them.
pub fn columns(summary: &Summary, groups: &[Group], before: bool) -> Vec<Column> {
    let column = |name: String, label: String, metric: &Metric, better: Option<Better>| {
        let format = if metric.share { Format::Percent } else { Format::Number };
        Column::new(name, label, format).ranked(better).doc(metric.doc)
    };
    let shown: Vec<&Metric> = metrics(summary, groups).into_iter().map(|(metric, _)| metric).collect();
    let mut columns: Vec<Column> =
        shown.iter().map(|m| column(m.name.into(), m.label.into(), m, Some(Better::Max))).collect();
    let plain = [
        "ES",
        "PS",
        "NS",
        "efficacy",
        "paraphrase",
        "specificity",
        "reliability",
        "generalization",
        "portability",
        "fluency",
        "GE",
        "RS",
        "exact_rewrite",
        "exact_paraphrase",
        "exact_neighborhood",
        "exact_portability",
        "exact_locality",
    ];
    let repeated =
        METRICS.iter().filter(|m| before && plain.contains(&m.name) && shown.iter().any(|s| s.name == m.name));
    columns.extend(repeated.map(|m| column(format!("before_{}", m.name), format!("{} before", m.label), m, None)));
    columns
}
