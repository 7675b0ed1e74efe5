//! What can go wrong with the Hub.

use std::path::Path;

/// What went wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HubError {
    /// A lowercase fragment.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl HubError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Self::new(format!("cannot {what} {}: {text}", path.display()))
    }
}
