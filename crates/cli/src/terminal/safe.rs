//! Text that a terminal cannot take for commands.
//!
//! Prompts, answers of a model, names in files of others: any of them may hold control characters, and a terminal obeys them. They are
//! escaped where text leaves the program, so that no place can forget it. The colours that the program writes itself are let through, in
//! the one form that it uses (`ESC [ … m`).

use std::borrow::Cow;

/// Characters that change how the text after them is shown: controls, and marks that turn the direction of writing.
fn hostile(char: char) -> bool {
    let turns =
        matches!(char, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (char.is_control() && !matches!(char, '\n' | '\t'))
}

/// The text with what is hostile in it escaped, as `\u{1b}`; colours stay.
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(hostile) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let colour = colour(rest);
        let (now, later) = rest.split_at(colour.max(char.len_utf8()));
        if colour == 0 && hostile(char) {
            out.extend(char.escape_unicode());
        } else {
            out.push_str(now);
        }
        rest = later;
    }
    out.into()
}

/// The text of one line: line breaks are escaped too.
pub fn line(text: &str) -> String {
    safe(text).replace('\n', "\\n").replace('\t', " ")
}

/// The length of the colour that a text begins with; 0 where it begins with none.
fn colour(text: &str) -> usize {
    let Some(codes) = text.strip_prefix("\u{1b}[") else { return 0 };
    match codes.find(|char: char| !char.is_ascii_digit() && char != ';') {
        Some(end) if codes[end..].starts_with('m') => 2 + end + 1,
        _ => 0,
    }
}

/// JSON with what is hostile in its strings escaped, in JSON's own way.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(hostile) {
        return text.into();
    }
    let escape = |char: char| {
        if hostile(char) { format!("\\u{:04x}", u32::from(char)) } else { char.to_string() }
    };
    text.chars().map(escape).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_nothing_by_data() {
        for (text, shown) in [
            ("plain\n\tß 日本", "plain\n\tß 日本"),
            ("\u{1b}[1mbold\u{1b}[0m \u{1b}[38;5;9mx", "\u{1b}[1mbold\u{1b}[0m \u{1b}[38;5;9mx"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}[2J\u{1b}[H\u{9b}2J", "\\u{1b}[2J\\u{1b}[H\\u{9b}2J"),
            ("a\rb\u{8}\u{7f}", "a\\u{d}b\\u{8}\\u{7f}"),
            ("abc\u{202e}fed\u{2066}", "abc\\u{202e}fed\\u{2066}"),
            ("\u{1b}", "\\u{1b}"),
            ("\u{1b}[", "\\u{1b}["),
        ] {
            assert_eq!(safe(text), shown);
        }
        assert_eq!(line("a\nb\tc\u{7}"), "a\\nb c\\u{7}");
        assert_eq!(json("{\"a\":\"\u{202e}\u{9b}\"}"), "{\"a\":\"\\u202e\\u009b\"}");
    }
}
