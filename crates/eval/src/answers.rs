//! Answers in a model's own words, and how they compare with what is right.
//!
//! Teacher forcing shows a model the beginning of the right answer before it asks for the next token, and so never sees where the model would
//! have gone by itself. Here it writes, from the prompt alone, until a stop rule says that the answer is over (arXiv 2502.11177).

use std::collections::HashMap;

use palinode_data::{EditRequest, Probe};
use palinode_model::generate::Sampling;
use palinode_model::{Decoder, ModelError, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Stop, write_until};

/// What a prompt is to its edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// The rewrite prompt.
    Rewrite,
    /// The fact in other words.
    Paraphrase,
    /// Another subject, whose answer should stay.
    Neighborhood,
    /// What follows from the edit, multi-hop questions among it.
    Portability,
    /// What has nothing to do with the edit.
    Locality,
}

impl AnswerKind {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Rewrite, Self::Paraphrase, Self::Neighborhood, Self::Portability, Self::Locality];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rewrite => "rewrite",
            Self::Paraphrase => "paraphrase",
            Self::Neighborhood => "neighborhood",
            Self::Portability => "portability",
            Self::Locality => "locality",
        }
    }
}

/// How answers are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Answering {
    /// Tokens of an answer, at most.
    pub tokens: usize,
    /// Where an answer is over.
    pub stop: Stop,
    /// How each token is chosen; a prompt draws from a stream of its own.
    pub sampling: Sampling,
    /// What stands around each prompt, with `{prompt}` in its place.
    pub form: Option<String>,
    /// The prompts that are answered.
    pub prompts: Vec<AnswerKind>,
}

/// A prompt with what the model wrote behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratedAnswer {
    /// What the prompt is to its edit.
    pub kind: AnswerKind,
    /// Its axis, of portability and locality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<String>,
    /// The whole prompt, without what stands around it.
    pub prompt: String,
    /// What may be answered; any of them is right.
    pub right: Vec<String>,
    /// The answer, up to where a stop rule cut it, without white space around it.
    pub text: String,
}

impl GeneratedAnswer {
    /// Whether it is one of the right answers, after lower case, without articles and punctuation.
    pub fn exact(&self) -> bool {
        let words = words(&self.text);
        self.right.iter().any(|right| self::words(right) == words)
    }

    /// Whether it has one of the right answers in it, word by word.
    pub fn contains(&self) -> bool {
        let said = words(&self.text);
        self.right.iter().any(|right| {
            let right = words(right);
            !right.is_empty() && said.windows(right.len()).any(|part| part == right)
        })
    }

    /// Harmonic mean of the shares of its words and of a right answer's that both have (SQuAD's F1, arXiv 1606.05250); that of the right
    /// answer with the highest.
    pub fn f1(&self) -> f64 {
        let said = words(&self.text);
        self.right.iter().map(|right| overlap(&said, &words(right))).fold(0.0, f64::max)
    }
}

/// Whether two answers are the same, after lower case, without articles and punctuation.
pub fn same_answer(a: &str, b: &str) -> bool {
    words(a) == words(b)
}

fn overlap(said: &[String], right: &[String]) -> f64 {
    if said.is_empty() || right.is_empty() {
        return f64::from(u8::from(said.is_empty() && right.is_empty()));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in right {
        *left.entry(word).or_default() += 1;
    }
    let mut both = 0_usize;
    for word in said {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            both += 1;
        }
    }
    2.0 * both as f64 / (said.len() + right.len()) as f64
}

/// First letter of the scripts whose letters are compared one by one, since they have no spaces between words.
const UNSPACED: char = '\u{2e80}';

/// The words that are compared: lower case, without punctuation and the English articles (as SQuAD's script has it). Where nothing else is
/// left, such as of "+", the text as it is.
fn words(text: &str) -> Vec<String> {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars().flat_map(char::to_lowercase) {
        if char >= UNSPACED && char.is_alphanumeric() {
            plain.extend([' ', char, ' ']);
        } else if char.is_alphanumeric() || char.is_whitespace() {
            plain.push(char);
        }
    }
    let words: Vec<String> =
        plain.split_whitespace().filter(|word| !["a", "an", "the"].contains(word)).map(str::to_owned).collect();
    let bare = text.trim();
    if words.is_empty() && !bare.is_empty() { vec![bare.to_lowercase()] } else { words }
}

/// What is asked of a request, and what is right; prompts of which nothing is known to be right are left out.
fn asked(request: &EditRequest, kinds: &[AnswerKind]) -> Vec<GeneratedAnswer> {
    let mut all = Vec::new();
    let mut ask = |kind: AnswerKind, axis: Option<&String>, prompt: String, right: Vec<String>| {
        if kinds.contains(&kind) && !right.is_empty() {
            let right = right.iter().map(|answer| answer.trim().to_owned()).collect();
            all.push(GeneratedAnswer { kind, axis: axis.cloned(), prompt, right, text: String::new() });
        }
    };
    let new = || vec![request.target_new.clone()];
    ask(AnswerKind::Rewrite, None, request.filled_prompt(), new());
    for prompt in &request.paraphrases {
        ask(AnswerKind::Paraphrase, None, prompt.clone(), new());
    }
    for neighbor in &request.neighbors {
        ask(AnswerKind::Neighborhood, None, neighbor.prompt.clone(), neighbor.target.iter().cloned().collect());
    }
    for (kind, axes) in [(AnswerKind::Portability, &request.portability), (AnswerKind::Locality, &request.locality)] {
        for (axis, probes) in axes {
            for Probe { prompt, answers } in probes {
                ask(kind, Some(axis), prompt.clone(), answers.clone());
            }
        }
    }
    all
}

/// Has a model answer the prompts of requests, all of them together; the answers of each request.
///
/// # Errors
/// [`ModelError::Tokenize`]; [`ModelError::TooLong`] for a prompt that leaves no room in the context.
pub fn answer(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    how: &Answering,
) -> Result<Vec<Vec<GeneratedAnswer>>, ModelError> {
    let mut answers: Vec<Vec<GeneratedAnswer>> = requests.iter().map(|request| asked(request, &how.prompts)).collect();
    let whole = |answer: &GeneratedAnswer| match &how.form {
        Some(form) => form.replacen("{prompt}", &answer.prompt, 1),
        None => answer.prompt.clone(),
    };
    let prompts: Vec<String> = answers.iter().flatten().map(whole).collect();
    let written = write_until(decoder, text, &prompts, how.tokens, how.sampling, &how.stop)?;
    for (answer, written) in answers.iter_mut().flatten().zip(written) {
        answer.text = written;
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, right: &[&str]) -> GeneratedAnswer {
        GeneratedAnswer {
            kind: AnswerKind::Rewrite,
            axis: None,
            prompt: String::new(),
            right: right.iter().map(|&right| right.to_owned()).collect(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn answers_are_compared_by_their_words() {
        let check = |text: &str, right: &[&str], exact: bool, contains: bool, f1: f64| {
            let said = said(text, right);
            assert_eq!((said.exact(), said.contains()), (exact, contains), "{text}");
            assert!((said.f1() - f1).abs() < 1e-12, "{text}: {}", said.f1());
        };
        check("The U.S.", &["US"], true, true, 1.0);
        check("Rome, the capital of Italy", &["Rome"], false, true, 0.4);
        check("Romeo", &["Rome"], false, false, 0.0);
        check("new york", &["Paris", "New York!"], true, true, 1.0);
        check("", &["Rome"], false, false, 0.0);
        check("+", &["+"], true, true, 1.0);
        check("他住在北京。", &["北京"], false, true, 4.0 / 7.0);
        check("Rome Rome", &["Rome"], false, true, 2.0 / 3.0);
        assert!(same_answer("An apple.", "apple") && !same_answer("apples", "apple"));
    }
}
