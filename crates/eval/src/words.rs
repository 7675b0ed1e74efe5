//! What counts as a word of a text.

use std::sync::LazyLock;

use fancy_regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a text is taken apart into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Words {
    /// Words of the Penn Treebank, as NLTK's `word_tokenize` gives them for one sentence: punctuation and clitics are words of their own.
    /// The text is not split into sentences first, so that a full stop within it stays with its word.
    #[default]
    Treebank,
    /// What stands between white space.
    Whitespace,
}

impl Words {
    /// The words of a text, in their order.
    pub fn of(self, text: &str) -> Vec<String> {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        match self {
            Self::Whitespace => split(text),
            Self::Treebank => split(&treebank(text)),
        }
    }
}

/// One step of the Treebank's rules: what is found, and what stands in its place.
struct Rule {
    found: Regex,
    put: &'static str,
}

/// The rules, in their order, each on what those before left: quotation marks that open, punctuation, brackets, dashes; then, on the text
/// between two spaces, quotation marks that close, clitics, and words that are two (R. MacIntyre's sed script, as NLTK has it).
static RULES: LazyLock<[Vec<Rule>; 2]> = LazyLock::new(|| {
    let inside = [
        (r"([«“‘„]|[`]+)", " $1 "),
        (r#"^""#, "``"),
        (r"(``)", " $1 "),
        (r#"([ (\[{<])("|'{2})"#, "$1 `` "),
        (r"(?i)(?<!\w)(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "$1 "),
        (r#"([^.])(\.)([\])}>"'»”’ ]*+)\s*$"#, "$1 $2 $3 "),
        (r"([:,])([^\d])", " $1 $2"),
        (r"([:,])$", " $1 "),
        (r"\.{2,}", " $0 "),
        (r"[;@#$%&]", " $0 "),
        (r"[\u{2012}-\u{2015}]", " $0 "),
        (r#"([^.])(\.)([\])}>"']*)\s*$"#, "$1 $2$3 "),
        (r"[?!]", " $0 "),
        (r"([^'])' ", "$1 ' "),
        (r"[*]", " $0 "),
        (r"[\]\[(){}<>]", " $0 "),
        (r"--", " -- "),
    ];
    let between = [
        (r"([»”’])", " $1 "),
        (r"''", " '' "),
        (r#"""#, " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
        (r"(?i)\b(can)(not)\b", " $1 $2 "),
        (r"(?i)\b(d)('ye)\b", " $1 $2 "),
        (r"(?i)\b(gim)(me)\b", " $1 $2 "),
        (r"(?i)\b(gon)(na)\b", " $1 $2 "),
        (r"(?i)\b(got)(ta)\b", " $1 $2 "),
        (r"(?i)\b(lem)(me)\b", " $1 $2 "),
        (r"(?i)\b(more)('n)\b", " $1 $2 "),
        (r"(?i)\b(wan)(na)(?=\s)", " $1 $2 "),
        (r"(?i) ('t)(is)\b", " $1 $2 "),
        (r"(?i) ('t)(was)\b", " $1 $2 "),
    ];
    // The patterns are constants: a test goes through all of them.
    let rules = |all: &[(&str, &'static str)]| {
        all.iter().filter_map(|(found, put)| Some(Rule { found: Regex::new(found).ok()?, put })).collect()
    };
    [rules(&inside), rules(&between)]
});

fn treebank(text: &str) -> String {
    let apply = |text: String, rules: &[Rule]| {
        // A text on which a pattern gives up stays as that rule found it.
        rules.iter().fold(text, |text, rule| match rule.found.try_replacen(&text, 0, rule.put) {
            Ok(replaced) => replaced.into_owned(),
            Err(_) => text,
        })
    };
    let [inside, between] = &*RULES;
    apply(format!(" {} ", apply(text.to_owned(), inside)), between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_a_pattern() {
        assert_eq!(RULES.each_ref().map(Vec::len), [17, 16]);
    }
}
