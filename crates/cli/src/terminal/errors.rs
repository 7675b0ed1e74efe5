//! Mistakes and failures: drawn with their place for a person, `file:line:column` for everyone else.

use std::fmt::{self, Write as _};

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};
use palinode::{Diagnostic, Diagnostics, Error, Excerpt, Origin};

use super::{Style, format};
use crate::command_error::{in_our_words, words};

/// All mistakes of a pipeline.
pub fn mistakes(mistakes: &Diagnostics, style: &Style) -> String {
    let mut text: String = mistakes.0.iter().map(|mistake| one(mistake, style) + "\n").collect();
    if mistakes.0.len() > 1 {
        text.push_str(&style.red(&format::count(mistakes.0.len(), "mistake")));
        text.push_str("; nothing was run\n");
    }
    text
}

/// One mistake with its place.
pub fn one(mistake: &Diagnostic, style: &Style) -> String {
    let mistake = &in_our_words(mistake);
    // A value that was given in code has no line to draw.
    if !style.terminal || mistake.source.origin == Origin::Code {
        return mistake.to_string();
    }
    let theme = if style.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(style.prose());
    let drawn = Drawn { mistake, line: Line::of(mistake, style.prose()) };
    let mut text = String::new();
    match handler.render_report(&mut text, &drawn) {
        Ok(()) => text,
        Err(_) => mistake.to_string(),
    }
}

/// An error that has no place in a pipeline.
pub fn error(error: &Error, style: &Style) -> String {
    let place = error.at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
    let mut text = format!("{} {place}{error}\n", style.red("error:"));
    if let Some(hint) = &error.hint {
        let _ = writeln!(text, "\n{} {}", style.cyan("hint:"), words(hint));
    }
    text
}

/// A mistake as miette draws it.
struct Drawn<'a> {
    mistake: &'a Diagnostic,
    line: Line,
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistake.fmt(f)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mistake.short_message())
    }
}

impl std::error::Error for Drawn<'_> {}

impl miette::Diagnostic for Drawn<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let Diagnostic { expected, hint, at, .. } = self.mistake;
        let parts = [
            hint.as_ref().map(ToString::to_string),
            expected.as_ref().map(|expected| format!("expected {expected}")),
            at.as_ref().map(|at| format!("see {at}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { None } else { Some(Box::new(parts.join("\n"))) }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.line)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (offset, len) = self.line.marked;
        Some(Box::new(std::iter::once(LabeledSpan::new(Some(self.mistake.label.clone()), offset, len))))
    }
}

/// The line of a mistake, cut to what fits.
struct Line {
    name: String,
    text: String,
    /// Where the mistake is in the text: first byte and length.
    marked: (usize, usize),
    /// Line and column in the file, counted from 0.
    place: (usize, usize),
}

/// Columns that miette needs beside the line.
const MARGIN: usize = 8;

impl Line {
    fn of(mistake: &Diagnostic, width: usize) -> Self {
        let span = mistake.span;
        let room = width.saturating_sub(MARGIN + span.line.to_string().len()).max(20);
        let Excerpt { text, column, marked } = mistake.excerpt(room);
        let bytes = |text: &mut dyn Iterator<Item = char>| text.map(char::len_utf8).sum::<usize>();
        Self {
            marked: (bytes(&mut text.chars().take(column)), bytes(&mut text.chars().skip(column).take(marked))),
            name: mistake.source.name.clone(),
            text,
            place: (span.line - 1, span.column - 1),
        }
    }
}

impl SourceCode for Line {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        _before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let (line, column) = self.place;
        let span = SourceSpan::from((0, self.text.len()));
        Ok(Box::new(MietteSpanContents::new_named(self.name.clone(), self.text.as_bytes(), span, line, column, 1)))
    }
}
