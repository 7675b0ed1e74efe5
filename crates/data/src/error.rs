//! Mistakes in data files, with their places.

use std::path::{Path, PathBuf};

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line, from 1.
    Line(usize),
    /// A row of a table, from 0 as in the readers of such files.
    Row(u64),
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
    /// Whether nothing is wrong but that the file is not here.
    pub absent: bool,
}

impl DataError {
    pub(crate) fn new(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self { file: file.into(), place, message: message.into(), hint: None, absent: false }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        // A reader of anyone's records has nothing to say of their fields.
        self.hint = Some(hint).filter(|hint| !hint.is_empty());
        self
    }

    pub(crate) fn absent(self) -> Self {
        Self { absent: true, ..self }
    }

    pub(crate) fn io(file: &Path, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut chars = text.chars();
        let lower: String = chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default();
        Self::new(file, Place::File, lower)
    }

    pub(crate) fn not_utf8(file: &Path, place: Place) -> Self {
        Self::new(file, place, "not UTF-8 text").hint("save the file as UTF-8")
    }
}

/// The mistakes of one file: the first few, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// The first of them, [`Mistakes::SHOWN`] at most.
    pub shown: Vec<DataError>,
    /// Number of all.
    pub count: usize,
}

impl Mistakes {
    /// As many as a person reads before mending the first.
    pub const SHOWN: usize = 10;

    /// As many of them say the same.
    const ALIKE: usize = 3;

    pub(crate) fn add(&mut self, error: DataError) {
        self.count += 1;
        // One mistake in every record is said once: ten lines of it hide the others.
        let known = self.shown.iter().filter(|shown| shown.message == error.message).count() >= Self::ALIKE;
        if self.shown.len() < Self::SHOWN && !known {
            self.shown.push(error);
        }
    }

    /// "and 3 more records have mistakes", where not all are shown.
    pub fn rest(&self) -> Option<String> {
        match self.count - self.shown.len() {
            0 => None,
            1 => Some("one more record has a mistake".to_owned()),
            more => Some(format!("{more} more records have mistakes")),
        }
    }
}

impl From<DataError> for Mistakes {
    fn from(error: DataError) -> Self {
        Self { shown: vec![error], count: 1 }
    }
}

impl std::fmt::Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.shown.iter().map(ToString::to_string).chain(self.rest());
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Mistakes {}

fn show(place: &Place) -> String {
    match place {
        Place::File => String::new(),
        Place::Line(line) => format!(", line {line}"),
        Place::Row(row) => format!(", row {row}"),
        Place::Record(index, None) => format!(", record {index}"),
        Place::Record(index, Some(field)) => format!(", record {index}, field {field}"),
    }
}
