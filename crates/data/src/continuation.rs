//! What stands between a prompt and its target.
//!
//! A target continues a prompt. In English a space stands between the two, and published code always puts one there. In Chinese there is
//! none, nor after a line that ends with `assistant:` and its line break, nor within quotes or code. This is the one place that decides it,
//! for the search for targets, for evaluation and for whatever else puts a target behind a prompt.

use serde::{Deserialize, Serialize};

use crate::script::unspaced;

/// What stands between a request's prompts and its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetPrefix {
    /// A space, unless the target begins with one: the published rule.
    #[default]
    Blank,
    /// What [`usual_prefix`] says of each prompt and target.
    Usual,
    /// This text.
    Given(String),
}

impl TargetPrefix {
    /// Whether it is a space, as it was before there was anything else. Stored requests leave it out.
    pub fn is_blank(&self) -> bool {
        *self == Self::Blank
    }

    /// The text that follows `prompt` when it is continued with `target`.
    pub fn continuation(&self, prompt: &str, target: &str) -> String {
        let prefix = match self {
            Self::Blank => blank(target),
            Self::Usual => usual_prefix(prompt, target),
            Self::Given(prefix) => prefix,
        };
        format!("{prefix}{target}")
    }
}

fn blank(target: &str) -> &'static str {
    if target.starts_with(' ') { "" } else { " " }
}

/// The prefix where nothing else is said: none where the prompt ends with white space, with an opening quote or bracket or with a letter
/// of a script without spaces, and none where the target begins with white space or with a mark that follows a word without a space;
/// otherwise a space.
///
/// Marks that begin a word, such as a dash or an opening bracket, come after a space like a word.
pub fn usual_prefix(prompt: &str, target: &str) -> &'static str {
    let mut back = prompt.chars().rev();
    let (last, before) = (back.next(), back.next());
    let prompt_ends = last.is_some_and(|last| last.is_whitespace() || unspaced(last) || opens(last, before));
    let target_begins = target.chars().next().is_some_and(|first| first.is_whitespace() || follows(first));
    if prompt_ends || target_begins { "" } else { " " }
}

/// Whether a character opens something; a straight quote does where it stands as the first of a word.
fn opens(char: char, before: Option<char>) -> bool {
    match char {
        '(' | '[' | '{' | '<' | '“' | '‘' | '„' | '‚' | '«' | '‹' | '¿' | '¡' | '⟨' => true,
        '"' | '\'' | '`' => {
            before.is_none_or(|before| before.is_whitespace() || opens(before, None) || "=:,".contains(before))
        }
        _ => false,
    }
}

/// Whether a mark stands behind a word without a space between.
fn follows(char: char) -> bool {
    ".,;:!?)]}%'’”»›…".contains(char) || (unspaced(char) && !char.is_alphanumeric() && !"「『（【《〈〔".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_stands_where_a_language_has_one() {
        let with = [
            ("Paris is in", "France"),
            ("The capital of Japan is", "東京"),
            ("Seoul은 나라", "한국"),
            ("He said it's the dogs'", "fault"),
            ("x", "---"),
            ("x", "(y)"),
            ("x", "\"y\""),
            ("Answer:", "yes"),
        ];
        let without = [
            ("The language is ", "Thai"),
            ("assistant:\n", "Rome"),
            ("日本の首都は", "東京"),
            ("答案：", "北京"),
            ("เมืองหลวงคือ", "กรุงเทพ"),
            ("He was called \"", "Bob"),
            ("f(", "x"),
            ("x = '", "y"),
            ("Paris is in", " France"),
            ("Paris is in", "\n"),
            ("Paris", "."),
            ("Paris", "'s"),
        ];
        for (prompt, target) in with {
            assert_eq!(usual_prefix(prompt, target), " ", "{prompt:?} {target:?}");
        }
        for (prompt, target) in without {
            assert_eq!(usual_prefix(prompt, target), "", "{prompt:?} {target:?}");
        }
        assert_eq!(TargetPrefix::Blank.continuation("a\n", "b"), " b");
        assert_eq!(TargetPrefix::Usual.continuation("a\n", "b"), "b");
        assert_eq!(TargetPrefix::Given("\t".into()).continuation("a\n", "b"), "\tb");
    }
}
