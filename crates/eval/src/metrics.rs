//! What a record's scores amount to: one number for each metric, under its own name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AnswerKind, Comparison, GeneratedAnswer, RecordScores, Score, same_answer};

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
    /// Answers in the model's own words.
    Answers,
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
pub const METRICS: [Metric; 37] = [
    share("S", "harmonic mean of ES, PS and NS", Group::CounterFact, Of::Harmonic(["ES", "PS", "NS"])),
    share("ES", "efficacy: rewrite prompts where p(new) > p(true)", Group::CounterFact, of(|r| success(&r.rewrite))),
    share("PS", "paraphrase: paraphrases where p(new) > p(true)", Group::CounterFact, of(|r| success(&r.paraphrase))),
    share(
        "NS",
        "neighborhood: prompts about other subjects where p(true) > p(new)",
        Group::CounterFact,
        of(|r| mean(&r.neighborhood, |c| c.old.as_ref().map(|old| yes(old.nll < c.new.nll)))),
    ),
    number("EM", "efficacy magnitude: mean p(new) − p(true) on rewrite prompts", of(|r| margin(&r.rewrite))),
    number("PM", "paraphrase magnitude: mean p(new) − p(true) on paraphrases", of(|r| margin(&r.paraphrase))),
    number("NM", "neighborhood magnitude: mean p(true) − p(new)", of(|r| margin(&r.neighborhood).map(|m| -m))),
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
        "neighborhood accuracy: prompts completed with the target that should stay",
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
    own(
        "exact_rewrite",
        "rewrite exact",
        "own answers that are a right one, after lower case, articles and punctuation: rewrite prompts",
        of(|r| own_exact(r, AnswerKind::Rewrite)),
    ),
    own(
        "exact_paraphrase",
        "paraphrase exact",
        "own answers that are a right one, after lower case, articles and punctuation: paraphrases",
        of(|r| own_exact(r, AnswerKind::Paraphrase)),
    ),
    own(
        "exact_neighborhood",
        "neighborhood exact",
        "own answers that are a right one, after lower case, articles and punctuation: prompts about other subjects",
        of(|r| own_exact(r, AnswerKind::Neighborhood)),
    ),
    own(
        "exact_portability",
        "portability exact",
        "own answers that are a right one, after lower case, articles and punctuation: questions about what follows from the edit, the mean over axes",
        of(|r| own_exact(r, AnswerKind::Portability)),
    ),
    own(
        "exact_locality",
        "locality exact",
        "own answers that are a right one, after lower case, articles and punctuation: questions that have nothing to do with the edit, the mean over axes",
        of(|r| own_exact(r, AnswerKind::Locality)),
    ),
    own(
        "exact_multihop",
        "multi-hop exact",
        "records of whose multi-hop questions at least one is answered right in the model's own words",
        of(multi_hop),
    ),
    own(
        "kept_answers",
        "answers kept",
        "own answers to neighborhood and locality prompts that are the same as before the edit",
        Of::Change(kept),
    ),
    own(
        "contains_rewrite",
        "rewrite contains",
        "own answers that have a right one in them: rewrite prompts",
        of(|r| own_contains(r, AnswerKind::Rewrite)),
    ),
    own(
        "contains_paraphrase",
        "paraphrase contains",
        "own answers that have a right one in them: paraphrases",
        of(|r| own_contains(r, AnswerKind::Paraphrase)),
    ),
    own(
        "contains_neighborhood",
        "neighborhood contains",
        "own answers that have a right one in them: prompts about other subjects",
        of(|r| own_contains(r, AnswerKind::Neighborhood)),
    ),
    own(
        "contains_portability",
        "portability contains",
        "own answers that have a right one in them: questions about what follows from the edit, the mean over axes",
        of(|r| own_contains(r, AnswerKind::Portability)),
    ),
    own(
        "contains_locality",
        "locality contains",
        "own answers that have a right one in them: questions that have nothing to do with the edit, the mean over axes",
        of(|r| own_contains(r, AnswerKind::Locality)),
    ),
    own(
        "f1_rewrite",
        "rewrite F1",
        "words that own answers share with a right one: rewrite prompts",
        of(|r| own_f1(r, AnswerKind::Rewrite)),
    ),
    own(
        "f1_paraphrase",
        "paraphrase F1",
        "words that own answers share with a right one: paraphrases",
        of(|r| own_f1(r, AnswerKind::Paraphrase)),
    ),
    own(
        "f1_neighborhood",
        "neighborhood F1",
        "words that own answers share with a right one: prompts about other subjects",
        of(|r| own_f1(r, AnswerKind::Neighborhood)),
    ),
    own(
        "f1_portability",
        "portability F1",
        "words that own answers share with a right one: questions about what follows from the edit, the mean over axes",
        of(|r| own_f1(r, AnswerKind::Portability)),
    ),
    own(
        "f1_locality",
        "locality F1",
        "words that own answers share with a right one: questions that have nothing to do with the edit, the mean over axes",
        of(|r| own_f1(r, AnswerKind::Locality)),
    ),
];

/// Pairs of a teacher-forced metric and the one of the model's own answers to the same prompts.
pub const COUNTERPARTS: [(&str, &str); 10] = [
    ("EA", "exact_rewrite"),
    ("PA", "exact_paraphrase"),
    ("NA", "exact_neighborhood"),
    ("efficacy", "exact_rewrite"),
    ("paraphrase", "exact_paraphrase"),
    ("specificity", "exact_neighborhood"),
    ("reliability", "exact_rewrite"),
    ("generalization", "exact_paraphrase"),
    ("portability", "exact_portability"),
    ("locality", "kept_answers"),
];

const fn of(value: fn(&RecordScores) -> Option<f64>) -> Of {
    Of::Record(value)
}

const fn share(name: &'static str, doc: &'static str, group: Group, of: Of) -> Metric {
    Metric { name, label: name, doc, share: true, group, of }
}

const fn own(name: &'static str, label: &'static str, doc: &'static str, of: Of) -> Metric {
    Metric { name, label, doc, share: true, group: Group::Answers, of }
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

/// The mean over a record's answers of a kind; where they have axes, over these first.
fn own_mean(record: &RecordScores, kind: AnswerKind, value: fn(&GeneratedAnswer) -> f64) -> Option<f64> {
    let mut axes: BTreeMap<Option<&str>, Vec<f64>> = BTreeMap::new();
    for answer in record.answers.iter().filter(|answer| answer.kind == kind) {
        axes.entry(answer.axis.as_deref()).or_default().push(value(answer));
    }
    average(axes.into_values().filter_map(|values| average(values.into_iter())))
}

fn own_exact(record: &RecordScores, kind: AnswerKind) -> Option<f64> {
    own_mean(record, kind, |answer| yes(answer.exact()))
}

fn own_contains(record: &RecordScores, kind: AnswerKind) -> Option<f64> {
    own_mean(record, kind, |answer| yes(answer.contains()))
}

fn own_f1(record: &RecordScores, kind: AnswerKind) -> Option<f64> {
    own_mean(record, kind, GeneratedAnswer::f1)
}

/// As MQuAKE counts (Zhong et al., arXiv 2305.14795): one of the questions is enough.
fn multi_hop(record: &RecordScores) -> Option<f64> {
    let hops = |answer: &&GeneratedAnswer| answer.axis.as_deref().is_some_and(palinode_data::is_multi_hop);
    let mut asked = record.answers.iter().filter(hops).peekable();
    asked.peek()?;
    Some(yes(asked.any(GeneratedAnswer::exact)))
}

fn kept(before: &RecordScores, after: &RecordScores) -> Option<f64> {
    let own = [AnswerKind::Neighborhood, AnswerKind::Locality];
    let pairs = before.answers.iter().zip(&after.answers).filter(|(before, _)| own.contains(&before.kind));
    average(pairs.map(|(before, after)| yes(same_answer(&before.text, &after.text))))
}

/// `None` of nothing.
pub(crate) fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}
