//! The words and the texts of a Rust file: enough of its grammar to follow paths, with comments and tests left out.

/// A word or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An identifier or a keyword.
    Word(String),
    /// The text of a literal, as it is written.
    Text(String),
    /// `::`
    Sep,
    /// Any other sign.
    Sign(char),
}

impl Token {
    /// The word, if it is one.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

/// The tokens of a text, without literals and what only tests see.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = without_tests(&all(text));
    tokens.retain(|token| !matches!(token, Token::Text(_)));
    tokens
}

/// The texts of literals outside tests, each in one line.
pub fn literals(text: &str) -> Vec<String> {
    let one_line = |text: &str| {
        let lines: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
        lines.concat()
    };
    let tokens = without_tests(&all(text)).into_iter();
    tokens.filter_map(|token| if let Token::Text(text) = token { Some(one_line(&text)) } else { None }).collect()
}

fn all(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let c = chars[at];
        match (c, peek(at + 1)) {
            ('/', '/') => at = find(&chars, at, "\n"),
            ('/', '*') => at = after_comment(&chars, at),
            ('"', _) => {
                let end = after_text(&chars, at + 1);
                tokens.push(Token::Text(within(&chars, at + 1, end)));
                at = end;
            }
            ('r' | 'b', '"' | '#' | 'r' | '\'') if opens_text(&chars, at) => {
                at += usize::from(c == 'b');
                let raw = peek(at) == 'r';
                at += usize::from(raw);
                let marks = chars[at..].iter().take_while(|&&c| c == '#').count();
                let from = at + marks + 1;
                let is_text = raw || peek(at) == '"';
                at = match (raw, peek(at)) {
                    (true, _) => find(&chars, at + marks + 1, &format!("\"{}", "#".repeat(marks))) + 1 + marks,
                    (false, '\'') => after_char(&chars, at),
                    _ => after_text(&chars, at + 1),
                };
                if is_text {
                    tokens.push(Token::Text(within(&chars, from, at - marks)));
                }
            }
            // A lifetime, or a character.
            ('\'', next) if peek(at + 2) != '\'' && next != '\\' => at += 1,
            ('\'', _) => at = after_char(&chars, at),
            (':', ':') => {
                tokens.push(Token::Sep);
                at += 2;
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let end = (at..chars.len()).find(|&end| !chars[end].is_alphanumeric() && chars[end] != '_');
                let end = end.unwrap_or(chars.len());
                tokens.push(Token::Word(chars[at..end].iter().collect()));
                at = end;
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                at += 1;
            }
        }
    }
    tokens
}

/// What stands between a quote and the one that ends before `end`.
fn within(chars: &[char], from: usize, end: usize) -> String {
    chars[from.min(chars.len())..end.saturating_sub(1).clamp(from.min(chars.len()), chars.len())].iter().collect()
}

fn find(chars: &[char], from: usize, wanted: &str) -> usize {
    let wanted: Vec<char> = wanted.chars().collect();
    (from..chars.len()).find(|&at| chars[at..].starts_with(&wanted)).unwrap_or(chars.len())
}

fn after_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from + 2, 1);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

fn after_text(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn after_char(chars: &[char], at: usize) -> usize {
    let from = if chars.get(at + 1) == Some(&'\\') { at + 3 } else { at + 2 };
    find(chars, from, "'") + 1
}

/// Whether `r`, `b` or `br` begins a text here, and is not the beginning or the end of a word.
fn opens_text(chars: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).map_or(' ', |before| chars[before]);
    if before.is_alphanumeric() || before == '_' {
        return false;
    }
    let rest: String = chars[at..].iter().take(8).collect();
    let rest = rest.strip_prefix('b').unwrap_or(&rest);
    let quoted = rest.strip_prefix('r').map_or(rest, |rest| rest.trim_start_matches('#'));
    quoted.starts_with('"') || (chars[at] == 'b' && quoted.starts_with('\''))
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let here = |at: usize| {
        mark.iter().enumerate().all(|(n, wanted)| match tokens.get(at + n) {
            Some(Token::Word(word)) => word == wanted,
            Some(Token::Sign(sign)) => *wanted == sign.to_string(),
            _ => false,
        })
    };
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if here(at) {
            at = after_item(tokens, at + mark.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn after_item(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => {
                depth -= 1;
                // What is used, `use a::{b};`, ends after its braces.
                if depth == 0 && tokens.get(at + 1) != Some(&Token::Sign(';')) {
                    return at + 1;
                }
            }
            Token::Sign(';') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Whether the file defines an item of this name itself.
pub fn defines(tokens: &[Token], name: &str) -> bool {
    const KINDS: [&str; 9] = ["struct", "enum", "trait", "fn", "type", "const", "static", "union", "macro_rules"];
    tokens.windows(3).any(|three| {
        let [kind, next, then] = three else { return false };
        let kind_of_item = KINDS.iter().any(|known| kind.is(known));
        kind_of_item && (next.is(name) || (*next == Token::Sign('!') && then.is(name)))
    })
}
