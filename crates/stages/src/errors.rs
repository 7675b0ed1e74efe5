//! Errors of the domain crates as errors of stages.

use palinode_data::{DataError, Mistakes, Place};
use palinode_edit::EditError;
use palinode_engine::{Error, ErrorKind, FieldError, Hint};
use palinode_math::MathError;
use palinode_model::ModelError;

/// An error that a stage can end with.
pub trait StageFailure {
    /// With its kind, hint and place.
    fn stage(self) -> Error;
}

fn with_hint(error: Error, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

impl StageFailure for ModelError {
    fn stage(self) -> Error {
        let hint = self.hint();
        match self {
            Self::Io { path, source } => Error::io(ErrorKind::Input, "read or write", &path, source),
            Self::UnknownDevice { .. } => with_hint(Error::new(ErrorKind::Usage, self.to_string()), hint),
            Self::Device { ref hint, .. } => {
                let hint = Hint::OtherDevice { trouble: hint.as_str().into() };
                Error::new(ErrorKind::Usage, self.to_string()).hint(hint)
            }
            Self::OutOfMemory => with_hint(Error::new(ErrorKind::Limit, self.to_string()), hint),
            Self::Readback(_) => Error::internal(self.to_string()),
            _ => with_hint(Error::input(self.to_string()), hint),
        }
    }
}

impl StageFailure for MathError {
    fn stage(self) -> Error {
        let error = match self {
            Self::Dimension { .. }
            | Self::Layers(_)
            | Self::Parameter { .. }
            | Self::SingleOnly { .. }
            | Self::Entries(_)
            | Self::NotAMoment { .. }
            | Self::NotAFactor { .. } => Error::input(self.to_string()),
            Self::Unread { .. } => Error::new(ErrorKind::Store, self.to_string()),
            Self::OutOfRange { .. }
            | Self::NotFinite { .. }
            | Self::NoSpectrum
            | Self::NoDirections { .. }
            | Self::NotPositiveDefinite { .. }
            | Self::Part { .. }
            | Self::Collision { .. } => Error::numerical(self.to_string()),
        };
        with_hint(error, self.hint())
    }
}

impl StageFailure for EditError {
    fn stage(self) -> Error {
        match self {
            Self::Model(error) => error.stage(),
            Self::Math { layer, source } => {
                let error = source.stage();
                Error { message: format!("layer {layer}: {}", error.message), ..error }
            }
            Self::Diverged { .. } | Self::Collision { .. } | Self::Expert { .. } => {
                with_hint(Error::numerical(self.to_string()), self.hint())
            }
            Self::BehindNorm { .. } => with_hint(Error::input(self.to_string()), self.hint()),
            Self::MomentFile { path, message } => Error::input(message).at(path, None),
            Self::Request { .. } | Self::Experts { .. } | Self::Mismatch(_) => Error::input(self.to_string()),
        }
    }
}

impl StageFailure for DataError {
    fn stage(self) -> Error {
        let (message, line) = told(&self);
        with_hint(Error::input(message).at(self.file, line), self.hint)
    }
}

impl StageFailure for Mistakes {
    fn stage(self) -> Error {
        let rest = self.rest();
        let mut shown = self.shown.into_iter();
        let Some(first) = shown.next() else { return Error::input("the requests cannot be read") };
        let mut made = first.stage();
        for line in shown.map(|error| told(&error).0).chain(rest) {
            made.message.push_str("\n  ");
            made.message.push_str(&line);
        }
        made
    }
}

/// A data file's mistakes as those of the parameter that names the file.
pub fn all_in_field(field: &str, mistakes: Mistakes) -> Vec<FieldError> {
    let rest = mistakes.rest().map(|rest| FieldError::new(field, rest));
    let mut errors: Vec<FieldError> = mistakes.shown.into_iter().map(|error| in_field(field, error)).collect();
    errors.extend(rest);
    errors
}

/// A data file's mistake as one of the parameter that names the file.
pub fn in_field(field: &str, error: DataError) -> FieldError {
    let (message, line) = told(&error);
    let made = FieldError::new(field, message).at(error.file, line);
    let made = if error.absent { made.absent() } else { made };
    match error.hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// The message without the file, which the place names.
fn told(error: &DataError) -> (String, Option<usize>) {
    match &error.place {
        Place::File => (error.message.clone(), None),
        Place::Line(line) => (error.message.clone(), Some(*line)),
        Place::Row(row) => (format!("row {row}: {}", error.message), None),
        Place::Record(index, None) => (format!("record {index}: {}", error.message), None),
        Place::Record(index, Some(field)) => (format!("record {index}, field `{field}`: {}", error.message), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_without_memory_is_a_limit() {
        let error = EditError::Model(ModelError::OutOfMemory).stage();
        assert_eq!(error.kind, ErrorKind::Limit);
        assert!(error.hint.is_some());
    }
}
