//! Metrics that differ: over pairs of repetitions and of records alone, and better or worse only where that is shown.

use palinode::shown::{Better, Shown};
use palinode::{Paired, Repeated, Scored, holm, is_shown, known_records, mean_and_deviation, paired, paired_values};
use serde::Serialize;

use super::parameters::{Beside, both};
use super::side::{Repetition, Side, listed};
use crate::results::metrics::{Metric, metrics_of};
use crate::terminal::format;

/// The repetitions of one experiment on both sides.
#[derive(Serialize)]
pub struct Pairing<'a> {
    /// The experiment.
    pub stage: String,
    /// Those that both have, which are compared.
    pub compared: Vec<String>,
    /// Those of which the first side has no result.
    pub a_lacks: Vec<String>,
    /// Those of which the second side has no result.
    pub b_lacks: Vec<String>,
    #[serde(skip)]
    pairs: Vec<(&'a Repetition, &'a Repetition)>,
}

impl<'a> Pairing<'a> {
    fn of(stage: String, a: &'a [Repetition], b: &'a [Repetition]) -> Self {
        let mut pairing =
            Self { stage, compared: Vec::new(), a_lacks: Vec::new(), b_lacks: Vec::new(), pairs: Vec::new() };
        if let ([a], [b]) = (a, b) {
            // Two single experiments are compared whatever they are called.
            if a.shown.is_some() && b.shown.is_some() {
                pairing.compared.push(if a.called == b.called {
                    a.called.clone()
                } else {
                    format!("{} of A with {} of B", or_no_name(&a.called), or_no_name(&b.called))
                });
                pairing.pairs.push((a, b));
            }
            return pairing;
        }
        let named = |side: &'a [Repetition], name: &str| side.iter().find(|one| one.called == name);
        let others = b.iter().filter(|other| named(a, &other.called).is_none());
        for name in a.iter().chain(others).map(|one| &one.called) {
            let there = |side| named(side, name).filter(|one| one.shown.is_some());
            match (there(a), there(b)) {
                (Some(a), Some(b)) => {
                    pairing.compared.push(name.clone());
                    pairing.pairs.push((a, b));
                }
                (first, second) => {
                    let name = or_no_name(name);
                    pairing.a_lacks.extend(first.is_none().then(|| name.clone()));
                    pairing.b_lacks.extend(second.is_none().then_some(name));
                }
            }
        }
        pairing
    }

    /// What is left out, in words.
    pub fn warning(&self) -> Option<String> {
        if self.a_lacks.is_empty() && self.b_lacks.is_empty() {
            let unlike = self.compared.first().filter(|name| name.contains(" of A with "));
            return unlike.map(|names| format!("{}: {names}, which are no repetitions of one another", self.stage));
        }
        let of = |side: &str, names: &[String]| {
            (!names.is_empty()).then(|| format!("{side} has no result of {}", listed(names)))
        };
        let why: Vec<String> = [of("A", &self.a_lacks), of("B", &self.b_lacks)].into_iter().flatten().collect();
        let mut all: Vec<&String> = self.compared.iter().chain(&self.a_lacks).chain(&self.b_lacks).collect();
        all.sort_unstable();
        all.dedup();
        Some(match self.pairs.len() {
            0 => format!(
                "{}: no repetition has a result on both sides, so nothing is compared: {}",
                self.stage,
                why.join("; ")
            ),
            n => format!(
                "{}: {n} of {} {} compared, {}: {}",
                self.stage,
                format::count(all.len(), "repetition"),
                if n == 1 { "is" } else { "are" },
                listed(&self.compared),
                why.join("; ")
            ),
        })
    }

    fn shown(&self, second: bool) -> impl Iterator<Item = &'a Shown> {
        self.pairs.iter().filter_map(move |(a, b)| if second { b.shown.as_ref() } else { a.shown.as_ref() })
    }

    /// The scores of both sides record by record, each pair under one name; `None` where those of one are not in the store.
    fn scored(&self) -> Option<(Repeated<'a>, Repeated<'a>)> {
        let side = |second: bool| -> Option<Repeated<'a>> {
            let own = |(at, (a, b)): (usize, &(&'a Repetition, &'a Repetition))| {
                let scored: Option<&'a Scored> = if second { b.scored.as_ref() } else { a.scored.as_ref() };
                Some((at.to_string(), scored?))
            };
            self.pairs.iter().enumerate().map(own).collect()
        };
        let (a, b) = (side(false)?, side(true)?);
        (!a.is_empty()).then_some((a, b))
    }
}

fn or_no_name(called: &str) -> String {
    if called.is_empty() { "what is not repeated".to_owned() } else { called.to_owned() }
}

/// The experiments that stand beside each other: those of one name, or the two stages that were named.
pub fn pairings<'a>(a: &'a Side, b: &'a Side, beside: &Beside) -> Vec<Pairing<'a>> {
    let mut found = Vec::new();
    for (name, own) in &a.experiments {
        let other = if a.run_as_a_whole { b.experiments.get_key_value(name) } else { b.experiments.iter().next() };
        let Some((with, other)) = other.filter(|_| beside.unlike.is_none()) else { continue };
        let scored = |one: &Repetition| one.shown.as_ref().is_some_and(|shown| !metrics_of(shown).is_empty());
        if own.iter().any(scored) || other.iter().any(scored) {
            found.push(Pairing::of(both(name, with), own, other));
        }
    }
    found
}

/// What stands behind a difference.
#[derive(Clone, Copy, PartialEq)]
pub enum Behind {
    /// Pairs of records, and of repetitions where there are several.
    Records(Paired),
    /// Pairs of repetitions: a 95 % interval of the difference, and the p of none.
    Repetitions([f64; 2], f64),
    /// Two numbers with intervals of their own, which meet or do not.
    Apart(bool),
    /// Nothing: it is not known what chance does.
    Nothing,
}

impl Behind {
    /// The 95 % interval of the difference.
    pub fn interval(self) -> Option<[f64; 2]> {
        match self {
            Self::Records(pair) => Some(pair.interval),
            Self::Repetitions(interval, _) => Some(interval),
            Self::Apart(_) | Self::Nothing => None,
        }
    }

    fn p(self) -> Option<f64> {
        match self {
            Self::Records(pair) => Some(pair.p),
            Self::Repetitions(_, p) => Some(p),
            Self::Apart(_) | Self::Nothing => None,
        }
    }
}

/// A metric that differs.
#[derive(Serialize)]
pub struct Measured {
    /// The experiment.
    pub stage: String,
    /// The metric's title.
    pub metric: String,
    /// Its value on the first side.
    pub a: Option<f64>,
    /// Its value on the second side.
    pub b: Option<f64>,
    /// Whether B is better, where a difference is shown.
    pub better: Option<bool>,
    /// Whether it has a better direction.
    #[serde(skip)]
    pub judged: bool,
    /// Records that both have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    /// Pairs of repetitions.
    pub repetitions: usize,
    /// The 95 % interval of B less A over pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The p of no difference, adjusted by Holm for all metrics that are compared here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// What stands behind it.
    #[serde(skip)]
    pub behind: Behind,
    /// A, B, the change, its interval and its p, as people read them.
    #[serde(skip)]
    pub drawn: [String; 5],
}

/// The metrics that differ, and what is to be said of records that only one side has.
pub fn metrics(pairings: &[Pairing<'_>]) -> (Vec<Measured>, Vec<String>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for pairing in pairings {
        let mut metrics: Vec<Metric> = Vec::new();
        for metric in pairing.shown(true).chain(pairing.shown(false)).flat_map(metrics_of) {
            if metrics.iter().all(|known| known.name != metric.name) {
                metrics.push(metric);
            }
        }
        let scored = pairing.scored();
        let mut partial: Option<[usize; 3]> = None;
        for metric in &metrics {
            let (mut a, mut b, behind) = compared(pairing, scored.as_ref(), &metric.name);
            if let (Behind::Records(pair), Some((first, second))) = (behind, &scored) {
                let own = [known_records(first, &metric.name), known_records(second, &metric.name)]
                    .map(Option::unwrap_or_default);
                if own.iter().any(|n| *n > pair.n) {
                    // What one side has alone is no part of the comparison.
                    (a, b) = (Some(pair.values[0]), Some(pair.values[1]));
                    let more = partial.is_none_or(|[.., n]| pair.n > n);
                    partial = if more { Some([own[0], own[1], pair.n]) } else { partial };
                }
            }
            if a != b {
                found.push(measured(pairing, metric, a, b, behind));
            }
        }
        warnings.extend(partial.map(|[a, b, n]| {
            format!(
                "{}: A has {} and B {b}; the {n} that both have are compared",
                pairing.stage,
                format::count(a, "record")
            )
        }));
    }
    let tested = |found: &&mut Measured| found.behind.p().is_some() && found.judged;
    let ps: Vec<f64> = found.iter_mut().filter(tested).filter_map(|found| found.behind.p()).collect();
    for (found, p) in found.iter_mut().filter(tested).zip(holm(&ps)) {
        found.p = Some(p);
        found.drawn[4] = if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") };
        if !found.interval.is_some_and(|interval| is_shown(interval, p)) {
            found.better = None;
        }
    }
    (found, warnings)
}

/// The values of a metric on both sides, over pairs alone, and what stands behind their difference.
fn compared(
    pairing: &Pairing<'_>,
    scored: Option<&(Repeated<'_>, Repeated<'_>)>,
    metric: &str,
) -> (Option<f64>, Option<f64>, Behind) {
    let value = |one: &Repetition| one.shown.as_ref().and_then(|shown| shown.metric(metric));
    let pairs: Vec<(f64, f64)> = pairing.pairs.iter().filter_map(|(a, b)| value(a).zip(value(b))).collect();
    let mean = |values: Vec<f64>| mean_and_deviation(&values).map(|(mean, _)| mean);
    if pairs.is_empty() {
        // Only one side measures it.
        let alone = |second: bool| mean(pairing.shown(second).filter_map(|shown| shown.metric(metric)).collect());
        return (alone(false), alone(true), Behind::Nothing);
    }
    let (a, b) = (mean(pairs.iter().map(|(a, _)| *a).collect()), mean(pairs.iter().map(|(_, b)| *b).collect()));
    let by_records = scored.and_then(|(a, b)| paired(a, b, metric)).map(Behind::Records);
    let by_repetitions = || paired_values(&pairs).map(|(interval, p)| Behind::Repetitions(interval, p));
    let apart = || {
        let [(a, b)] = pairing.pairs.as_slice() else { return None };
        let ([low_a, high_a], [low_b, high_b]) = (own_interval(a, metric)?, own_interval(b, metric)?);
        Some(Behind::Apart(high_a < low_b || high_b < low_a))
    };
    (a, b, by_records.or_else(by_repetitions).or_else(apart).unwrap_or(Behind::Nothing))
}

fn own_interval(one: &Repetition, metric: &str) -> Option<[f64; 2]> {
    let [low, high] = *one.shown.as_ref()?.intervals.as_ref()?.get(metric)?;
    Some([low?, high?])
}

fn measured(pairing: &Pairing<'_>, metric: &Metric, a: Option<f64>, b: Option<f64>, behind: Behind) -> Measured {
    let change = a.zip(b).map(|(a, b)| b - a);
    let interval = behind.interval();
    let decimals = metric.decimals(&[a, b, change], &[interval]);
    let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| metric.text(value, decimals));
    let sign = |change: f64| if change > 0.0 { "+" } else { "" };
    let signed = |value: f64| format!("{}{}", sign(value), metric.difference(value, decimals));
    let better = change.filter(|change| *change != 0.0).zip(metric.better);
    let better = better.map(|(change, better)| (change > 0.0) == (better == Better::Max));
    let ends = interval.map(|ends| ends.map(signed).join(" to ")).unwrap_or_default();
    Measured {
        stage: pairing.stage.clone(),
        metric: metric.label.clone(),
        a,
        b,
        // Nothing is called better without an interval or a test; what has a test is judged with all others.
        better: better.filter(|_| !matches!(behind, Behind::Nothing | Behind::Apart(false))),
        judged: metric.better.is_some(),
        n: if let Behind::Records(pair) = behind { Some(pair.n) } else { None },
        repetitions: pairing.pairs.len(),
        interval,
        p: None,
        behind,
        drawn: [text(a), text(b), change.map(signed).unwrap_or_default(), ends, String::new()],
    }
}
