//! Means over records, and how far they can be trusted.

use crate::metrics::{Of, average};
use crate::{METRICS, Metric, RecordScores, bootstrap, wilson};

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

    /// What a record says in a metric, by their places.
    pub(crate) fn value(&self, record: usize, metric: usize) -> Option<f64> {
        self.records[record][metric]
    }

    /// The 95 % interval of each metric: Wilson's for shares of records that succeed or fail, and for shares that all records agree on, of
    /// which a bootstrap would make a point; else by [`bootstrap()`]. The draws are the same for every metric.
    pub fn intervals(&self, resamples: usize, seed: u64) -> Vec<(&'static Metric, [f64; 2])> {
        let by_draws = |place: usize| bootstrap(self.records.len(), resamples, seed, |sample| self.mean(place, sample));
        let of_share = |place: usize| {
            let known: Vec<f64> = self.records.iter().filter_map(|record| record[place]).collect();
            let success = known.iter().all(|value| *value == 0.0 || *value == 1.0);
            let alike = known.windows(2).all(|pair| pair[0] == pair[1]);
            let wanted = resamples > 0 && METRICS[place].share && (success || alike);
            if wanted { wilson(average(known.iter().copied())?, known.len()) } else { by_draws(place) }
        };
        let interval = |(place, metric): (usize, &'static Metric)| {
            let interval = match metric.of {
                Of::Record(_) | Of::Change(_) => of_share(place)?,
                Of::Harmonic(parts) => match by_draws(place)? {
                    // All records agree on all parts.
                    [low, high] if low == high => {
                        let ends: Option<Vec<[f64; 2]>> =
                            parts.iter().map(|part| of_share(self::place(part)?)).collect();
                        let ends = ends?;
                        [0, 1].map(|end| ends.len() as f64 / ends.iter().map(|ends| 1.0 / ends[end]).sum::<f64>())
                    }
                    interval => interval,
                },
            };
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

pub(crate) fn place(name: &str) -> Option<usize> {
    METRICS.iter().position(|metric| metric.name == name)
}
