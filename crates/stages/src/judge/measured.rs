//! The same measured on every version of a model: before the edit, after each batch, after rounds of a sequence.

use palinode_engine::Error;
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Better, Column, Counts, Format, Intervals, Series, Shown, Step, Values};
use palinode_eval::{bootstrap, share_interval};
use serde_json::Number;

use crate::judge::versions::{Version, Versions};

/// Seed of the bootstrap: any will do, as long as it is the same for all cells.
const SEED: u64 = 1;

/// What is reported of measurements.
pub struct Metric<'a, T> {
    /// Its name in files and tables.
    pub name: &'a str,
    /// What it says, in one line.
    pub doc: &'a str,
    /// How it is written.
    pub format: Format,
    /// What is better.
    pub better: Better,
    /// Its value over some measurements.
    pub value: &'a dyn Fn(&[&T]) -> Option<f64>,
}

/// What was measured.
pub struct Measured<T> {
    /// On the unedited model.
    pub before: Vec<T>,
    /// On each batch's edited model; nothing of an unedited one.
    pub after: Vec<Vec<T>>,
    /// After rounds: the round, the edits made by then, and what was measured.
    pub rounds: Vec<(usize, usize, Vec<T>)>,
}

impl<T> Measured<T> {
    /// Measures all versions. How many measurements that takes, [`versions`] tells.
    pub fn of(
        versions: &Versions<'_>,
        every: Option<Count>,
        mut measure: impl FnMut(&Version) -> Result<Vec<T>, Error>,
    ) -> Result<Self, Error> {
        let before = measure(&versions.unedited())?;
        let after = (0..versions.edits.len()).map(|b| measure(&versions.batch(b)?)).collect::<Result<_, _>>()?;
        let stops = versions.stops(every).into_iter();
        let rounds = stops.map(|(number, round)| Ok((number, round.edits, measure(&versions.round(number, round)?)?)));
        Ok(Self { before, after, rounds: rounds.collect::<Result<_, Error>>()? })
    }

    /// What a result shows: metrics with their intervals, those before the edit beside them, and the rounds as a series.
    pub fn shown(&self, metrics: &[Metric<'_, T>], resamples: usize) -> Shown {
        let unedited = std::slice::from_ref(&self.before);
        let now: &[Vec<T>] = if self.after.is_empty() { unedited } else { &self.after };
        let (mut values, mut columns) = (Values::new(), Vec::new());
        for metric in metrics {
            values.insert(metric.name.to_owned(), value(metric, now));
            columns.push(column(metric, metric.name.to_owned(), metric.name.to_owned(), Some(metric.better)));
        }
        for metric in metrics.iter().filter(|_| !self.after.is_empty()) {
            let name = format!("before_{}", metric.name);
            values.insert(name.clone(), value(metric, unedited));
            columns.push(column(metric, name, format!("{} before", metric.name), None));
        }
        let rounds = self.rounds.iter().map(|(number, edits, found)| {
            let found = std::slice::from_ref(found);
            let values = metrics.iter().map(|metric| (metric.name.to_owned(), value(metric, found)));
            step(*number, *edits, values.collect(), intervals(metrics, found, resamples))
        });
        Shown {
            metrics: Some(values),
            columns: Some(columns),
            intervals: Some(intervals(metrics, now, resamples)),
            n: Some(counts(metrics, unedited, now)),
            series: Some(rounds_of(rounds.collect())),
            ..Shown::default()
        }
    }
}

/// Metrics after a round of a sequence, by when so many edits were made.
pub fn step(round: usize, edits: usize, mut values: Values, intervals: Intervals) -> Step {
    values.insert("round".to_owned(), shown::count(round));
    values.insert("edits".to_owned(), shown::count(edits));
    Step { intervals, values }
}

/// The series of rounds.
pub fn rounds_of(rows: Vec<Step>) -> Series {
    Series { label: "rounds".to_owned(), axes: vec!["round".to_owned(), "edits".to_owned()], rows }
}

fn value<T>(metric: &Metric<'_, T>, batches: &[Vec<T>]) -> Option<Number> {
    mean(metric, batches, None).and_then(shown::number)
}

/// Over batches, of each batch's value over a sample of its measurements.
fn mean<T>(metric: &Metric<'_, T>, batches: &[Vec<T>], sample: Option<&[usize]>) -> Option<f64> {
    let values = batches.iter().filter_map(|batch| {
        let chosen: Vec<&T> = match sample {
            Some(sample) => sample.iter().map(|&i| &batch[i]).collect(),
            None => batch.iter().collect(),
        };
        (metric.value)(&chosen)
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn intervals<T>(metrics: &[Metric<'_, T>], batches: &[Vec<T>], resamples: usize) -> Intervals {
    let n = batches.first().map_or(0, Vec::len);
    let interval = |metric: &Metric<'_, T>| {
        let drawn = bootstrap(n, resamples, SEED, |sample| mean(metric, batches, Some(sample)));
        let found = match metric.format {
            Format::Percent => share_interval(&each(metric, batches), mean(metric, batches, None)?, drawn)?,
            Format::Number => drawn?,
        };
        Some((metric.name.to_owned(), found.map(Some)))
    };
    metrics.iter().filter_map(interval).collect()
}

/// The value of every measurement by itself, as a mean over batches.
fn each<T>(metric: &Metric<'_, T>, batches: &[Vec<T>]) -> Vec<f64> {
    let n = batches.first().map_or(0, Vec::len);
    (0..n).filter_map(|i| mean(metric, batches, Some(&[i]))).collect()
}

/// How many measurements stand behind each metric, and behind the same before the edit.
fn counts<T>(metrics: &[Metric<'_, T>], unedited: &[Vec<T>], now: &[Vec<T>]) -> Counts {
    let of = |batches: &[Vec<T>], metric: &Metric<'_, T>| each(metric, batches).len();
    let mut all = Counts::new();
    for metric in metrics {
        all.insert(metric.name.to_owned(), of(now, metric));
        all.insert(format!("before_{}", metric.name), of(unedited, metric));
    }
    all.retain(|_, n| *n > 0);
    all
}

fn column<T>(metric: &Metric<'_, T>, name: String, label: String, better: Option<Better>) -> Column {
    Column::new(name, label, metric.format).ranked(better).doc(metric.doc)
}

/// How many versions there are to measure.
pub fn versions(versions: &Versions<'_>, every: Option<Count>) -> u64 {
    (1 + versions.edits.len() + versions.stops(every).len()) as u64
}
