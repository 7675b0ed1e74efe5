//! Further forms of `probes`: answers of a question's own, and answers that the model writes.

use palinode_data::{read_choices, read_examples};
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Better, Format, Sample, Shown};
use palinode_engine::{Artifact, Error, FieldError, PortOf, StageContext, artifact};
use palinode_eval::{Choices, Chosen, Extraction, Open, Stop, StopAt, choose_both, write_until};
use palinode_model::generate::Sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::chat::Chat;
use crate::artifacts::measurements::{ANSWERS, ProbesFacts, ProbesKind};
use crate::artifacts::update::AnyModel;
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::measured::{Measured, Metric, versions};
use crate::judge::versions::{Version, Versions};
use crate::units::Units;

/// Questions in a unit.
const UNIT: usize = 32;
/// Questions in a unit where answers are written, which takes longer.
const WRITTEN_UNIT: usize = 8;

/// The model.
pub const MODEL: PortOf<AnyModel> = PortOf::required("model", "The model, edited or not.");

/// What every form of task has.
pub struct Asked<'a> {
    /// The prompt of a question.
    pub prompt: &'a str,
    /// The field with the right answer.
    pub label: &'a str,
    /// Examples before every question.
    pub shots: usize,
    /// Questions at most.
    pub limit: Option<Count>,
    /// Seed of what is drawn.
    pub seed: u64,
    /// Rounds between those that are measured.
    pub every: Option<Count>,
    /// Bootstrap samples.
    pub resamples: usize,
    /// Tokens in a batch.
    pub batch_tokens: BatchTokens,
    /// The chat that questions are messages of.
    pub chat: Option<&'a Chat>,
}

/// What of a question's own answers is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scored {
    /// The answers as they stand.
    #[default]
    Texts,
    /// Their letters: A, B, C and so on.
    Letters,
}

impl Scored {
    /// Whether it is the usual one.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How answers are written, and what of a text is the answer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Number of tokens that the model generates at most.
    #[serde(default = "tokens")]
    tokens: Count,
    /// The text ends before the first of these.
    #[serde(default = "stop")]
    stop: Vec<String>,
    /// The text also ends at the end of a `sentence`, or of a `line`, as answers of `evaluate` do. The model's end token always ends it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stop_at: Vec<StopAt>,
    /// A regular expression for the answer in a text: its first group, or all that fits. The default is the whole text. That of GSM8K is
    /// `#### (\\-?[0-9\\.\\,]+)`.
    #[serde(default)]
    pattern: Option<String>,
    /// Take the last place that fits, not the first.
    #[serde(default)]
    last: bool,
}

fn tokens() -> Count {
    const { Count::new(256) }
}

fn stop() -> Vec<String> {
    vec!["\n\n".to_owned()]
}

impl Written {
    /// What is wrong with the parameters.
    pub fn check(&self) -> Option<FieldError> {
        if let Some(at) = self.stop.iter().position(String::is_empty) {
            return Some(FieldError::new(format!("generate.stop[{at}]"), "the text is empty"));
        }
        let error = self.extraction().err()?;
        Some(FieldError::new("generate.pattern", error).expected("a regular expression"))
    }

    fn extraction(&self) -> Result<Extraction, String> {
        Extraction::new(self.pattern.as_deref(), self.last)
    }

    fn stop(&self) -> Stop {
        Stop { at: self.stop_at.clone(), before: self.stop.clone() }
    }
}

fn wrong(message: String) -> Error {
    Error::input(message).hint("see `shots` and `limit`")
}

/// A task with answers of each question's own.
pub fn choices(params: &Asked<'_>, field: &str, scored: Scored, cx: &StageContext) -> Result<Artifact, Error> {
    let all = read_choices(&cx.file("task")?.1, params.prompt, field, params.label).map_err(StageFailure::stage)?;
    let limit = params.limit.map(Count::get);
    let task = Choices::new(all, scored == Scored::Letters, params.shots, limit, params.seed).map_err(wrong)?;
    let given = cx.input(MODEL)?;
    let all = Versions::open(cx, &given, params.chat)?;
    all.tell_rounds(cx, params.every);
    let bar = cx.progress("questions", Some(task.questions.len() as u64 * versions(&all, params.every)));
    let text = &all.model.text;
    let tokens = params.batch_tokens.or(BatchTokens::PROMPTS, &all.model.decoder);
    let units = Units { cx, bar: &bar, size: UNIT, digits: json!({ "batch_tokens": tokens }) };
    let measured = Measured::of(&all, params.every, |version: &Version| {
        let of = json!({ "form": "choices", "version": version.name });
        let chosen = units.run(&of, &task.questions, |block| {
            let chosen = choose_both(&version.decoder, text, block, tokens).map_err(StageFailure::stage)?;
            bar.inc(block.len() as u64);
            Ok(chosen)
        })?;
        Ok(chosen.into_iter().zip(task.right.iter().copied()).collect::<Vec<(Chosen, usize)>>())
    })?;
    let share = |right: fn(&(Chosen, usize)) -> bool| {
        move |pairs: &[&(Chosen, usize)]| share(pairs.iter().map(|pair| right(pair)))
    };
    let (accuracy, by_length) =
        (share(|(chosen, right)| chosen.whole == *right), share(|(c, right)| c.by_length == *right));
    let metrics = [
        metric(
            "accuracy",
            "share of answers that are right, by the likelihood of the whole",
            &accuracy as &dyn Fn(&[&_]) -> _,
        ),
        metric("by_length", "the same by likelihood over the number of characters (acc_norm)", &by_length),
    ];
    let answer = |i: usize, (chosen, _): (Chosen, usize)| task.answers[i][chosen.whole].trim().to_owned();
    let right = |i: usize| task.answers[i][task.right[i]].trim().to_owned();
    let shown = Shown {
        samples: Some(samples(&task.asked, right, &measured, answer)),
        ..measured.shown(&metrics, params.resamples)
    };
    let lines = lines(
        &task.asked,
        &measured,
        |i, (chosen, right)| json!({ "chosen": chosen.whole, "by_length": chosen.by_length, "right": right, "answer": task.answers[i][chosen.whole] }),
    )?;
    let facts = ProbesFacts { questions: task.questions.len(), shown };
    Ok(artifact::<ProbesKind>(&facts)?.with_file(ANSWERS, cx.put_bytes(&lines)?))
}

/// What a model wrote, and the answer in it.
type Answered = (String, Option<String>, bool);

/// A task whose answers the model writes.
pub fn written(params: &Asked<'_>, how: &Written, cx: &StageContext) -> Result<Artifact, Error> {
    let all = read_examples(&cx.file("task")?.1, params.prompt, params.label).map_err(StageFailure::stage)?;
    let extraction = how.extraction().map_err(Error::internal)?;
    extraction
        .check(&all)
        .map_err(|message| Error::input(message).hint("change `generate.pattern`, or the label of these records"))?;
    let limit = params.limit.map(Count::get);
    let task = Open::new(all, &extraction, params.shots, limit, params.seed).map_err(wrong)?;
    let given = cx.input(MODEL)?;
    let all = Versions::open(cx, &given, params.chat)?;
    all.tell_rounds(cx, params.every);
    let bar = cx.progress("questions", Some(task.prompts.len() as u64 * versions(&all, params.every)));
    let text = &all.model.text;
    let stop = how.stop();
    let units = Units { cx, bar: &bar, size: WRITTEN_UNIT, digits: Value::Null };
    let measured = Measured::of(&all, params.every, |version: &Version| {
        let of = json!({ "form": "written", "version": version.name, "tokens": how.tokens, "stop": how.stop, "stop_at": how.stop_at });
        let texts: Vec<String> = units.run(&of, &task.prompts, |block| {
            let texts = write_until(&version.decoder, text, block, how.tokens.get(), Sampling::Greedy, &stop);
            let texts = texts.map_err(StageFailure::stage)?;
            bar.inc(block.len() as u64);
            Ok(texts)
        })?;
        let answered = texts.into_iter().zip(&task.right).map(|(written, right)| {
            let answer = extraction.found(&written);
            let is_right = answer.as_ref() == Some(right);
            (written, answer, is_right)
        });
        Ok(answered.collect::<Vec<Answered>>())
    })?;
    let exact = |all: &[&Answered]| share(all.iter().map(|(_, _, right)| *right));
    let answered = |all: &[&Answered]| share(all.iter().map(|(_, answer, _)| answer.is_some()));
    let metrics = [
        metric("exact_match", "share of written answers that equal the right one", &exact as &dyn Fn(&[&_]) -> _),
        metric("answered", "share of texts in which there is an answer", &answered),
    ];
    let right = |i: usize| task.right[i].clone();
    let shown = Shown {
        samples: Some(samples(&task.asked, right, &measured, |_, (written, _, _)| written)),
        ..measured.shown(&metrics, params.resamples)
    };
    let lines = lines(
        &task.asked,
        &measured,
        |i, (written, answer, is_right)| json!({ "text": written, "answer": answer, "expected": task.right[i], "right": is_right }),
    )?;
    let facts = ProbesFacts { questions: task.prompts.len(), shown };
    Ok(artifact::<ProbesKind>(&facts)?.with_file(ANSWERS, cx.put_bytes(&lines)?))
}

fn metric<'a, T>(name: &'a str, doc: &'a str, value: &'a dyn Fn(&[&T]) -> Option<f64>) -> Metric<'a, T> {
    Metric { name, doc, format: Format::Percent, better: Better::Max, value }
}

fn share(right: impl Iterator<Item = bool>) -> Option<f64> {
    let (mut n, mut hits) = (0, 0);
    for right in right {
        n += 1;
        hits += usize::from(right);
    }
    (n > 0).then(|| hits as f64 / f64::from(n))
}

/// A few questions with their answers.
fn samples<T: Clone>(
    asked: &[String],
    right: impl Fn(usize) -> String,
    measured: &Measured<T>,
    answer: impl Fn(usize, T) -> String,
) -> Vec<Sample> {
    let sample = |(i, prompt): (usize, &String)| {
        let mut sample =
            vec![("prompt", prompt.clone()), ("right", right(i)), ("before", answer(i, measured.before[i].clone()))];
        if let [only] = measured.after.as_slice() {
            sample.push(("after", answer(i, only[i].clone())));
        }
        shown::sample(sample)
    };
    asked.iter().enumerate().take(3).map(sample).collect()
}

/// Every question with its answers, one JSON object a line.
fn lines<T: Clone>(
    asked: &[String],
    measured: &Measured<T>,
    answer: impl Fn(usize, T) -> Value,
) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for (i, prompt) in asked.iter().enumerate() {
        let after: Vec<Value> = measured.after.iter().map(|batch| answer(i, batch[i].clone())).collect();
        let line = json!({ "prompt": prompt, "before": answer(i, measured.before[i].clone()), "after": after });
        serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
