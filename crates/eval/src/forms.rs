//! Further forms of a task: answers of a question's own to choose from, and answers that a model writes.

use fancy_regex::Regex;
use palinode_data::{Choice, Example, LETTERS, TargetPrefix};
use palinode_model::{Decoder, ModelError, Text};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Query, Question, score};

/// Questions with answers of their own.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The questions, examples included; what is scored for each answer.
    pub questions: Vec<Question>,
    /// Each question's own prompt, without the examples.
    pub asked: Vec<String>,
    /// The answers as the file has them.
    pub answers: Vec<Vec<String>>,
    /// The place of each question's right answer.
    pub right: Vec<usize>,
}

/// What a model makes of a question: the most likely answer, and the most likely one for its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// By `Σ log p` over the answer's tokens.
    pub whole: usize,
    /// By that sum over the number of the answer's characters (`acc_norm` of lm-evaluation-harness).
    pub by_length: usize,
}

/// Draws `shots` examples, which stand before every question with blank lines between, and asks at most `limit` of the others.
fn drawn<T>(mut all: Vec<T>, shots: usize, limit: Option<usize>, seed: u64) -> Result<(Vec<T>, Vec<T>), String> {
    if all.len() <= shots {
        return Err(format!("the file has {} records, and {shots} are examples: none is left to ask", all.len()));
    }
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut asked = all.split_off(shots);
    asked.truncate(limit.unwrap_or(usize::MAX));
    Ok((all, asked))
}

impl Choices {
    /// Of what a file has; with `letters`, the answers' letters are scored, not their texts.
    ///
    /// # Errors
    /// Why no question can be asked.
    pub fn new(all: Vec<Choice>, letters: bool, shots: usize, limit: Option<usize>, seed: u64) -> Result<Self, String> {
        let (shown, asked) = drawn(all, shots, limit, seed)?;
        let scored = |choice: &Choice| -> Vec<String> {
            if letters {
                LETTERS.chars().take(choice.choices.len()).map(String::from).collect()
            } else {
                choice.choices.clone()
            }
        };
        let opening: String = shown
            .iter()
            .map(|choice| format!("{} {}\n\n", choice.prompt, scored(choice)[choice.right].trim()))
            .collect();
        let question =
            |choice: &Choice| Question { prompt: format!("{opening}{}", choice.prompt), choices: scored(choice) };
        Ok(Self {
            questions: asked.iter().map(question).collect(),
            right: asked.iter().map(|choice| choice.right).collect(),
            asked: asked.iter().map(|choice| choice.prompt.clone()).collect(),
            answers: asked.into_iter().map(|choice| choice.choices).collect(),
        })
    }
}

/// The answers that the model finds the most likely; the first of equals. `tokens` bounds a batch.
///
/// # Errors
/// As [`score()`].
pub fn choose_both(
    decoder: &Decoder,
    text: &Text,
    questions: &[Question],
    tokens: usize,
) -> Result<Vec<Chosen>, ModelError> {
    let spaced = |choice: &String| TargetPrefix::Blank.continuation("", choice);
    let query = |q: &Question| Query { prompt: q.prompt.clone(), targets: q.choices.iter().map(spaced).collect() };
    let queries: Vec<Query> = questions.iter().map(query).collect();
    let scores = score(decoder, text, &queries, tokens)?;
    let chosen = scores.into_iter().zip(questions).map(|(scores, question)| {
        let total = |at: usize| scores[at].nll * scores[at].said.len() as f64;
        let by_length = |at: usize| total(at) / question.choices[at].chars().count().max(1) as f64;
        let least = |of: &dyn Fn(usize) -> f64| (0..scores.len()).min_by(|&a, &b| of(a).total_cmp(&of(b))).unwrap_or(0);
        Chosen { whole: least(&total), by_length: least(&by_length) }
    });
    Ok(chosen.collect())
}

/// Questions whose answers a model writes.
#[derive(Clone, Debug)]
pub struct Open {
    /// The prompts, examples included.
    pub prompts: Vec<String>,
    /// Each question's own prompt, without the examples.
    pub asked: Vec<String>,
    /// The answer that is expected of each.
    pub right: Vec<String>,
}

/// How an answer is taken from a text.
#[derive(Clone, Debug)]
pub struct Extraction {
    pattern: Option<Regex>,
    last: bool,
}

impl Open {
    /// Of what a file has; the right answer is taken from a record's answer as from a written one, and is the whole of it where there is
    /// no such place.
    ///
    /// # Errors
    /// Why no question can be asked.
    pub fn new(
        all: Vec<Example>,
        extraction: &Extraction,
        shots: usize,
        limit: Option<usize>,
        seed: u64,
    ) -> Result<Self, String> {
        let (shown, asked) = drawn(all, shots, limit, seed)?;
        let opening: String =
            shown.iter().map(|example| format!("{} {}\n\n", example.prompt, example.label.trim())).collect();
        let right = |example: &Example| extraction.found(&example.label).unwrap_or_else(|| normal(&example.label));
        Ok(Self {
            prompts: asked.iter().map(|example| format!("{opening}{}", example.prompt)).collect(),
            right: asked.iter().map(right).collect(),
            asked: asked.into_iter().map(|example| example.prompt).collect(),
        })
    }
}

impl Extraction {
    /// `pattern` is what an answer looks like: its first group that took part, or all that fits; without one, an answer is the whole text.
    /// With `last`, the last place that fits counts and not the first.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn new(pattern: Option<&str>, last: bool) -> Result<Self, String> {
        let pattern = pattern.map(Regex::new).transpose().map_err(|error| error.to_string())?;
        Ok(Self { pattern, last })
    }

    /// Whether right answers are written as the pattern wants it: all of them, or none, where a record has nothing but the answer.
    ///
    /// # Errors
    /// The pattern fits some of them only, so that texts would be held against answers of two kinds.
    pub fn check(&self, all: &[Example]) -> Result<(), String> {
        let other = all.iter().filter(|example| self.found(&example.label).is_none()).collect::<Vec<_>>();
        match other.as_slice() {
            [first, ..] if other.len() < all.len() => Err(format!(
                "the pattern does not fit the right answers of {} of {} records, such as {:?}; expected that it fits all of them or none",
                other.len(),
                all.len(),
                first.label
            )),
            _ => Ok(()),
        }
    }

    /// The answer in a text, normalised; `None` where there is none.
    pub fn found(&self, text: &str) -> Option<String> {
        let Some(pattern) = &self.pattern else { return Some(normal(text)) };
        let mut fits = pattern.captures_iter(text).filter_map(Result::ok);
        let fit = if self.last { fits.last() } else { fits.next() }?;
        let group = (1..fit.len()).find_map(|group| fit.get(group)).or_else(|| fit.get(0))?;
        Some(normal(group.as_str()))
    }
}

/// An answer as it is compared: lower case, without `,` and `$`, and without a full stop at its end (as lm-evaluation-harness compares those
/// of GSM8K), with single blanks.
fn normal(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().filter(|char| !matches!(char, ',' | '$')).collect();
    let words: Vec<&str> = kept.split_whitespace().collect();
    words.join(" ").trim_end_matches('.').trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extraction(pattern: &str, last: bool) -> Extraction {
        Extraction::new(Some(pattern), last).unwrap()
    }

    /// The patterns of lm-evaluation-harness for GSM8K.
    #[test]
    fn answers_are_taken_as_the_harness_takes_them() {
        let strict = extraction(r"#### (\-?[0-9\.\,]+)", false);
        assert_eq!(strict.found("She has 3 + 4 = 7.\n#### 1,234.").unwrap(), "1234");
        assert_eq!(strict.found("She has 7."), None);
        let flexible = extraction(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", true);
        assert_eq!(flexible.found("First 12, then $1,300.50. So 9").unwrap(), "9");
        let whole = Extraction::new(None, false).unwrap();
        assert_eq!(whole.found(" The  Thames. ").unwrap(), "the thames");
        let of = |label: &str| Example { prompt: "Q".into(), label: label.into() };
        assert!(
            strict.check(&[of("6 + 1 = 7 #### 7"), of("#### 8")]).is_ok() && strict.check(&[of("7"), of("8")]).is_ok()
        );
        assert!(strict.check(&[of("#### 7"), of("8")]).unwrap_err().contains("of 1 of 2 records, such as \"8\""));
    }

    #[test]
    fn examples_stand_before_questions_and_are_not_asked() {
        let of = |i: usize| Choice { prompt: format!("Q{i}"), choices: vec!["no".into(), "yes".into()], right: i % 2 };
        let letters = Choices::new((0..5).map(of).collect(), true, 2, Some(2), 1).unwrap();
        assert_eq!(
            (letters.questions.len(), letters.questions[0].choices.clone()),
            (2, vec!["A".into(), "B".to_owned()])
        );
        let parts: Vec<&str> = letters.questions[0].prompt.split("\n\n").collect();
        assert_eq!((parts.len(), parts[2]), (3, letters.asked[0].as_str()));
        assert!(parts[..2].iter().all(|part| part.ends_with(" A") || part.ends_with(" B")));
        assert!(Choices::new((0..2).map(of).collect(), false, 2, None, 1).unwrap_err().contains("none is left"));
    }
}
