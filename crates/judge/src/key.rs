//! What opens a server.

use std::fmt;

/// The environment variable that holds it. The name is fixed: a pipeline is a file that others may have written, and must not choose which of
/// the reader's variables is sent to an address that it names.
pub const VARIABLE: &str = "PALINODE_JUDGE_KEY";

/// What stands in its place in texts.
const HIDDEN: &str = "[key]";

/// A secret that is sent to one server. It is never shown, not even for debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// From a text.
    ///
    /// # Errors
    /// What is wrong with it, without it.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("{VARIABLE} is empty"));
        }
        if text.chars().any(|char| !('\u{21}'..='\u{7e}').contains(&char)) {
            return Err(format!("{VARIABLE} holds a character that no key has"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text without it: servers repeat keys in their messages.
    pub fn hide(&self, text: &str) -> String {
        text.replace(&self.0, HIDDEN)
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_no_text() {
        let key = Key::new(" sk-secret\n").unwrap();
        assert_eq!(format!("{key:?}"), HIDDEN);
        assert_eq!(key.hide("wrong key sk-secret!"), "wrong key [key]!");
        for wrong in ["", " \n", "a b", "sk-\u{e9}"] {
            assert!(Key::new(wrong).unwrap_err().contains(VARIABLE));
        }
    }
}
