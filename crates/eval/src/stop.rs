//! Where a text that a model writes is over: one set of rules for answers to prompts and for tasks.

use palinode_model::generate::{Prompt, Sampling, generate_until};
use palinode_model::{Decoder, ModelError, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an answer is over, beside the model's end token, which always ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StopAt {
    /// A full stop, question mark or exclamation mark with white space behind it. One behind a single letter is an initial's ("J. S. Bach").
    Sentence,
    /// A line break behind the answer's first word.
    Line,
}

/// Where a text is over: at the first place that a rule or a text names. The model's end token and the number of tokens end it as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Rules; what they end at belongs to the text.
    pub at: Vec<StopAt>,
    /// Texts; the text ends before them.
    pub before: Vec<String>,
}

impl Stop {
    /// Where a text is over, as a byte offset; `None` where it goes on.
    fn end(&self, text: &str) -> Option<usize> {
        let rules = self.at.iter().filter_map(|rule| rule.end(text));
        rules.chain(self.before.iter().filter_map(|stop| text.find(stop.as_str()))).min()
    }

    /// What of a text is before its end.
    pub fn cut<'a>(&self, text: &'a str) -> &'a str {
        &text[..self.end(text).unwrap_or(text.len())]
    }
}

/// What a model writes after prompts, all of them together: `tokens` tokens at most, up to the end token or where `stop` cuts, without white
/// space around it. Nothing is written behind that place.
///
/// # Errors
/// [`ModelError::Tokenize`]; [`ModelError::TooLong`] for a prompt that leaves no room in the context; what the device failed at.
pub fn write_until(
    decoder: &Decoder,
    text: &Text,
    prompts: &[String],
    tokens: usize,
    sampling: Sampling,
    stop: &Stop,
) -> Result<Vec<String>, ModelError> {
    let prompt = |prompt: &String| {
        let ids = text.encode(prompt)?;
        Ok(Prompt { length: ids.len() + tokens, stream: stream(prompt), tokens: ids })
    };
    let prompts = prompts.iter().map(prompt).collect::<Result<Vec<_>, ModelError>>()?;
    let over = |_: usize, written: &[u32]| {
        if written.last().copied() == text.end() {
            return Ok(true);
        }
        // A letter that is not whole yet is no text, and ends nothing.
        Ok(stop.end(&text.decode(written).unwrap_or_default()).is_some())
    };
    let all = generate_until(decoder, &prompts, sampling, &over)?;
    let written = all.iter().zip(&prompts).map(|(ids, prompt)| {
        let said = text.decode(&ids[prompt.tokens.len()..])?;
        Ok(stop.cut(&said).trim().to_owned())
    });
    written.collect()
}

impl StopAt {
    /// Where a text is over by this rule, as a byte offset; `None` where it goes on.
    fn end(self, text: &str) -> Option<usize> {
        let begin = text.len() - text.trim_start().len();
        match self {
            Self::Line => text[begin..].find('\n').map(|at| begin + at),
            Self::Sentence => {
                let mut chars = text.char_indices().peekable();
                let mut before = [' ', ' '];
                while let Some((at, char)) = chars.next() {
                    let next = chars.peek().map(|(_, next)| *next);
                    let initial = char == '.' && before[1].is_alphabetic() && !before[0].is_alphanumeric();
                    let ends = match char {
                        '.' | '!' | '?' => next.is_some_and(char::is_whitespace) && !initial,
                        '。' | '！' | '？' => true,
                        _ => false,
                    };
                    if ends {
                        return Some(at + char.len_utf8());
                    }
                    before = [before[1], char];
                }
                None
            }
        }
    }
}

/// FNV-1a: a prompt's stream of random numbers does not depend on the other prompts.
fn stream(prompt: &str) -> u64 {
    prompt.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_rules_cut_where_they_say() {
        let cut = |stop: StopAt, text: &str| stop.end(text).map(|end| text[..end].to_owned());
        let sentence = |text: &str| cut(StopAt::Sentence, text);
        assert_eq!(sentence(" Rome. It is"), Some(" Rome.".into()));
        assert_eq!(sentence("3.5 is"), None);
        assert_eq!(sentence("J. S. Bach? Yes"), Some("J. S. Bach?".into()));
        assert_eq!(sentence("Rome."), None);
        assert_eq!(sentence("北京。然"), Some("北京。".into()));
        assert_eq!(cut(StopAt::Line, "\n Rome\nIt"), Some("\n Rome".into()));
        assert_eq!(cut(StopAt::Line, "\n"), None);
    }

    #[test]
    fn the_first_rule_or_text_ends_a_text() {
        let stop = Stop { at: vec![StopAt::Line], before: vec!["Question:".into(), "\n\n".into()] };
        assert_eq!(stop.cut(" 7 Question: what\nnow"), " 7 ");
        assert_eq!(stop.cut(" 7\nQuestion: what"), " 7");
        assert_eq!(stop.cut(" 7"), " 7");
        assert_eq!(Stop::default().cut("a. b\n\nc"), "a. b\n\nc");
    }
}
