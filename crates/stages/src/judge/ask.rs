//! `ask`: what a model makes of prompts.

use palinode_edit::with_edits;
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Shown};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind, artifact};
use palinode_eval::next_tokens;
use palinode_model::Decoder;
use palinode_model::generate::{Sampling, generate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::chat::{Chat, in_chat};
use crate::artifacts::measurements::{Answer, AnswersFacts, AnswersKind, NextToken, Said};
use crate::artifacts::model::{Loaded, open};
use crate::artifacts::update::{AnyModel, edits};
use crate::errors::StageFailure;
use crate::units::Units;

/// Parameters of `ask`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskParams {
    /// The prompts.
    #[schemars(length(min = 1))]
    prompts: Vec<String>,
    /// Number of tokens that the model generates.
    #[serde(default = "twenty")]
    tokens: usize,
    /// Number of the most probable next tokens to report.
    #[serde(default = "five")]
    top: usize,
    /// Draw each token from this many most probable ones. The default is the most probable token.
    #[serde(default)]
    top_k: Option<Count>,
    /// Seed of the random draws.
    #[serde(default = "one")]
    seed: u64,
    /// Puts every prompt as a user's message by the model's chat template: `chat: {}`, or `chat: { system: … }`. The default is prompts
    /// that the model continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat: Option<Chat>,
}

fn twenty() -> usize {
    20
}

fn five() -> usize {
    5
}

fn one() -> u64 {
    1
}

/// The model.
const MODEL: PortOf<AnyModel> = PortOf::required("model", "The model, edited or not.");

/// See [`StageKind::DOC`].
pub struct Ask;

impl StageKind for Ask {
    type Params = AskParams;
    const NAME: &'static str = "ask";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Continues prompts with a model; for an edited model, before and after the edit.";
    const DOC: &'static str = "\
For each prompt: the text with which the model continues it, and its most probable next tokens with their probabilities. For \
an edited model, the result has the answers before and after the edit.";
    type Output = AnswersKind;

    fn carries() -> &'static [u32] {
        // Last digits differ.
        &[2]
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn describe(params: &AskParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.prompts.is_empty() {
            errors.push(FieldError::new("prompts", "`prompts` is empty").expected("one prompt or more"));
        }
        for (i, _) in params.prompts.iter().enumerate().filter(|(_, prompt)| prompt.trim().is_empty()) {
            errors.push(FieldError::new(format!("prompts[{i}]"), "the prompt is empty"));
        }
        if cx.input(MODEL).batches.is_some_and(|count| count > 1) {
            errors.push(
                FieldError::new("", "the model was edited in several batches, each an edit of its own")
                    .hint("ask a model with one batch: leave `batch_size` out, or export one batch and load it"),
            );
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &AskParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(MODEL)?;
        let model = in_chat(open(cx, &given)?, params.chat.as_ref())?;
        let edits = edits(cx, &given)?;
        let edited = edits.first().map(|batch| with_edits(&model.decoder, batch.updates.iter().map(|(l, u)| (*l, u))));
        let edited = edited.transpose().map_err(StageFailure::stage)?;
        let bar = cx.progress("prompts", Some(params.prompts.len() as u64));
        let mut of = json!(params);
        of["prompts"] = Value::Null;
        of["model"] = json!(given.digest().to_string());
        let units = Units { cx, bar: &bar, size: 1, digits: Value::Null };
        let answers = units.run(&of, &params.prompts, |prompts| {
            let answered = prompts.iter().map(|prompt| {
                let before = answer(params, &model, &model.decoder, prompt)?;
                let after = edited.as_ref().map(|decoder| answer(params, &model, decoder, prompt)).transpose()?;
                bar.inc(1);
                Ok(Kept::from(Answer { prompt: prompt.clone(), before, after }))
            });
            answered.collect()
        })?;
        let answers: Vec<Answer> = answers.into_iter().map(Answer::from).collect();
        let sample = |Answer { prompt, before, after }: &Answer| match after {
            Some(after) => {
                shown::sample([("prompt", prompt.as_str()), ("before", &before.text), ("after", &after.text)])
            }
            None => shown::sample([("prompt", prompt.as_str()), ("says", &before.text)]),
        };
        let samples = answers.iter().map(sample).collect();
        let shown = Shown { samples: Some(samples), ..Shown::default() };
        artifact::<AnswersKind>(&AnswersFacts { answers, shown })
    }
}

/// An answer as it is kept, with the bits of its probabilities, of which JSON does not keep the last.
#[derive(Serialize, Deserialize)]
struct Kept {
    answer: Answer,
    bits: Vec<u64>,
}

impl From<Answer> for Kept {
    fn from(mut answer: Answer) -> Self {
        let bits = probabilities(&mut answer).map(|p| p.to_bits()).collect();
        Self { answer, bits }
    }
}

impl From<Kept> for Answer {
    fn from(mut kept: Kept) -> Self {
        probabilities(&mut kept.answer).zip(kept.bits).for_each(|(p, bits)| *p = f64::from_bits(bits));
        kept.answer
    }
}

fn probabilities(answer: &mut Answer) -> impl Iterator<Item = &mut f64> {
    std::iter::once(&mut answer.before).chain(&mut answer.after).flat_map(|said| &mut said.next).map(|next| &mut next.p)
}

fn answer(params: &AskParams, model: &Loaded, decoder: &Decoder, prompt: &str) -> Result<Said, Error> {
    let text = &model.text;
    let ids = text.encode(prompt).map_err(StageFailure::stage)?;
    let sampling = match params.top_k {
        Some(k) => Sampling::TopK { k: k.get(), seed: params.seed },
        None => Sampling::Greedy,
    };
    let said = generate(decoder, &ids, ids.len() + params.tokens, sampling, 0, text.end());
    let said = said.map_err(StageFailure::stage)?;
    let words = text.decode(&said[ids.len()..]).map_err(StageFailure::stage)?;
    let next = next_tokens(decoder, &ids, params.top).map_err(StageFailure::stage)?;
    let next = next.into_iter().map(|(id, p)| {
        let token = text.decode(&[id]).map_err(StageFailure::stage)?;
        Ok(NextToken { token, p })
    });
    Ok(Said { text: words, next: next.collect::<Result<_, Error>>()? })
}
