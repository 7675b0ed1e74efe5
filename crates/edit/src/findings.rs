//! What is wrong with requests, or will spoil their scores, told from texts and tokens alone.
//!
//! A pure function from requests, tokenizer and sizes to a list. What cannot work is an error; what makes scores worthless is a warning;
//! what a reader may want to know is a note. Nothing is left out: whoever shows the list decides how much of it.

use std::collections::HashMap;
use std::ops::Range;

use palinode_data::{EditRequest, words};
use palinode_model::{DecoderConfig, ModelError, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::EditError;
use crate::prompts::{FactToken, prompt_at, rewrite_prompts_at};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It spoils scores.
    Warning,
    /// It cannot work.
    Error,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, in one word: `too_long`, `no_tokens`, `unknown_token`, `key_elsewhere`, `same_target`, `trailing_blank`,
    /// `double_blank`, `contradiction`, `repeated`, `duplicate_id`, `subject_again`, `shared_key`; stages add kinds of their own.
    pub kind: String,
    /// The request's name, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The field, such as `paraphrases[2]`; empty where it is about the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// What it means.
    pub words: String,
}

/// Findings, the gravest first.
pub type Findings = Vec<Finding>;

/// Looks at requests with a tokenizer, for a model of these sizes, in the contexts of `templates` (the bare one first).
pub fn findings(
    requests: &[EditRequest],
    text: &Text,
    config: &DecoderConfig,
    templates: &[&str],
    at: FactToken,
) -> Findings {
    let mut found = among(requests);
    for request in requests {
        let mut add = |severity, kind: &str, at: &str, words: String| {
            found.push(Finding {
                severity,
                kind: kind.to_owned(),
                request: Some(request.id.clone()),
                at: at.to_owned(),
                words,
            });
        };
        if request.target_true.as_deref().map(str::trim) == Some(request.target_new.trim()) {
            let words =
                format!("the new target {:?} is the true one: nothing is to be edited", request.target_new.trim());
            add(Severity::Warning, "same_target", "target_new", words);
        }
        if words(&request.filled_prompt(), &request.subject).len() > 1 {
            let words = format!(
                "the subject stands twice in {:?}: the key is read at {:?}",
                request.filled_prompt(),
                request.prompt
            );
            add(Severity::Note, "subject_again", "prompt", words);
        }
        let own: Vec<&str> = request.contexts.iter().map(String::as_str).collect();
        let contexts = if own.is_empty() { templates } else { &own };
        if let Err(error) = rewrite_prompts_at(text, config, request, contexts, at) {
            let (kind, words) = unusable(&error);
            add(Severity::Error, kind, "prompt", words);
        } else if let Some(words) = elsewhere(request, text, config, at) {
            // A mark that follows is often in one token with a bracket of the subject, in published data too; another word is not.
            let word =
                request.prompt.split_once("{}").is_some_and(|(_, after)| after.starts_with(char::is_alphanumeric));
            let severity = if word { Severity::Warning } else { Severity::Note };
            add(severity, "key_elsewhere", "prompt", words);
        }
        for question in request.questions() {
            if question.prompt.ends_with([' ', '\t', '\u{a0}']) {
                let words = format!(
                    "{:?} ends with a blank: models see it as a token of its own, which no text has there",
                    question.prompt
                );
                add(Severity::Warning, "trailing_blank", &question.at, words);
            }
            for continuation in question.continuations() {
                let spaces = |char: char| char == ' ';
                if question.prompt.ends_with(spaces) && continuation.starts_with(spaces) {
                    let words = format!("two blanks stand between {:?} and {:?}", question.prompt, continuation.trim());
                    add(Severity::Warning, "double_blank", &question.at, words);
                }
                if let Some((kind, words)) = unscorable(text, config, &question.prompt, &continuation) {
                    // What the rewrite prompt lacks is told already.
                    if question.at != "prompt" || question.targets.len() > 1 {
                        add(Severity::Error, kind, &question.at, words);
                    }
                }
            }
        }
        for (i, prompt) in request.generation.iter().enumerate() {
            if let Some((kind, words)) = unscorable(text, config, prompt, " x") {
                add(Severity::Error, kind, &format!("generation[{i}]"), words);
            }
        }
    }
    found.dedup();
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// What several requests say together.
fn among(requests: &[EditRequest]) -> Findings {
    let mut found = Findings::new();
    let mut ids: HashMap<&str, usize> = HashMap::new();
    let mut said: HashMap<String, usize> = HashMap::new();
    let mut add = |kind: &str, request: &EditRequest, at: &str, words: String| {
        found.push(Finding {
            severity: Severity::Warning,
            kind: kind.to_owned(),
            request: Some(request.id.clone()),
            at: at.to_owned(),
            words,
        });
    };
    for (i, request) in requests.iter().enumerate() {
        let earlier = *ids.entry(&request.id).or_insert(i);
        if earlier != i {
            let words =
                format!("records {earlier} and {i} of the selection have one name: reports cannot tell them apart");
            add("duplicate_id", request, "id", words);
        }
        let prompt = request.filled_prompt();
        let earlier = *said.entry(prompt.clone()).or_insert(i);
        if earlier == i {
            continue;
        }
        let (old, new) = (&requests[earlier], request);
        if old.target_new.trim() == new.target_new.trim() {
            add("repeated", request, "prompt", format!("requests {} and {} are the same: {prompt:?}", old.id, new.id));
        } else {
            let words = format!(
                "requests {} and {} ask for different targets at the same prompt, {:?} and {:?}: {prompt:?}",
                old.id,
                new.id,
                old.target_new.trim(),
                new.target_new.trim()
            );
            add("contradiction", request, "target_new", words);
        }
    }
    found
}

/// Hard constraints that cannot hold together: requests of one batch whose keys are the same vector, since all tokens up to the fact token are,
/// and which ask for different values there. The edits of each of `batches` are written together; `mu` is each one's μ (0: a hard constraint).
pub fn shared_keys(
    requests: &[EditRequest],
    text: &Text,
    config: &DecoderConfig,
    at: FactToken,
    batches: &[Range<usize>],
    mu: &[f64],
) -> Findings {
    let mut found = Findings::new();
    let mut first: HashMap<(usize, Vec<u32>), usize> = HashMap::new();
    for (i, request) in requests.iter().enumerate().filter(|(i, _)| mu[*i] == 0.0) {
        // What cannot be told is a finding of its own.
        let Ok(prompt) = prompt_at(text, config, request, "{}", at) else { continue };
        let key = (batches.partition_point(|batch| batch.end <= i), prompt.ids[..=prompt.fact].to_vec());
        let earlier = &requests[*first.entry(key).or_insert(i)];
        let same = earlier.filled_prompt() == request.filled_prompt()
            && earlier.target_new.trim() == request.target_new.trim();
        if same {
            continue;
        }
        found.push(Finding {
            severity: Severity::Error,
            kind: "shared_key".to_owned(),
            request: Some(request.id.clone()),
            at: "prompt".to_owned(),
            words: format!(
                "requests {} and {} share a key in one batch, and both are hard constraints, which cannot hold together: put them in different \
                 batches, drop one, or give them a `strength` above 0",
                earlier.id, request.id
            ),
        });
    }
    found
}

/// Why a request cannot be edited.
fn unusable(error: &EditError) -> (&'static str, String) {
    match error {
        EditError::Model(ModelError::TooLong { .. }) => ("too_long", error.to_string()),
        EditError::Model(ModelError::Tokenize { .. }) => ("unknown_token", error.to_string()),
        EditError::Request { message, .. } => ("no_tokens", message.clone()),
        other => ("unusable", other.to_string()),
    }
}

/// Whether a prompt and what follows it can be scored.
fn unscorable(text: &Text, config: &DecoderConfig, prompt: &str, target: &str) -> Option<(&'static str, String)> {
    let shown: String = prompt.chars().take(60).collect();
    let counted = text.encode(prompt).and_then(|prompt| Ok((prompt.len(), text.encode_continuation(target)?.len())));
    match counted {
        Err(error) => Some(("unknown_token", error.to_string())),
        Ok((0, _)) => Some(("no_tokens", format!("the prompt {shown:?} has no tokens"))),
        Ok((_, 0)) => Some(("no_tokens", format!("the target {target:?} has no tokens"))),
        Ok((prompt, target)) if prompt + target - 1 > config.context => Some((
            "too_long",
            format!("{} tokens with its target, but the context is {}: {shown:?}", prompt + target - 1, config.context),
        )),
        Ok(_) => None,
    }
}

/// Whether the key would be read at another token than the subject's: the tokens up to the subject's end are not the first of the prompt's.
fn elsewhere(request: &EditRequest, text: &Text, config: &DecoderConfig, at: FactToken) -> Option<String> {
    let (before, _) = request.prompt.split_once("{}")?;
    let up_to = text.encode_opening(&format!("{before}{}", request.subject)).ok()?;
    let whole = prompt_at(text, config, request, "{}", at).ok()?;
    if at == FactToken::Last || whole.ids.starts_with(&up_to) {
        return None;
    }
    let read = text.decode(whole.ids.get(whole.fact..=whole.fact)?).unwrap_or_default();
    Some(format!(
        "the subject {:?} does not end where a token ends in {:?}: the key is read at {read:?}",
        request.subject,
        request.filled_prompt()
    ))
}
