//! Means over records, and how far they can be trusted.

use crate::metrics::{Of, average};
use crate::{METRICS, Metric, RecordScores, bootstrap};

/// What each record says, and the means: within a record first, then over the records that have such prompts.
///
/// Shares are between 0 and 1, magnitudes between −1 and 1.
#[derive(Clone, Debug)]
pub struct Summary {
    /// For each record, a value for each of [`METRICS`]; `None` where it has no such prompts.
    records: Vec<[Option<f64>; METRICS.len()]>,
}

impl Summary {
    /// Of these records by themselves.
    pub fn of(records: &[RecordScores]) -> Self {
        Self { records: records.iter().map(|record| values(record, None)).collect() }
    }

    /// Of records `after` an edit, beside the same ones `before` it.
    pub fn between(before: &[RecordScores], after: &[RecordScores]) -> Self {
        Self { records: before.iter().zip(after).map(|(before, after)| values(after, Some(before))).collect() }
    }

    /// The metric of this name; `None` where there was nothing to measure it on.
    pub fn get(&self, name: &str) -> Option<f64> {
        let all: Vec<usize> = (0..self.records.len()).collect();
        self.mean(place(name)?, &all)
    }

    /// Metrics that could be measured, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, f64)> {
        METRICS.iter().filter_map(|metric| Some((metric, self.get(metric.name)?)))
    }

    /// What a record says by itself.
    pub fn record(&self, index: usize) -> impl Iterator<Item = (&'static Metric, f64)> {
        METRICS.iter().zip(self.records[index]).filter_map(|(metric, value)| Some((metric, value?)))
    }

    /// The 95 % interval of each metric; see [`bootstrap()`]. The draws are the same for every metric.
    pub fn intervals(&self, resamples: usize, seed: u64) -> Vec<(&'static Metric, [f64; 2])> {
        let interval = |(place, metric): (usize, &'static Metric)| {
            let interval = bootstrap(self.records.len(), resamples, seed, |sample| self.mean(place, sample))?;
            Some((metric, interval))
        };
        METRICS.iter().enumerate().filter_map(interval).collect()
    }

    /// The mean of a metric over the records of a sample.
    fn mean(&self, metric: usize, sample: &[usize]) -> Option<f64> {
        match METRICS[metric].of {
            Of::Record(_) | Of::Change(_) => average(sample.iter().filter_map(|&i| self.records[i][metric])),
            Of::Harmonic(parts) => {
                let mut inverse = 0.0;
                for part in parts {
                    inverse += 1.0 / self.mean(place(part)?, sample)?;
                }
                Some(parts.len() as f64 / inverse)
            }
        }
    }
}

/// A value for each of [`METRICS`].
fn values(record: &RecordScores, before: Option<&RecordScores>) -> [Option<f64>; METRICS.len()] {
    METRICS.map(|metric| match metric.of {
        Of::Record(value) => value(record),
        Of::Change(value) => before.and_then(|before| value(before, record)),
        Of::Harmonic(_) => None,
    })
}

fn place(name: &str) -> Option<usize> {
    METRICS.iter().position(|metric| metric.name == name)
}
