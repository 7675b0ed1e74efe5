//! Means over records, and how far they can be trusted.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::metrics::{Of, average};
use crate::{METRICS, Metric, RecordScores};

/// What each record says, and the means: within a record first, then over the records that have such prompts.
///
/// Shares are between 0 and 1, magnitudes between −1 and 1.
#[derive(Clone, Debug)]
pub struct Summary {
    /// For each record, a value for each of [`METRICS`]; `None` where it has no such prompts.
    records: Vec<[Option<f64>; METRICS.len()]>,
}

impl Summary {
    /// Of these records.
    pub fn of(records: &[RecordScores]) -> Self {
        let values = |record: &RecordScores| {
            METRICS.map(|metric| match metric.of {
                Of::Record(value) => value(record),
                Of::Harmonic(_) => None,
            })
        };
        Self { records: records.iter().map(values).collect() }
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

    /// Percentile bootstrap over records: the middle 95 % of each metric over `resamples` draws with replacement.
    /// The draws are the same for every metric and every call with as many records.
    pub fn intervals(&self, resamples: usize, seed: u64) -> Vec<(&'static Metric, [f64; 2])> {
        let n = self.records.len();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(resamples); METRICS.len()];
        for _ in 0..resamples {
            let sample: Vec<usize> = (0..n).map(|_| random.random_range(0..n)).collect();
            for (metric, values) in drawn.iter_mut().enumerate() {
                values.extend(self.mean(metric, &sample));
            }
        }
        let mut found = Vec::new();
        for (metric, mut values) in METRICS.iter().zip(drawn) {
            values.sort_by(f64::total_cmp);
            let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
            if !values.is_empty() {
                found.push((metric, [at(0.025), at(0.975)]));
            }
        }
        found
    }

    /// The mean of a metric over the records of a sample.
    fn mean(&self, metric: usize, sample: &[usize]) -> Option<f64> {
        match METRICS[metric].of {
            Of::Record(_) => average(sample.iter().filter_map(|&i| self.records[i][metric])),
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

fn place(name: &str) -> Option<usize> {
    METRICS.iter().position(|metric| metric.name == name)
}
