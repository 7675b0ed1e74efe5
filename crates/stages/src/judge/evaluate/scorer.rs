//! Requests scored unit by unit; finished units are kept, and shared with other stages that score the same model.

use palinode_data::EditRequest;
use palinode_engine::{Error, Progress, StageContext, UnitPlan};
use palinode_eval::{Answering, RecordScores, Tfidf, Words, Writing, answer, entropy, score_requests, write};
use palinode_model::{Decoder, Text};
use serde_json::{Value, json};

use crate::errors::StageFailure;
use crate::judge::versions::Version;
use crate::units::Units;

/// Records in a unit.
const UNIT: usize = 32;

/// How so many records are cut.
pub fn units(records: usize) -> UnitPlan {
    UnitPlan::new("records", records, UNIT)
}

/// Scores requests on models.
pub struct Scorer<'a> {
    /// Where units are kept.
    pub cx: &'a StageContext,
    /// The models' tokenizer.
    pub text: &'a Text,
    /// Bound on a batch's rectangle of tokens.
    pub tokens: usize,
    /// How longer texts are generated, if the parameters request them.
    pub writing: Option<Writing>,
    /// What counts as a word of these texts.
    pub words: Words,
    /// How the model answers prompts in its own words, if the parameters request it, with the text that it answers in and what tells it from
    /// other ways.
    pub answering: Option<(&'a Answering, &'a Text, Value)>,
    /// What compares them with references, where there are any.
    pub tfidf: Option<&'a Tfidf>,
    /// Counts records.
    pub bar: &'a Progress,
}

impl Scorer<'_> {
    /// The scores of requests on a version of a model.
    pub fn score(&self, version: &Version, requests: &[EditRequest]) -> Result<Vec<RecordScores>, Error> {
        let writing = self.writing.map(|w| [w.length as u64, w.top_k as u64, w.seed]);
        let digits = json!({ "batch_tokens": self.tokens });
        let units = Units { cx: self.cx, bar: self.bar, size: UNIT, digits };
        let of = json!([version.name, writing]);
        let mut scores = units.run(&of, requests, |block| self.block(&version.decoder, block))?;
        for (record, request) in scores.iter_mut().zip(requests) {
            record.entropy = mean(record.generated.iter().map(|text| entropy(text, self.words)));
            let compare = self.tfidf.filter(|_| !request.references.is_empty() && !record.generated.is_empty());
            record.reference =
                compare.map(|tfidf| tfidf.similarity(&record.generated.join(" "), &request.references.join(" ")));
        }
        let Some((how, text, name)) = &self.answering else { return Ok(scores) };
        // Units of their own, so that scores are the same units with and without answers.
        let of = json!(["answers", version.name, name]);
        let units = Units { cx: self.cx, bar: self.bar, size: UNIT, digits: Value::Null };
        let answers = units.run(&of, requests, |block| {
            let answers = answer(&version.decoder, text, block, how).map_err(StageFailure::stage)?;
            self.bar.inc(block.len() as u64);
            Ok(answers)
        })?;
        for (record, answers) in scores.iter_mut().zip(answers) {
            record.answers = answers;
        }
        Ok(scores)
    }

    fn block(&self, decoder: &Decoder, block: &[EditRequest]) -> Result<Vec<RecordScores>, Error> {
        let mut found = score_requests(decoder, self.text, block, self.tokens).map_err(StageFailure::stage)?;
        check(&found)?;
        let Some(writing) = &self.writing else {
            self.bar.inc(block.len() as u64);
            return Ok(found);
        };
        for (record, request) in found.iter_mut().zip(block) {
            self.cx.check_interrupt()?;
            let own = [request.filled_prompt()];
            let prompts = if request.generation.is_empty() { &own } else { request.generation.as_slice() };
            record.generated = write(decoder, self.text, prompts, writing).map_err(StageFailure::stage)?;
            self.bar.inc(1);
        }
        Ok(found)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// No likelihood may be anything but a number.
fn check(scores: &[RecordScores]) -> Result<(), Error> {
    for record in scores {
        if let Some((prompt, _)) = record.scores().find(|(_, score)| !score.nll.is_finite()) {
            let message = format!("request {}: the model's answer to {prompt:?} is not a number", record.id);
            return Err(Error::numerical(message).hint("the edit broke the model: raise `lambda`, or edit fewer facts"));
        }
    }
    Ok(())
}
