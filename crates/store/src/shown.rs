//! What a result shows to people, whatever its kind: metrics with their columns, intervals and series, samples and findings.
//!
//! Kinds of artifacts embed [`Shown`] in their facts, and whoever draws tables or figures reads it from there. These are fields of a
//! stored format, and a result's digest covers which of them are there: a field that is left out and one that says `null` are two
//! things, and both are kept as they were written.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// Numbers by the name of their metric; `None` for what was measured and is no number.
pub type Values = BTreeMap<String, Option<Number>>;

/// Low and high end of an interval by the name of the metric.
pub type Intervals = BTreeMap<String, [Option<f64>; 2]>;

/// How many records or questions each metric is a mean of, by its name.
pub type Counts = BTreeMap<String, usize>;

/// Texts by the name of their field: a prompt, and what was said.
pub type Sample = Map<String, Value>;

/// A number in floating point, as a value of a metric.
pub fn number(value: f64) -> Option<Number> {
    Number::from_f64(value)
}

/// A probability or another share as people read it: "98%", "3.4%", "0.04%". No power of ten: nobody compares 4e-2% with 0.3%.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        _ if !percent.is_finite() => "–".to_owned(),
        _ if percent >= 10.0 => format!("{percent:.0}%"),
        _ if percent >= 0.1 => format!("{percent:.1}%"),
        _ if percent >= 0.01 => format!("{percent:.2}%"),
        _ if percent >= 0.001 => format!("{percent:.3}%"),
        _ if percent > 0.0 => "<0.001%".to_owned(),
        _ => "0%".to_owned(),
    }
}

/// A count, as a value of a metric.
pub fn count(value: usize) -> Option<Number> {
    Some(value.into())
}

/// A sample of texts by the names of their fields.
pub fn sample<'a>(fields: impl IntoIterator<Item = (&'a str, impl Into<Value>)>) -> Sample {
    fields.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}

/// What a result shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Values>,
    /// How metrics are titled, written and compared, in the order of tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<Column>>,
    /// Intervals of some metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
    /// The records or questions behind some metrics, where no file of the result has them one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<Counts>,
    /// The same metrics after each of some steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// A few examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<Sample>>,
    /// Problems that were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<String>>,
    /// What the figures mean beside each other, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Vec<String>>,
}

impl Shown {
    /// Of numbers and how they are shown.
    pub fn table(metrics: Values, columns: Vec<Column>) -> Self {
        Self { metrics: Some(metrics), columns: Some(columns), ..Self::default() }
    }

    /// What a result of any kind shows, from its facts. Of a result of a later version that shows something in another way, the rest
    /// is still read.
    pub fn of(facts: &Value) -> Self {
        fn field<T: DeserializeOwned>(facts: &Value, name: &str) -> Option<T> {
            T::deserialize(facts.get(name)?).ok()
        }
        Self {
            metrics: facts.get("metrics").and_then(Value::as_object).map(numbers),
            columns: field(facts, "columns"),
            intervals: field(facts, "intervals"),
            n: field(facts, "n"),
            series: field(facts, "series"),
            samples: field(facts, "samples"),
            findings: field(facts, "findings"),
            notes: field(facts, "notes"),
        }
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        value(self.metrics.as_ref()?, name)
    }

    /// How many records or questions a metric is a mean of, where the result says so.
    pub fn count(&self, name: &str) -> Option<usize> {
        self.n.as_ref()?.get(name).copied()
    }

    /// How the metrics are shown. Where nothing is said of it, each by its name.
    pub fn shown_columns(&self) -> Vec<Column> {
        match &self.columns {
            Some(columns) if !columns.is_empty() => columns.clone(),
            _ => {
                let known = self.metrics.iter().flatten().filter(|(_, value)| value.is_some());
                known.map(|(name, _)| Column::new(name, name, Format::Number)).collect()
            }
        }
    }
}

/// The value of a metric among others.
pub fn value(values: &Values, name: &str) -> Option<f64> {
    values.get(name)?.as_ref()?.as_f64()
}

fn numbers(metrics: &Map<String, Value>) -> Values {
    metrics.iter().map(|(name, value)| (name.clone(), value.as_number().cloned())).collect()
}

/// How a metric is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As it is.
    #[default]
    Number,
    /// A share between 0 and 1, which reads better in percent.
    Percent,
}

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Larger ones.
    Max,
    /// Smaller ones.
    Min,
}

/// How a metric is titled, written and compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The metric's name.
    pub name: String,
    /// Its title; empty for the name itself.
    #[serde(default)]
    label: String,
    /// How it is written.
    #[serde(default)]
    pub format: Format,
    /// What is better.
    #[serde(default, skip_serializing_if = "Ranking::is_unsaid")]
    better: Ranking,
    /// What it says, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
}

/// What a column says of which values are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Better>", into = "Option<Better>")]
enum Ranking {
    /// Nothing: the field is left out.
    #[default]
    Unsaid,
    /// That none are: the field is `null`.
    Neither,
    /// Which are.
    By(Better),
}

impl Ranking {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_unsaid(&self) -> bool {
        *self == Self::Unsaid
    }
}

impl From<Option<Better>> for Ranking {
    fn from(better: Option<Better>) -> Self {
        better.map_or(Self::Neither, Self::By)
    }
}

impl From<Ranking> for Option<Better> {
    fn from(ranking: Ranking) -> Self {
        if let Ranking::By(better) = ranking { Some(better) } else { None }
    }
}

impl Column {
    /// A metric with its title.
    pub fn new(name: impl Into<String>, label: impl Into<String>, format: Format) -> Self {
        Self { name: name.into(), label: label.into(), format, better: Ranking::Unsaid, doc: None }
    }

    /// Says what is better, or that nothing is.
    #[must_use]
    pub fn ranked(mut self, better: impl Into<Option<Better>>) -> Self {
        self.better = better.into().into();
        self
    }

    /// Says what the metric says.
    #[must_use]
    pub fn doc(mut self, doc: impl Into<String>) -> Self {
        self.doc = Some(doc.into());
        self
    }

    /// The title.
    pub fn label(&self) -> &str {
        if self.label.is_empty() { &self.name } else { &self.label }
    }

    /// What is better, where anyone knows.
    pub fn better(&self) -> Option<Better> {
        self.better.into()
    }
}

/// Metrics after each of some steps, such as every tenth round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What the steps are.
    #[serde(default)]
    pub label: String,
    /// The values of a step that say where it is.
    pub axes: Vec<String>,
    /// The steps.
    pub rows: Vec<Step>,
}

/// Metrics after a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Intervals of some metrics.
    #[serde(default)]
    pub intervals: Intervals,
    /// Metrics, and where the step is on each axis.
    #[serde(flatten)]
    pub values: Values,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_written_again() {
        let facts = json!({
            "metrics": { "steps": 20.0, "edits": 3, "nothing": null },
            "columns": [
                { "name": "steps", "label": "steps", "format": "number" },
                { "name": "edits", "label": "edits", "format": "percent", "better": null, "doc": "what it says" },
                { "name": "nothing", "label": "", "format": "number", "better": "min" },
            ],
            "intervals": { "steps": [19.5, 20.5] },
            "series": { "label": "rounds", "axes": ["round"], "rows": [{ "round": 2, "steps": 20.0, "intervals": {} }] },
            "samples": [{ "prompt": "It is", "before": "so" }],
        });
        let shown = Shown::of(&facts);
        assert_eq!(serde_json::to_value(&shown).unwrap(), facts);
        assert_eq!(serde_json::from_value::<Shown>(facts).unwrap(), shown);
        let better: Vec<_> = shown.shown_columns().iter().map(Column::better).collect();
        assert_eq!(better, [None, None, Some(Better::Min)]);
        assert_eq!(shown.shown_columns()[2].label(), "nothing");
        assert_eq!(shown.metric("edits"), Some(3.0));
    }

    #[test]
    fn what_cannot_be_read_hides_nothing_else() {
        let shown = Shown::of(&json!({ "metrics": { "a": 1, "b": "text" }, "columns": "none", "samples": 3 }));
        assert_eq!(shown.metric("a"), Some(1.0));
        let names: Vec<_> = shown.shown_columns().into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(Shown::of(&Value::Null), Shown::default());
    }

    #[test]
    fn shares_are_read_as_percentages() {
        let shares = [1.0, 0.123, 0.0342, 0.000_41, 0.000_012, 1e-7, 0.0, f64::NAN];
        let texts = ["100%", "12%", "3.4%", "0.04%", "0.001%", "<0.001%", "0%", "–"];
        assert_eq!(shares.map(percent), texts);
    }
}
