//! Token rows of a request.
//!
//! Conventions of the reference implementations: a template's `{}` is replaced by the prompt, the prompt's by the
//! subject; the fact token is the last token of everything up to and including the subject; a rewrite prompt ends with
//! the target's tokens but the last, decoded and tokenized again as part of the text.

use palinode_data::EditRequest;
use palinode_model::{DecoderConfig, ModelError, Text};

use crate::EditError;

/// A row of tokens and the place of its fact token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Tokens.
    pub ids: Vec<u32>,
    /// Index of the subject's last token.
    pub fact: usize,
}

/// The rows whose loss shapes a target.
#[derive(Clone, Debug)]
pub struct RewritePrompts {
    /// One row a template: prompt and subject, followed by the target's tokens but the last.
    pub rows: Vec<Prompt>,
    /// `"{subject} is a"`, where the model should not drift.
    pub essence: Prompt,
    /// The target's tokens `t₁ … t_T`; `t_j` is predicted at position `len − T + j − 1` of a row.
    pub target: Vec<u32>,
}

/// The request's prompt in one template, without target.
///
/// # Errors
/// [`EditError::Request`] where the fact token cannot be told, [`ModelError::TooLong`] past the context.
pub fn prompt(text: &Text, config: &DecoderConfig, request: &EditRequest, template: &str) -> Result<Prompt, EditError> {
    row(text, config, request, &template.replacen("{}", &request.prompt, 1), "")
}

/// The rows that a target is optimised on, one a template, and the row that holds the subject's essence.
///
/// # Errors
/// As [`prompt`]; also for a target without tokens.
pub fn rewrite_prompts(
    text: &Text,
    config: &DecoderConfig,
    request: &EditRequest,
    templates: &[&str],
) -> Result<RewritePrompts, EditError> {
    let target = text.encode_target(&request.target_new)?;
    let Some((_, but_last)) = target.split_last() else {
        return Err(bad(request, format!("the new target {:?} has no tokens", request.target_new)));
    };
    let ending = text.decode_target(but_last)?;
    let rows = templates
        .iter()
        .map(|template| row(text, config, request, &template.replacen("{}", &request.prompt, 1), &ending))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(short) = rows.iter().find(|r| r.ids.len() < target.len()) {
        return Err(bad(request, format!("a prompt of {} tokens is shorter than its target", short.ids.len())));
    }
    Ok(RewritePrompts { rows, essence: row(text, config, request, "{} is a", "")?, target })
}

/// Tokens of `pattern` with the subject filled in and `ending` appended.
fn row(
    text: &Text,
    config: &DecoderConfig,
    request: &EditRequest,
    pattern: &str,
    ending: &str,
) -> Result<Prompt, EditError> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return Err(bad(request, format!("the subject is not in the prompt {pattern:?}")));
    };
    let whole = format!("{before}{}{after}", request.subject);
    let ids = text.encode_continued(&whole, ending)?;
    if ids.len() > config.context {
        return Err(ModelError::TooLong {
            tokens: ids.len(),
            context: config.context,
            text: whole.chars().take(60).collect(),
        }
        .into());
    }
    let fact = text.last_token(&format!("{before}{}", request.subject))?;
    if fact >= ids.len() {
        return Err(bad(request, format!("the tokenizer joins the subject with what follows it in {whole:?}")));
    }
    Ok(Prompt { ids, fact })
}

fn bad(request: &EditRequest, message: String) -> EditError {
    EditError::Request { id: request.id.clone(), message }
}
