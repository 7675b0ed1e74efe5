//! Collects the mistakes of a pipeline while it is read.

use super::places::{Places, child};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use palinode_error::FieldError;

/// Mistakes so far, and where things stand.
pub struct Report {
    /// Where things stand.
    pub places: Places,
    /// Mistakes so far.
    pub mistakes: Diagnostics,
    /// What is no mistake, but should be written otherwise.
    pub warnings: Diagnostics,
    /// Where numbers stood that are none: that is said already.
    unfit: Vec<Span>,
}

impl Report {
    /// Of a pipeline in which these mistakes are known, and numbers at these places are none.
    pub fn new(places: Places, mistakes: Diagnostics, unfit: Vec<Span>) -> Self {
        Self { places, mistakes, warnings: Diagnostics(Vec::new()), unfit }
    }

    /// A warning of the key at `path`.
    pub fn warn(&mut self, path: &str, message: impl Into<String>) {
        let (source, span) = self.places.key(path);
        self.warnings.add(Diagnostic::new(source, span, message));
    }

    /// A mistake in the value at `path`.
    pub fn value(&mut self, path: &str, message: impl Into<String>, more: impl FnOnce(Diagnostic) -> Diagnostic) {
        let (source, span) = self.places.value(path);
        let diagnostic = Diagnostic::new(source, span, message);
        self.mistakes.add(more(diagnostic));
    }

    /// A mistake in the key at `path`.
    pub fn key(&mut self, path: &str, message: impl Into<String>, more: impl FnOnce(Diagnostic) -> Diagnostic) {
        let (source, span) = self.places.key(path);
        let diagnostic = Diagnostic::new(source, span, message);
        self.mistakes.add(more(diagnostic));
    }

    /// A mistake in the part of the text at `path` that reads `part`.
    pub fn part(
        &mut self,
        path: &str,
        part: &str,
        message: impl Into<String>,
        more: impl FnOnce(Diagnostic) -> Diagnostic,
    ) {
        let (source, mut span) = self.places.value(path);
        let text = source.text.get(span.offset..span.offset + span.len).unwrap_or_default();
        if let Some(at) = text.find(part).filter(|_| !part.is_empty()) {
            span = source.span(span.offset + at, part.len());
        }
        // What is wrong with a part is said once: a name that is not known has no value either.
        if self.mistakes.0.iter().any(|known| known.span == span && known.source == *source) {
            return;
        }
        let diagnostic = Diagnostic::new(source, span, message);
        self.mistakes.add(more(diagnostic));
    }

    /// A mistake that a stage found in its parameters, which stand under `with`.
    pub fn field(&mut self, with: &str, error: FieldError) {
        let path = if error.field.is_empty() { with.to_owned() } else { child(with, &error.field) };
        if self.unfit.contains(&self.places.value(&path).1) {
            return;
        }
        let FieldError { message, expected, hint, at, kind, name_at_fault, absent, fetch, .. } = error;
        let more = |mut diagnostic: Diagnostic| {
            diagnostic.kind = kind;
            diagnostic.expected = expected;
            diagnostic.hint = hint;
            diagnostic.at = at;
            diagnostic.absent = absent;
            diagnostic.fetch = fetch;
            diagnostic
        };
        if name_at_fault { self.key(&path, message, more) } else { self.value(&path, message, more) }
    }
}
