//! What a record's scores amount to: one number for each metric, under its own name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Comparison, RecordScores, Score};

/// Metrics that belong together: those of one line of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// CounterFact: the new target against the old one (Meng et al., arXiv 2202.05262).
    CounterFact,
    /// zsRE: how many of a target's tokens are the most probable ones (Mitchell et al., arXiv 2110.11309).
    ZsRe,
    /// EasyEdit (Zhang et al., arXiv 2401.01286): tokens that match, what follows from an edit, and what should not.
    EasyEdit,
    /// Longer texts.
    Generation,
}

/// Metrics of one line of work, as requests are judged by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricSet {
    /// The new target compared with the old one: S, ES, PS, NS, magnitudes and accuracies.
    CounterFact,
    /// Shares of matching tokens: efficacy, paraphrase, specificity.
    Zsre,
    /// Reliability, generalization, portability, locality, fluency.
    EasyEdit,
}

impl MetricSet {
    /// The group that its metrics belong to.
    pub fn group(self) -> Group {
        match self {
            Self::CounterFact => Group::CounterFact,
            Self::Zsre => Group::ZsRe,
            Self::EasyEdit => Group::EasyEdit,
        }
    }
}

/// A metric of a [`crate::Summary`].
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its name in files.
    pub name: &'static str,
    /// Its heading in tables.
    pub label: &'static str,
    /// What it says, in one line.
    pub doc: &'static str,
    /// Whether it is a share, shown in percent.
    pub share: bool,
    /// What it belongs to.
    pub group: Group,
    pub(crate) of: Of,
}

/// How a metric comes about.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    /// The mean over records of what each record says.
    Record(fn(&RecordScores) -> Option<f64>),
    /// The mean over records of what each record says beside what it said before the edit.
    Change(fn(&RecordScores, &RecordScores) -> Option<f64>),
    /// The harmonic mean of other metrics.
    Harmonic([&'static str; 3]),
}

/// All metrics, in the order of tables.
pub const METRICS: [Metric; 20] = [
    share("S", "harmonic mean of ES, PS and NS", Group::CounterFact, Of::Harmonic(["ES", "PS", "NS"])),
    share("ES", "efficacy: rewrite prompts where p(new) > p(true)", Group::CounterFact, of(|r| success(&r.rewrite))),
    share("PS", "paraphrase: paraphrases where p(new) > p(true)", Group::CounterFact, of(|r| success(&r.paraphrase))),
    share(
        "NS",
        "neighbourhood: prompts about other subjects where p(true) > p(new)",
        Group::CounterFact,
        of(|r| mean(&r.neighborhood, |c| c.old.as_ref().map(|old| yes(old.nll < c.new.nll)))),
    ),
    number("EM", "efficacy magnitude: mean p(new) − p(true) on rewrite prompts", of(|r| margin(&r.rewrite))),
    number("PM", "paraphrase magnitude: mean p(new) − p(true) on paraphrases", of(|r| margin(&r.paraphrase))),
    number("NM", "neighbourhood magnitude: mean p(true) − p(new)", of(|r| margin(&r.neighborhood).map(|m| -m))),
    share(
        "EA",
        "efficacy accuracy: rewrite prompts completed with the new target",
        Group::CounterFact,
        of(|r| right(&r.rewrite)),
    ),
    share(
        "PA",
        "paraphrase accuracy: paraphrases completed with the new target",
        Group::CounterFact,
        of(|r| right(&r.paraphrase)),
    ),
    share(
        "NA",
        "neighbourhood accuracy: prompts completed with the target that should stay",
        Group::CounterFact,
        of(|r| mean(&r.neighborhood, |c| c.old.as_ref().map(|old| yes(old.correct())))),
    ),
    share(
        "efficacy",
        "share of the new target's tokens that are the most probable ones",
        Group::ZsRe,
        of(|r| matched(&r.rewrite)),
    ),
    share("paraphrase", "the same on paraphrases", Group::ZsRe, of(|r| matched(&r.paraphrase))),
    share(
        "specificity",
        "the same on prompts about other subjects, with the target that should stay",
        Group::ZsRe,
        of(|r| mean(&r.neighborhood, |c| c.old.as_ref().map(Score::matched))),
    ),
    share(
        "reliability",
        "share of the new target's tokens that are the most probable ones",
        Group::EasyEdit,
        of(|r| matched(&r.rewrite)),
    ),
    share("generalization", "the same on paraphrases", Group::EasyEdit, of(|r| matched(&r.paraphrase))),
    share(
        "portability",
        "the same on questions about what follows from the edit, each with its own answer; the mean over axes",
        Group::EasyEdit,
        of(portability),
    ),
    share(
        "locality",
        "share of most probable tokens that are the same as before the edit, on questions that have nothing to do with it",
        Group::EasyEdit,
        Of::Change(locality),
    ),
    Metric {
        name: "fluency",
        label: "fluency",
        doc: "entropy of longer texts in hundredths of a bit of their n-grams; low where a model repeats itself",
        share: false,
        group: Group::EasyEdit,
        of: of(varied),
    },
    Metric {
        name: "GE",
        label: "GE",
        doc: "generation entropy: hundredths of a bit of the n-grams of longer texts; low where a model repeats itself",
        share: false,
        group: Group::Generation,
        of: of(varied),
    },
    share(
        "RS",
        "reference score: how alike longer texts are to texts about the new fact (cosine of TF-IDF vectors)",
        Group::Generation,
        of(|r| r.reference),
    ),
];

const fn of(value: fn(&RecordScores) -> Option<f64>) -> Of {
    Of::Record(value)
}

const fn share(name: &'static str, doc: &'static str, group: Group, of: Of) -> Metric {
    Metric { name, label: name, doc, share: true, group, of }
}

const fn number(name: &'static str, doc: &'static str, of: Of) -> Metric {
    Metric { name, label: name, doc, share: false, group: Group::CounterFact, of }
}

fn yes(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn mean(prompts: &[Comparison], value: impl Fn(&Comparison) -> Option<f64>) -> Option<f64> {
    average(prompts.iter().filter_map(value))
}

/// A tie is no success on either side.
fn success(prompts: &[Comparison]) -> Option<f64> {
    mean(prompts, |c| c.old.as_ref().map(|old| yes(c.new.nll < old.nll)))
}

fn margin(prompts: &[Comparison]) -> Option<f64> {
    mean(prompts, Comparison::margin)
}

fn right(prompts: &[Comparison]) -> Option<f64> {
    mean(prompts, |c| Some(yes(c.new.correct())))
}

fn matched(prompts: &[Comparison]) -> Option<f64> {
    mean(prompts, |c| Some(c.new.matched()))
}

fn varied(record: &RecordScores) -> Option<f64> {
    record.entropy.map(|bits| 100.0 * bits)
}

fn portability(record: &RecordScores) -> Option<f64> {
    average(record.portability.values().filter_map(|axis| average(axis.iter().map(|answer| answer.score.matched()))))
}

/// Over the axes; where a record has none, over its neighbours, each with what it should go on saying.
fn locality(before: &RecordScores, after: &RecordScores) -> Option<f64> {
    let same = |(before, after): (&Score, &Score)| {
        let equal = before.said.iter().zip(&after.said).filter(|(before, after)| before == after).count();
        equal as f64 / after.said.len() as f64
    };
    if after.locality.is_empty() {
        let olds =
            |record: &'_ RecordScores| record.neighborhood.iter().filter_map(|c| c.old.clone()).collect::<Vec<_>>();
        return average(olds(before).iter().zip(&olds(after)).map(same));
    }
    let axes = before.locality.values().zip(after.locality.values());
    average(axes.filter_map(|(before, after)| {
        average(before.iter().zip(after).map(|(before, after)| same((&before.score, &after.score))))
    }))
}

/// `None` of nothing.
pub(crate) fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}
