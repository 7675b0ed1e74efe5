//! Errors of stages and of the store, with their kinds.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Hint;

/// What sort of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// What was asked for makes no sense.
    Usage,
    /// The pipeline file has mistakes.
    Pipeline,
    /// A model, data set or other file that the pipeline names is missing, damaged or unsuited.
    Input,
    /// The arithmetic failed: a matrix that is not positive definite, a loss that is not a number.
    Numerical,
    /// The store cannot be read or written: disk full, lock held.
    Store,
    /// Out of time or memory: past its `timeout`, or its process was killed.
    Limit,
    /// A result is there, and it is doubtful.
    Doubtful,
    /// A file changed while it was read: what was computed is of no contents that there ever were.
    Changed,
    /// A look at the requests before the work found some that cannot be edited or scored.
    Unworkable,
    /// Stopped by the user.
    Interrupted,
    /// A mistake in the program itself.
    Internal,
}

/// A place in a data file outside the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlace {
    /// The file.
    pub path: PathBuf,
    /// Its line, counted from 1, where known.
    pub line: Option<usize>,
}

impl fmt::Display for DataPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// What went wrong, and of which kind it is: in a stage, in the store, or in whatever else yields no result.
///
/// The message is a lowercase fragment that reads well after "failed: ".
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What sort of thing went wrong.
    pub kind: ErrorKind,
    /// What went wrong.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<Hint>,
    /// The place in a data file that it concerns.
    pub at: Option<Box<DataPlace>>,
    /// What it came from.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, at: None, source: None }
    }

    /// Bad model or data files.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// Arithmetic that failed.
    pub fn numerical(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Numerical, message)
    }

    /// Trouble with the store.
    pub fn store(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Store, message)
    }

    /// A mistake in the program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The user asked to stop.
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// A file that could not be read or written: `action` is what was tried, such as "read" or "write". A full disk is the
    /// store's trouble whichever file it happened on; anything else is `kind`.
    pub fn io(kind: ErrorKind, action: &str, path: &Path, error: io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let made = Self::new(
            if full { ErrorKind::Store } else { kind },
            format!("cannot {action} {}: {}", path.display(), plain(&error)),
        );
        let made = if full { made.hint(Hint::FreeSpace) } else { made };
        made.source(error)
    }

    /// The message with its causes.
    pub fn with_causes(&self) -> String {
        let mut message = self.message.clone();
        let mut source = self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many messages repeat their cause.
            if !message.contains(&text) && self.source.as_ref().is_none_or(|source| !source.is::<io::Error>()) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        message
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place in a data file.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>, line: Option<usize>) -> Self {
        self.at = Some(Box::new(DataPlace { path: path.into(), line }));
        self
    }

    /// Adds what it came from.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Files that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// What they are called where they come from.
    pub reference: String,
}

/// A mistake in a parameter, found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Dotted path within `with`, such as `layers[2]`; empty for `with` as a whole.
    pub field: String,
    /// What is wrong, as a lowercase fragment.
    pub message: String,
    /// What would have been right, such as "a layer from 0 to 11".
    pub expected: Option<String>,
    /// What the reader can do about it.
    pub hint: Option<Hint>,
    /// The place in a data file that it concerns.
    pub at: Option<Box<DataPlace>>,
    /// [`ErrorKind::Pipeline`], or [`ErrorKind::Input`] when a file that the parameter names is at fault.
    pub kind: ErrorKind,
    /// Whether the parameter's name, rather than its value, is what to point at.
    pub name_at_fault: bool,
    /// Whether the value is of the right type and lies outside of its bounds.
    pub out_of_range: bool,
    /// Whether the parameter is wanted and not given.
    pub missing: bool,
    /// Whether nothing is wrong but that a file is not here: it may be where the pipeline runs.
    pub absent: bool,
    /// What to fetch for the file to be here.
    pub fetch: Option<Box<Fetch>>,
}

impl FieldError {
    /// A mistake in `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            expected: None,
            hint: None,
            at: None,
            kind: ErrorKind::Pipeline,
            name_at_fault: false,
            out_of_range: false,
            missing: false,
            absent: false,
            fetch: None,
        }
    }

    /// Adds what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place in a data file; the mistake is then one of the data.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>, line: Option<usize>) -> Self {
        self.at = Some(Box::new(DataPlace { path: path.into(), line }));
        self.kind = ErrorKind::Input;
        self
    }

    /// Says that nothing is wrong but that a file is not here; the mistake is then one of the data.
    #[must_use]
    pub fn absent(mut self) -> Self {
        self.absent = true;
        self.kind = ErrorKind::Input;
        self
    }

    /// Says that a file is not here until `reference` is fetched.
    #[must_use]
    pub fn to_fetch(mut self, reference: impl Into<String>) -> Self {
        self.fetch = Some(Box::new(Fetch { reference: reference.into() }));
        self.absent()
    }
}

/// The text of an I/O error without the "(os error 2)" that helps nobody.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
