//! `templates`: contexts in which an edited fact must hold.

use palinode_data::{ContextTemplates, SEED_WORDS};
use palinode_engine::bounds::Count;
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind, artifact};
use palinode_model::generate::{Sampling, generate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::{ModelKind, open};
use crate::artifacts::templates::{TemplatesFacts, TemplatesKind};
use crate::errors::StageFailure;

/// Openings at most: every key is an average over all of them.
const MOST_OPENINGS: usize = 10_000;

/// Openings that the model writes itself.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Openings {
    /// Number of openings.
    count: Count,
    /// Length of each in tokens.
    length: Count<2>,
}

/// Parameters of `templates`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplatesParams {
    /// The templates, in groups. Each template has one `{}` for the prompt, and the first one is `{}`. A key is averaged
    /// within each group, then over the groups.
    #[serde(default)]
    groups: Option<Vec<Vec<String>>>,
    /// Openings that the model generates, instead of `groups`. MEMIT and EMMET use `[{count: 5, length: 10}]`, ROME
    /// `[{count: 10, length: 5}, {count: 10, length: 10}]`.
    #[serde(default)]
    generate: Option<Vec<Openings>>,
    /// Put generated openings in one group with the bare prompt, as ROME does. Otherwise the bare prompt has the weight one
    /// half.
    #[serde(default)]
    flat: bool,
    /// Each token of an opening is drawn from this many most probable ones.
    #[serde(default = "five")]
    top_k: Count,
    /// What openings begin with.
    #[serde(default, skip_serializing_if = "Start::is_words")]
    start: Start,
    /// Seed of the random draws.
    #[serde(default)]
    seed: u64,
}

impl TemplatesParams {
    /// The templates that are known before the stage runs, the bare prompt first.
    pub fn known(&self) -> Vec<&str> {
        match &self.groups {
            Some(groups) => groups.iter().flatten().map(String::as_str).collect(),
            None => vec!["{}"],
        }
    }

    /// Tokens of the longest opening that the model is to generate; 0 where there is none.
    pub fn longest_opening(&self) -> usize {
        self.generate.iter().flatten().map(|openings| openings.length.get()).max().unwrap_or(0)
    }
}

/// What generated openings begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Start {
    /// "The", "Therefore", "Because", "I" and "You" in turn, as in the code of MEMIT and of papers since.
    #[default]
    Words,
    /// The end-of-text token, as in the code that was published with ROME.
    EndOfText,
}

impl Start {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_words(&self) -> bool {
        *self == Self::Words
    }
}

fn five() -> Count {
    const { Count::new(5) }
}

/// The model.
const MODEL: PortOf<ModelKind> = PortOf::optional("model", "The model that generates the openings of `generate`.");

/// See [`StageKind::DOC`].
pub struct Templates;

impl StageKind for Templates {
    type Params = TemplatesParams;
    const NAME: &'static str = "templates";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Provides context templates, given or generated with a seed.";
    const DOC: &'static str = "\
Context templates are openings such as `The history of the. {}` before an edit's prompt. They keep the key and the target \
from depending on one context. They are listed under `groups`, or the model at the port `model` generates them (`generate`). \
The same seed gives the same templates. The templates are a result of their own, which can be inspected and shared.

Without this stage, `targets` and `solve` use only the bare prompt.";
    type Output = TemplatesKind;

    fn carries() -> &'static [u32] {
        // Last digits differ.
        &[1]
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn describe(params: &TemplatesParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let wrong = |field: &str, message: String| Err(vec![FieldError::new(field, message)]);
        match (&params.groups, &params.generate) {
            (Some(_), Some(_)) => wrong("generate", "`groups` and `generate` exclude each other".into()),
            (None, None) => wrong("", "neither `groups` nor `generate` says what the templates are".into()),
            (Some(groups), None) => match (ContextTemplates { groups: groups.clone() }).check() {
                Ok(()) => Ok(()),
                Err(message) => wrong("groups", message),
            },
            (None, Some(generate)) => {
                let mut errors = Vec::new();
                let count = generate.iter().fold(0usize, |sum, openings| sum.saturating_add(openings.count.get()));
                if count > MOST_OPENINGS {
                    let expected = format!("{MOST_OPENINGS} in all, at most");
                    errors.push(FieldError::new("generate", format!("{count} openings")).expected(expected));
                }
                for (i, openings) in generate.iter().enumerate() {
                    if let Some(facts) = cx.input(MODEL).model
                        && openings.length.get() >= facts.context
                    {
                        let message =
                            format!("openings of {} tokens leave no room for a prompt", openings.length.get());
                        let expected = format!("fewer than the model's context of {}", facts.context);
                        errors.push(FieldError::new(format!("generate[{i}].length"), message).expected(expected));
                    }
                }
                if errors.is_empty() { Ok(()) } else { Err(errors) }
            }
        }
    }

    fn run(params: &TemplatesParams, cx: &StageContext) -> Result<Artifact, Error> {
        let templates = match &params.groups {
            Some(groups) => ContextTemplates { groups: groups.clone() },
            None => written(params, cx)?,
        };
        artifact::<TemplatesKind>(&TemplatesFacts { templates })
    }
}

fn written(params: &TemplatesParams, cx: &StageContext) -> Result<ContextTemplates, Error> {
    let Some(given) = cx.input_opt(MODEL)? else {
        return Err(Error::input("`generate` needs a model to write the openings")
            .hint("connect one: inputs: { model: … }, or write the templates out under `groups`"));
    };
    let model = open(cx, &given)?;
    let wanted = params.generate.iter().flatten().flat_map(|o| std::iter::repeat_n(o.length.get(), o.count.get()));
    let lengths: Vec<usize> = wanted.collect();
    let bar = cx.progress("openings", Some(lengths.len() as u64));
    let mut openings = Vec::with_capacity(lengths.len());
    for (i, length) in lengths.into_iter().enumerate() {
        cx.check_interrupt()?;
        let begin = match params.start {
            Start::Words => model.text.encode(SEED_WORDS[i % SEED_WORDS.len()]).map_err(StageFailure::stage)?,
            Start::EndOfText => vec![model.text.end().ok_or_else(|| {
                Error::input("the tokenizer has no end-of-text token for openings to begin with")
                    .hint("leave `start` out: openings then begin with words")
            })?],
        };
        let sampling = Sampling::TopK { k: params.top_k.get(), seed: params.seed };
        let mut ids =
            generate(&model.decoder, &begin, length, sampling, i as u64, None).map_err(StageFailure::stage)?;
        if params.start == Start::EndOfText {
            // The published code takes these tokens out of the text.
            ids.retain(|id| Some(*id) != model.text.end());
        }
        openings.push(model.text.decode(&ids).map_err(StageFailure::stage)?);
        bar.inc(1);
    }
    let mut templates = ContextTemplates::from_openings(&openings);
    if params.flat {
        templates.groups = vec![templates.groups.concat()];
    }
    Ok(templates)
}
