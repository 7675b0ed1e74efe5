//! Answers in a model's own words: how they are asked for, what stands in the file of them, and how far they are from teacher forcing.

use std::collections::BTreeSet;

use palinode_engine::bounds::Count;
use palinode_engine::shown::{Better, Column, Format, Intervals, Values};
use palinode_engine::{Digest, Error, FieldError};
use palinode_eval::{
    AnswerKind, Answering, COUNTERPARTS, GeneratedAnswer, Group, METRICS, RecordScores, Stop, StopAt, Summary,
    bootstrap, share_interval,
};
use palinode_model::generate::Sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::chat::Chat;

/// How a model answers prompts in its own words.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerParams {
    /// Tokens of an answer, at most.
    #[serde(default = "tokens")]
    tokens: Count,
    /// Where an answer is over, beside the model's end token: at the end of a `sentence`, or of a `line`. `[]` for the end token alone.
    #[serde(default = "stops")]
    stop: Vec<StopAt>,
    /// Draw each token from this many most probable ones. The default is the most probable token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_k: Option<Count>,
    /// Seed of the random draws.
    #[serde(default = "one")]
    seed: u64,
    /// Puts every prompt as a user's message by the model's chat template: `chat: {}`, or `chat: { system: … }`. The default is what the
    /// requests have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Chat>,
    /// What stands around every prompt, such as `"Question: {prompt}\nAnswer:"`. The default is the prompt alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<String>,
    /// The prompts to answer. The default is all of them.
    #[serde(default = "all")]
    #[schemars(length(min = 1))]
    prompts: Vec<AnswerKind>,
}

fn tokens() -> Count {
    const { Count::new(64) }
}

fn one() -> u64 {
    1
}

fn stops() -> Vec<StopAt> {
    vec![StopAt::Sentence, StopAt::Line]
}

fn all() -> Vec<AnswerKind> {
    AnswerKind::ALL.to_vec()
}

impl AnswerParams {
    /// The same for the model.
    pub fn answering(&self) -> Answering {
        Answering {
            tokens: self.tokens.get(),
            stop: Stop { at: self.stop.clone(), before: Vec::new() },
            sampling: match self.top_k {
                Some(k) => Sampling::TopK { k: k.get(), seed: self.seed },
                None => Sampling::Greedy,
            },
            form: self.form.clone(),
            prompts: self.prompts.clone(),
        }
    }

    /// What makes answers other ones: all of the parameters.
    pub fn name(&self) -> Value {
        json!(self)
    }

    /// What is wrong with them.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(form) = self.form.as_ref().filter(|form| form.matches("{prompt}").count() != 1) {
            let message = format!("{form:?} does not say once where the prompt stands");
            errors.push(FieldError::new("answers.form", message).expected("a text with one {prompt}"));
        }
        if self.prompts.is_empty() {
            let error = FieldError::new("answers.prompts", "`prompts` is empty");
            errors.push(error.expected(AnswerKind::ALL.map(AnswerKind::name).join(", ")));
        }
        errors
    }
}

/// The name of an answer for its judges: the same for the same prompt, right answers and answer, wherever they are from.
pub fn key(answer: &GeneratedAnswer) -> String {
    Digest::of(json!([answer.prompt, answer.right, answer.text]).to_string().as_bytes()).to_string()
}

/// Every answer before and after the edit, one JSON object a line (docs/answers.md).
pub fn lines(before: &[RecordScores], after: &[RecordScores]) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for (records, edited) in [(before, false), (after, true)] {
        for record in records {
            for answer in &record.answers {
                let line = json!({
                    "key": key(answer), "id": record.id, "edited": edited, "kind": answer.kind, "axis": answer.axis, "prompt": answer.prompt,
                    "right": answer.right, "answer": answer.text, "exact": answer.exact(), "contains": answer.contains(), "f1": answer.f1(),
                });
                serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
                lines.push(b'\n');
            }
        }
    }
    Ok(lines)
}

/// What is said where there is no gap.
const NO_GAP: &str = "no gap";

/// Notes of many cells, each with its cell: where more than `most` say that there is no gap, these are one, and those that say of one are left.
pub fn condensed(mut notes: Vec<(String, String)>, most: usize) -> Vec<(String, String)> {
    let all = notes.len();
    let none = |note: &(String, String)| note.1.ends_with(&format!(": {NO_GAP}"));
    let without = notes.iter().filter(|note| none(note)).count();
    if without > most {
        notes.retain(|note| !none(note));
        let said = format!("{without} of {all} comparisons of teacher forcing with the model's own answers: {NO_GAP}");
        notes.push((String::new(), said));
    }
    notes
}

/// How far the model's own answers are from what teacher forcing says of the same prompts, in words.
pub fn gap(summary: &Summary, groups: &[Group]) -> Vec<String> {
    let label = |name: &str| METRICS.iter().find(|metric| metric.name == name).map_or("", |metric| metric.label);
    let own = |name: &str| METRICS.iter().any(|metric| metric.name == name && groups.contains(&metric.group));
    let one = |(forced, answers): &(&str, &str)| {
        let (by_force, exact) = (summary.get(forced).filter(|_| own(forced))?, summary.get(answers)?);
        let percent = |share: f64| format!("{:.1}\u{a0}%", 100.0 * share);
        let kind = answers.strip_prefix("exact_");
        let contains = kind.and_then(|kind| summary.get(&format!("contains_{kind}")));
        let contained = contains.map(|share| format!(", and {} contain it", percent(share))).unwrap_or_default();
        let points = 100.0 * (by_force - exact);
        let gap = if points.abs() < 0.05 {
            NO_GAP.to_owned()
        } else if points > 0.0 {
            format!("{points:.1} points less than teacher forcing says")
        } else {
            format!("{:.1} points more than teacher forcing says", -points)
        };
        let what = match kind {
            Some(_) => format!("of the model's own answers {} match exactly{contained}", percent(exact)),
            None => format!("{} of the model's own answers are the same as before", percent(exact)),
        };
        Some(format!("{} {} with teacher forcing; {what}: {gap}", label(forced), percent(by_force)))
    };
    COUNTERPARTS.iter().filter_map(one).collect()
}

/// Figures by the number of steps of multi-hop questions: with teacher forcing, and in the model's own words where there are answers.
pub fn by_hops(records: &[RecordScores], resamples: usize, seed: u64) -> (Values, Intervals, Vec<Column>) {
    let (mut values, mut intervals, mut columns) = (Values::new(), Intervals::new(), Vec::new());
    let mean = |all: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = all.fold((0.0, 0_usize), |(sum, n), value| (sum + value, n + 1));
        (n > 0).then(|| sum / n as f64)
    };
    let axes = records.iter().flat_map(|record| record.portability.keys()).filter(|axis| axis.ends_with(" hops"));
    let axes: BTreeSet<&String> = axes.collect();
    let mut add = |name: String, doc: String, of: &dyn Fn(&RecordScores) -> Option<f64>| {
        let each: Vec<f64> = records.iter().filter_map(of).collect();
        let Some(value) = mean(&mut each.iter().copied()) else { return };
        values.insert(name.clone(), palinode_engine::shown::number(value));
        let drawn = bootstrap(each.len(), resamples, seed, |some| mean(&mut some.iter().map(|&i| each[i])));
        intervals.extend(share_interval(&each, value, drawn).map(|ends| (name.clone(), ends.map(Some))));
        columns.push(Column::new(&name, &name, Format::Percent).ranked(Better::Max).doc(doc));
    };
    for axis in axes {
        add(axis.clone(), format!("portability, of questions of {axis} alone"), &|record| {
            mean(&mut record.portability.get(axis)?.iter().map(|answer| answer.score.matched()))
        });
        add(format!("{axis} exact"), format!("portability exact, of questions of {axis} alone"), &|record| {
            let own = record.answers.iter().filter(|answer| answer.axis.as_ref() == Some(axis));
            mean(&mut own.map(|answer| f64::from(u8::from(answer.exact()))))
        });
    }
    (values, intervals, columns)
}

/// Puts each figure of own answers behind the first teacher-forced one of the same prompts.
pub fn beside(columns: &mut Vec<Column>) {
    let own: BTreeSet<&str> = COUNTERPARTS.iter().map(|(_, answers)| *answers).collect();
    for answers in own {
        let forced = |column: &Column| COUNTERPARTS.contains(&(column.name.as_str(), answers));
        let Some(from) = columns.iter().position(|column| column.name == answers) else { continue };
        let column = columns.remove(from);
        let to = columns.iter().position(forced).map_or(from, |at| at + 1);
        columns.insert(to, column);
    }
}
