//! Means over records.

use crate::{Comparison, RecordScores};

/// A metric of a [`Summary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in files.
    pub name: &'static str,
    /// Its heading in tables.
    pub label: &'static str,
    /// What it says, in one line.
    pub doc: &'static str,
    /// Whether it is a share, shown in percent.
    pub share: bool,
}

/// The metrics, in the order of tables.
pub const METRICS: [Metric; 10] = [
    metric("S", "S", "harmonic mean of ES, PS and NS", true),
    metric("ES", "ES", "efficacy: rewrite prompts where p(new) > p(true)", true),
    metric("PS", "PS", "paraphrase: paraphrases where p(new) > p(true)", true),
    metric("NS", "NS", "neighbourhood: prompts about other subjects where p(true) > p(new)", true),
    metric("EM", "EM", "efficacy magnitude: mean p(new) − p(true) on rewrite prompts", false),
    metric("PM", "PM", "paraphrase magnitude: mean p(new) − p(true) on paraphrases", false),
    metric("NM", "NM", "neighbourhood magnitude: mean p(true) − p(new)", false),
    metric("EA", "EA", "efficacy accuracy: rewrite prompts completed with the new target", true),
    metric("PA", "PA", "paraphrase accuracy: paraphrases completed with the new target", true),
    metric("NA", "NA", "neighbourhood accuracy: prompts completed with the target that should stay", true),
];

const fn metric(name: &'static str, label: &'static str, doc: &'static str, share: bool) -> Metric {
    Metric { name, label, doc, share }
}

/// Means: within a record first, then over the records that have such prompts. `None` where no record has.
///
/// Shares are between 0 and 1, magnitudes between −1 and 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    values: [Option<f64>; METRICS.len()],
}

impl Summary {
    /// Of these records.
    pub fn of(records: &[RecordScores]) -> Self {
        let mean = |which: usize, value: &dyn Fn(&Comparison, bool) -> Option<f64>| {
            let means = records.iter().filter_map(|record| {
                let (prompts, new_wins) = match which {
                    0 => (&record.rewrite, true),
                    1 => (&record.paraphrase, true),
                    _ => (&record.neighborhood, false),
                };
                average(prompts.iter().filter_map(|c| value(c, new_wins)))
            });
            average(means)
        };
        let success = |c: &Comparison, new_wins: bool| {
            let old = c.old?;
            // A tie is no success on either side.
            Some(f64::from(u8::from(if new_wins { c.new.nll < old.nll } else { old.nll < c.new.nll })))
        };
        let magnitude = |c: &Comparison, new_wins: bool| c.margin().map(|m| if new_wins { m } else { -m });
        let accuracy = |c: &Comparison, new_wins: bool| {
            let judged = if new_wins { Some(c.new) } else { c.old };
            judged.map(|score| f64::from(u8::from(score.correct)))
        };
        let three = |value: &dyn Fn(&Comparison, bool) -> Option<f64>| [0, 1, 2].map(|which| mean(which, value));
        let [es, ps, ns] = three(&success);
        let [em, pm, nm] = three(&magnitude);
        let [ea, pa, na] = three(&accuracy);
        Self { values: [harmonic([es, ps, ns]), es, ps, ns, em, pm, nm, ea, pa, na] }
    }

    /// The metric of this name; `None` where there was nothing to measure it on.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values[METRICS.iter().position(|metric| metric.name == name)?]
    }

    /// Metrics that could be measured, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, f64)> {
        METRICS.iter().zip(self.values).filter_map(|(metric, value)| Some((metric, value?)))
    }
}

fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// Zero where one of them is; `None` where one is missing.
fn harmonic<const N: usize>(values: [Option<f64>; N]) -> Option<f64> {
    let mut inverse = 0.0;
    for value in values {
        inverse += 1.0 / value?;
    }
    Some(N as f64 / inverse)
}
