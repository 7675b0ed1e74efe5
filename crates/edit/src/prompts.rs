//! Token rows of a request.
//!
//! Conventions of the reference implementations: a template's `{}` is replaced by the prompt, the prompt's by the
//! subject; the fact token is, unless something else is chosen, the last token of everything up to and including the subject; a rewrite
//! prompt ends with the target's tokens but the last, decoded and tokenized again as part of the text. Where a token is a part of a
//! letter, that text is none, and the target's tokens are put behind those of the prompt as they are.

use palinode_data::{ContextTemplates, EditRequest};
use palinode_model::{DecoderConfig, ModelError, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::EditError;

/// The token of a prompt whose key an edit is written at, and whose value its target is (`fact_token` in the published hyperparameter
/// files).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactToken {
    /// The subject's last token.
    #[default]
    SubjectLast,
    /// The subject's first token.
    SubjectFirst,
    /// The first token after the subject, or the subject's last one where nothing follows it.
    SubjectFirstAfterLast,
    /// The prompt's last token.
    Last,
}

impl FactToken {
    /// Whether it is the subject's last token, the one that all papers use.
    pub fn is_usual(&self) -> bool {
        *self == Self::SubjectLast
    }

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SubjectLast => "subject_last",
            Self::SubjectFirst => "subject_first",
            Self::SubjectFirstAfterLast => "subject_first_after_last",
            Self::Last => "last",
        }
    }
}

/// A row of tokens and the place of its fact token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Tokens.
    pub ids: Vec<u32>,
    /// Index of the fact token.
    pub fact: usize,
}

/// Where a model should not drift, unless a request says it.
const ESSENCE: &str = "{} is a";

/// The contexts that a request is written in, with their weights in an average: its own, or those of all.
pub fn contexts<'a>(request: &'a EditRequest, templates: &'a ContextTemplates) -> Vec<(&'a str, f64)> {
    if request.contexts.is_empty() {
        return templates.weighted();
    }
    let weight = 1.0 / request.contexts.len() as f64;
    request.contexts.iter().map(|context| (context.as_str(), weight)).collect()
}

/// The rows whose loss shapes a target.
#[derive(Clone, Debug)]
pub struct RewritePrompts {
    /// One row a template: prompt and subject, followed by the target's tokens but the last.
    pub rows: Vec<Prompt>,
    /// `"{subject} is a"`, or the request's own prompts, where the model should not drift: one or more.
    pub essences: Vec<Prompt>,
    /// Vectors that earlier searches found, each with the row and the position where it is in place.
    pub earlier: Vec<(usize, usize, Vec<f32>)>,
    /// The target's tokens `t₁ … t_T`; `t_j` is predicted at position `len − T + j − 1` of a row.
    pub target: Vec<u32>,
}

/// The request's prompt in one template, without target.
///
/// # Errors
/// [`EditError::Request`] where the fact token cannot be told, [`ModelError::TooLong`] past the context.
pub fn prompt(text: &Text, config: &DecoderConfig, request: &EditRequest, template: &str) -> Result<Prompt, EditError> {
    prompt_at(text, config, request, template, FactToken::default())
}

/// As [`prompt`], with the key at another token.
///
/// # Errors
/// As [`prompt`].
pub fn prompt_at(
    text: &Text,
    config: &DecoderConfig,
    request: &EditRequest,
    template: &str,
    at: FactToken,
) -> Result<Prompt, EditError> {
    row(text, config, request, &template.replacen("{}", &request.prompt, 1), None, at)
}

/// The rows that a target is optimised on, one a template, and those that hold the subject's essence.
///
/// # Errors
/// As [`prompt`]; also for a target without tokens.
pub fn rewrite_prompts(
    text: &Text,
    config: &DecoderConfig,
    request: &EditRequest,
    templates: &[&str],
) -> Result<RewritePrompts, EditError> {
    rewrite_prompts_at(text, config, request, templates, FactToken::default())
}

/// As [`rewrite_prompts`], with the target at another token.
///
/// # Errors
/// As [`rewrite_prompts`].
pub fn rewrite_prompts_at(
    text: &Text,
    config: &DecoderConfig,
    request: &EditRequest,
    templates: &[&str],
    at: FactToken,
) -> Result<RewritePrompts, EditError> {
    let target = text.encode_continuation(&request.continuation(&request.filled_prompt(), &request.target_new))?;
    let Some((_, but_last)) = target.split_last() else {
        return Err(bad(request, format!("the new target {:?} has no tokens", request.target_new)));
    };
    let decoded = text.decode_target(but_last)?;
    let whole = decoded.starts_with(' ') && !decoded.contains(char::REPLACEMENT_CHARACTER);
    let ending = Some(if whole { Ending::Text(decoded) } else { Ending::Tokens(but_last) });
    let rows = templates
        .iter()
        .map(|template| row(text, config, request, &template.replacen("{}", &request.prompt, 1), ending.as_ref(), at))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(short) = rows.iter().find(|r| r.ids.len() < target.len()) {
        return Err(bad(request, format!("a prompt of {} tokens is shorter than its target", short.ids.len())));
    }
    let usual = [ESSENCE.to_owned()];
    let still = if request.kl_prompts.is_empty() { usual.as_slice() } else { &request.kl_prompts };
    let essences = still.iter().map(|prompt| row(text, config, request, prompt, None, at)).collect::<Result<_, _>>()?;
    Ok(RewritePrompts { rows, essences, earlier: Vec::new(), target })
}

/// What follows a prompt: a target without its last token.
enum Ending<'a> {
    /// As text, which is tokenized together with the prompt as in the reference implementations.
    Text(String),
    /// As tokens.
    Tokens(&'a [u32]),
}

/// Tokens of `pattern` with the subject filled in and `ending` appended.
fn row(
    text: &Text,
    config: &DecoderConfig,
    request: &EditRequest,
    pattern: &str,
    ending: Option<&Ending<'_>>,
    at: FactToken,
) -> Result<Prompt, EditError> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return Err(bad(request, format!("the subject is not in the prompt {pattern:?}")));
    };
    let bare = format!("{before}{}{after}", request.subject);
    let (ending, tokens): (&str, &[u32]) = match ending {
        None => ("", &[]),
        Some(Ending::Text(ending)) => (ending, &[]),
        Some(Ending::Tokens(tokens)) => ("", tokens),
    };
    let whole = format!("{bare}{ending}");
    let mut ids = text.encode_continued(&bare, ending)?;
    ids.extend_from_slice(tokens);
    if ids.len() > config.context {
        return Err(ModelError::TooLong {
            tokens: ids.len(),
            context: config.context,
            text: whole.chars().take(60).collect(),
        }
        .into());
    }
    let last = || text.last_token(&format!("{before}{}", request.subject));
    let fact = match at {
        FactToken::SubjectLast => last()?,
        FactToken::SubjectFirstAfterLast => last()? + usize::from(!after.is_empty()),
        FactToken::SubjectFirst => text.first_token(before)?,
        FactToken::Last => text.last_token(&bare)?,
    };
    if fact >= ids.len() {
        return Err(bad(request, format!("the tokenizer joins the subject with what follows it in {whole:?}")));
    }
    Ok(Prompt { ids, fact })
}

fn bad(request: &EditRequest, message: String) -> EditError {
    EditError::Request { id: request.id.clone(), message }
}
