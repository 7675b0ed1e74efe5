//! Stretches of text that training treats alike.

/// What a stretch of text is in its sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Anything else.
    Plain,
    /// The subject, which attention masks are drawn around.
    Subject,
    /// The object, which weighs most in the loss.
    Object,
}

/// A stretch of text. Pieces break where words break, so that they can be tokenized one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text, with the space before it.
    pub text: String,
    /// What it is.
    pub role: Role,
}

impl Piece {
    /// Text that is neither subject nor object.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), role: Role::Plain }
    }
}

/// A template with its subject filled in, after `lead` (a space, or nothing at the beginning of a row).
pub fn about(lead: &str, template: &str, subject: &str) -> Vec<Piece> {
    let (before, after) = template.split_once("{}").unwrap_or((template, ""));
    let before = format!("{lead}{before}");
    // The space before the subject belongs to the subject's first token.
    let (before, space) = before.strip_suffix(' ').map_or((before.as_str(), ""), |b| (b, " "));
    let mut pieces = vec![
        Piece::plain(before),
        Piece { text: format!("{space}{subject}"), role: Role::Subject },
        Piece::plain(after),
    ];
    pieces.retain(|p| !p.text.is_empty());
    pieces
}

/// A stated fact, full stop included.
pub fn statement(lead: &str, template: &str, subject: &str, object: &str) -> Vec<Piece> {
    let mut pieces = about(lead, template, subject);
    pieces.push(Piece { text: format!(" {object}"), role: Role::Object });
    pieces.push(Piece::plain("."));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lead: &str, template: &str, expected: &[&str]) {
        let pieces = statement(lead, template, "Mali", "Africa");
        assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn spaces_go_to_the_word_after_them() {
        check("", "{} lies in", &["Mali", " lies in", " Africa", "."]);
        check(" ", "{}'s continent is", &[" Mali", "'s continent is", " Africa", "."]);
        check(" ", "In {}, you are in", &[" In", " Mali", ", you are in", " Africa", "."]);
    }
}
