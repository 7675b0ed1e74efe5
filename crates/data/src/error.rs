//! A mistake in a data file, with its place.

use std::path::{Path, PathBuf};

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line, from 1.
    Line(usize),
    /// A record of a JSON array, from 0 as in the dataset's own indices, and the field where it is known.
    Record(usize, Option<String>),
}

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", file.display(), show(place))]
pub struct DataError {
    /// The file.
    pub file: PathBuf,
    /// The place in it.
    pub place: Place,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl DataError {
    pub(crate) fn new(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self { file: file.into(), place, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn io(file: &Path, error: &std::io::Error) -> Self {
        Self::new(file, Place::File, error.to_string())
    }
}

fn show(place: &Place) -> String {
    match place {
        Place::File => String::new(),
        Place::Line(line) => format!(", line {line}"),
        Place::Record(index, None) => format!(", record {index}"),
        Place::Record(index, Some(field)) => format!(", record {index}, field {field}"),
    }
}
