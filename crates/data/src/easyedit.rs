//! EasyEdit's records: KnowEdit (Zhang et al., arXiv 2401.01286) with its axes of portability and locality, and the flat form
//! with one prompt of each.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

use crate::counterfact::id;
use crate::records::Fault;
use crate::request::{published_template, trimmed};
use crate::{EditRequest, Neighbor, Probe, TargetPrefix};

pub const HINT: &str = "a KnowEdit record has subject, prompt and target_new; optional are ground_truth, rephrase, portability, \
                        locality, locality_prompt and locality_ground_truth";

#[derive(Deserialize)]
pub struct Record {
    case_id: Option<Value>,
    subject: String,
    #[serde(alias = "text", alias = "src")]
    prompt: String,
    #[serde(alias = "labels", alias = "alt")]
    target_new: Answers,
    #[serde(default, alias = "answers")]
    ground_truth: Answers,
    #[serde(default, alias = "rephrase_prompt")]
    rephrase: Answers,
    #[serde(default)]
    portability: Option<Axes>,
    #[serde(default)]
    locality: Option<Axes>,
    locality_prompt: Option<String>,
    #[serde(default)]
    locality_ground_truth: Answers,
    strength: Option<f64>,
    target_prefix: Option<String>,
}

type Axes = BTreeMap<String, Option<Vec<Question>>>;

#[derive(Deserialize)]
struct Question {
    prompt: String,
    #[serde(default)]
    ground_truth: Answers,
}

/// A text, a list of texts, or a list of lists of texts (each an answer in several spellings); null is none.
#[derive(Default)]
struct Answers(Vec<String>);

impl<'de> Deserialize<'de> for Answers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut texts = Vec::new();
        collect(&Value::deserialize(deserializer)?, &mut texts)
            .map_err(|found| D::Error::custom(format!("expected a text or lists of texts, found {found}")))?;
        Ok(Self(texts))
    }
}

fn collect(value: &Value, into: &mut Vec<String>) -> Result<(), &'static str> {
    match value {
        Value::Null => {}
        Value::String(text) => into.push(text.clone()),
        Value::Number(number) => into.push(number.to_string()),
        Value::Array(values) => return values.iter().try_for_each(|value| collect(value, into)),
        Value::Bool(_) => return Err("true or false"),
        Value::Object(_) => return Err("an object"),
    }
    Ok(())
}

impl Answers {
    fn first(self) -> Option<String> {
        self.0.into_iter().next()
    }
}

/// Questions by axis; those without a prompt or an answer ask nothing, and there are such in the published files.
fn probes(axes: Option<Axes>) -> BTreeMap<String, Vec<Probe>> {
    let axis = |questions: Option<Vec<Question>>| {
        let mut probes: Vec<Probe> = Vec::new();
        for question in questions.into_iter().flatten() {
            let answers: Vec<String> = question.ground_truth.0.into_iter().filter(|a| !a.trim().is_empty()).collect();
            if !question.prompt.trim().is_empty() && !answers.is_empty() {
                probes.push(Probe { prompt: question.prompt, answers });
            }
        }
        probes
    };
    let probes = axes.into_iter().flatten().map(|(name, questions)| (name, axis(questions)));
    probes.filter(|(_, probes)| !probes.is_empty()).collect()
}

pub fn request(index: usize, record: Record) -> Result<EditRequest, Fault> {
    let target_true = record.ground_truth.first();
    let target_new = record
        .target_new
        .first()
        .ok_or_else(|| (Some("target_new".to_owned()), "the new target is empty".to_owned()))?;
    let neighbor =
        record.locality_prompt.map(|prompt| Neighbor { prompt, target: record.locality_ground_truth.first() });
    let subject = trimmed(record.subject);
    Ok(EditRequest {
        id: id(record.case_id, index),
        prompt: published_template(record.prompt, &subject),
        subject,
        target_new,
        target_true,
        paraphrases: record.rephrase.0,
        neighbors: neighbor.into_iter().collect(),
        portability: probes(record.portability),
        locality: probes(record.locality),
        strength: record.strength,
        target_prefix: record.target_prefix.map_or(TargetPrefix::Blank, TargetPrefix::Given),
        ..EditRequest::default()
    })
}
