//! `probes`: a task of classification, as a model does it with a few examples before its eyes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_data::{read_examples, template_fields};
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Better, Format, Sample, Shown};
use palinode_engine::{Artifact, DescribeCx, Error, ExternalFile, FieldError, Port, StageContext, StageKind, artifact};
use palinode_eval::{Agreement, Task, agreement, choose};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::chat::Chat;
use crate::artifacts::measurements::{ANSWERS, ProbesFacts, ProbesKind};
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::measured::{Measured, Metric, versions};
use crate::judge::probe_forms::{Asked, MODEL, Scored, Written, choices, written};
use crate::judge::versions::{Version, Versions};
use crate::units::Units;

/// Questions in a unit.
const UNIT: usize = 32;

/// Parameters of `probes`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbesParams {
    /// The task: JSON lines, one JSON array of objects, CSV, or a Parquet table. The key covers its contents and not its name.
    path: PathBuf,
    /// The prompt of a question, with the fields of a record as `{name}`: `"Review: {sentence}\nSentiment:"`.
    prompt: String,
    /// The field with the correct answer.
    #[serde(default = "label")]
    label: String,
    /// The text that stands for each answer, as in `{ "0": negative, "1": positive }`. The default is the answer itself.
    #[serde(default)]
    words: BTreeMap<String, String>,
    /// Number of examples of each answer before every question. They come from the same file, and are not used as
    /// questions.
    #[serde(default)]
    shots: usize,
    /// Maximum number of questions.
    #[serde(default)]
    limit: Option<Count>,
    /// Seed of the selection of examples and questions.
    #[serde(default = "one")]
    seed: u64,
    /// After a `sequence`: also evaluate after every this many rounds.
    #[serde(default)]
    every: Option<Count>,
    /// Number of bootstrap samples for the 95 % intervals; 0 for no intervals.
    #[serde(default = "thousand")]
    resamples: usize,
    #[serde(default)]
    batch_tokens: BatchTokens,
    /// The field with a question's own answers, for tasks such as MMLU, ARC or HellaSwag: `choices`, `choices.text`, `endings`. The
    /// correct answer, in `label`, is then a number from 0, a letter, or the answer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choices: Option<String>,
    /// What of these answers is scored.
    #[serde(default, skip_serializing_if = "Scored::is_default")]
    score: Scored,
    /// The model writes its answers, as for GSM8K. `label` has the correct ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generate: Option<Written>,
    /// Puts every question as a user's message by the model's chat template: `chat: {}`, or `chat: { system: … }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat: Option<Chat>,
}

impl ProbesParams {
    fn asked(&self) -> Asked<'_> {
        Asked {
            prompt: &self.prompt,
            label: &self.label,
            shots: self.shots,
            limit: self.limit,
            seed: self.seed,
            every: self.every,
            resamples: self.resamples,
            batch_tokens: self.batch_tokens,
            chat: self.chat.as_ref(),
        }
    }
}

fn label() -> String {
    "label".to_owned()
}

fn one() -> u64 {
    1
}

fn thousand() -> usize {
    1000
}

/// See [`StageKind::DOC`].
pub struct Probes;

impl StageKind for Probes {
    type Params = ProbesParams;
    const NAME: &'static str = "probes";
    const VERSION: u32 = 6;
    const SUMMARY: &'static str = "Evaluates a classification task with a few examples, before and after an edit.";
    const DOC: &'static str = "\
Tasks that an edit does not concern show what it does to the model's abilities: the tasks of GLUE, for example, or any other \
task where each question has one of a few answers. A question is the task's prompt with the fields of a record. Before it \
stand as many examples of each answer as `shots` says, each with its answer, separated by blank lines. The model's answer is \
the one to which it gives the highest likelihood as a whole.

  accuracy     share of answers that are right
  F1           mean over answers of the harmonic mean of precision and recall
  correlation  Matthews' coefficient: 0 for answers without relation to the correct ones

With `choices`, every question has answers of its own (MMLU, ARC, HellaSwag). `score: texts` compares the answers' likelihoods; \
`score: letters` those of A, B, C …, which `{options}` in the prompt puts before the answers. `by_length` is the accuracy of \
likelihoods over the number of characters (`acc_norm`). With `generate`, the model writes (GSM8K): the answer is what `pattern` \
finds in its text, and must equal what it finds in the field `label`, but for case, commas, dollar signs and a final stop. In both \
forms, `shots` is the number of all examples.

The unedited model is evaluated as well (`before_…`), once for all cells of a matrix. For a model that was edited in several \
batches, each a separate edit, the result is the mean over the batches' models. After a `sequence`, `every: k` evaluates \
every k-th round too. The result keeps every answer.";
    type Output = ProbesKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["path"]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &ProbesParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::PROMPTS, hardware))]
    }

    fn files(params: &ProbesParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![ExternalFile::new("task", &params.path, "path")])
    }

    fn describe(params: &ProbesParams, _: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        match template_fields(&params.prompt) {
            Ok(fields) if fields.is_empty() => {
                let error = FieldError::new("prompt", "the prompt is the same for all records");
                errors.push(error.expected("a field of the records as {name}"));
            }
            Ok(_) => {}
            Err(message) => {
                errors.push(FieldError::new("prompt", message).expected("a field of the records as {name}"));
            }
        }
        if params.choices.is_some() && params.generate.is_some() {
            errors.push(
                FieldError::new("generate", "answers are chosen or written, not both")
                    .expected("one of `choices` and `generate`"),
            );
        }
        if (params.choices.is_some() || params.generate.is_some()) && !params.words.is_empty() {
            let error = FieldError::new("words", "`words` are for tasks with the same few answers to every question");
            errors.push(error.expected("no `words` beside `choices` or `generate`"));
        }
        if params.choices.is_none() && !params.score.is_default() {
            errors.push(
                FieldError::new("score", "`score: letters` is of the answers that `choices` names")
                    .expected("`choices`"),
            );
        }
        if let Some(error) = params.generate.as_ref().and_then(Written::check) {
            errors.push(error);
        }
        if params.words.len() == 1 {
            errors.push(FieldError::new("words", "there is one answer").expected("two or more"));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &ProbesParams, cx: &StageContext) -> Result<Artifact, Error> {
        if let Some(field) = &params.choices {
            return choices(&params.asked(), field, params.score, cx);
        }
        if let Some(how) = &params.generate {
            return written(&params.asked(), how, cx);
        }
        let examples =
            read_examples(&cx.file("task")?.1, &params.prompt, &params.label).map_err(StageFailure::stage)?;
        let task = Task::new(examples, &params.words, params.shots, params.limit.map(Count::get), params.seed)
            .map_err(|message| Error::input(message).hint("see `label`, `words`, `shots` and `limit`"))?;
        let given = cx.input(MODEL)?;
        let all = Versions::open(cx, &given, params.chat.as_ref())?;
        all.tell_rounds(cx, params.every);
        let bar = cx.progress("questions", Some(task.questions.len() as u64 * versions(&all, params.every)));
        let text = &all.model.text;
        let tokens = params.batch_tokens.or(BatchTokens::PROMPTS, &all.model.decoder);
        let digits = json!({ "batch_tokens": tokens });
        let units = Units { cx, bar: &bar, size: UNIT, digits };
        let measured = Measured::of(&all, params.every, |version: &Version| {
            let chosen = units.run(&json!(version.name), &task.questions, |block| {
                let chosen = choose(&version.decoder, text, block, tokens).map_err(StageFailure::stage)?;
                bar.inc(block.len() as u64);
                Ok(chosen)
            })?;
            Ok(chosen.into_iter().zip(task.right.iter().copied()).collect::<Vec<(usize, usize)>>())
        })?;
        let labels = task.labels.len();
        let value = |of: fn(Agreement) -> f64| {
            move |pairs: &[&(usize, usize)]| agreement(pairs.iter().map(|pair| **pair), labels).map(of)
        };
        let (accuracy, f1, correlation) = (value(|a| a.accuracy), value(|a| a.f1), value(|a| a.correlation));
        let metric = |name, doc, format, value| Metric { name, doc, format, better: Better::Max, value };
        let metrics = [
            metric(
                "accuracy",
                "share of answers that are right",
                Format::Percent,
                &accuracy as &dyn Fn(&[&(usize, usize)]) -> _,
            ),
            metric("F1", "mean over answers of the harmonic mean of precision and recall", Format::Percent, &f1),
            metric("correlation", "Matthews' coefficient", Format::Number, &correlation),
        ];
        let shown = Shown { samples: Some(samples(&task, &measured)), ..measured.shown(&metrics, params.resamples) };
        let facts = ProbesFacts { questions: task.questions.len(), shown };
        let answers = cx.put_bytes(&answers(&task, &measured)?)?;
        Ok(artifact::<ProbesKind>(&facts)?.with_file(ANSWERS, answers))
    }
}

/// A few questions with their answers.
fn samples(task: &Task, measured: &Measured<(usize, usize)>) -> Vec<Sample> {
    let word = |at: usize| task.questions[0].choices[at].trim();
    let sample = |(i, prompt): (usize, &String)| {
        let mut sample =
            vec![("prompt", prompt.as_str()), ("right", word(task.right[i])), ("before", word(measured.before[i].0))];
        if let [only] = measured.after.as_slice() {
            sample.push(("after", word(only[i].0)));
        }
        shown::sample(sample)
    };
    task.asked.iter().enumerate().take(3).map(sample).collect()
}

/// Every question with its answers, one JSON object a line.
fn answers(task: &Task, measured: &Measured<(usize, usize)>) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for (i, prompt) in task.asked.iter().enumerate() {
        let label = |pair: &(usize, usize)| &task.labels[pair.0];
        let after: Vec<&String> = measured.after.iter().map(|batch| label(&batch[i])).collect();
        let line = json!({
            "prompt": prompt, "right": task.labels[task.right[i]], "before": label(&measured.before[i]), "after": after,
        });
        serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
