//! What ends a command early, and how it is told.

use std::process::ExitCode;

use palinode_engine::{Diagnostics, ErrorKind, StageError};

use crate::terminal::{Style, complain, errors};

/// What ends a command early.
pub enum Failure {
    /// The pipeline has mistakes.
    Mistakes(Diagnostics),
    /// Something else went wrong.
    Error(StageError),
    /// Something went wrong and was told already.
    Told(ErrorKind),
    /// Whoever read the output has seen enough.
    Closed,
}

impl Failure {
    /// Tells it on stderr and gives the exit code.
    pub fn end(self) -> ExitCode {
        let style = Style::stderr();
        let kind = match self {
            Self::Mistakes(mistakes) => {
                complain(&errors::mistakes(&mistakes, &style));
                mistakes.kind()
            }
            Self::Error(error) => {
                complain(&errors::error(&error, &style));
                error.kind
            }
            Self::Told(kind) => kind,
            Self::Closed => return ExitCode::SUCCESS,
        };
        ExitCode::from(kind.exit_code())
    }
}

impl From<Diagnostics> for Failure {
    fn from(mistakes: Diagnostics) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self::Error(error)
    }
}
