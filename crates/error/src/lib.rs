//! Errors with their kinds, and the words in which people read names, sizes and times.
//!
//! Every other crate of the engine stands on this one. [`Error`] is what a stage, a store or a run ends with; its
//! [`ErrorKind`] says what sort of thing went wrong. A [`Hint`] says what can be
//! done about it. [`FieldError`] is a mistake in a parameter, found before anything runs.

mod error;
mod hint;
pub mod panics;
mod size;
mod suggest;
mod time;

pub use error::{DataPlace, Error, ErrorKind, Fetch, FieldError, plain};
pub use hint::Hint;
pub use size::{read_size, size};
pub use suggest::{did_you_mean, nearest, one_of};
pub use time::{now_ms, utc};
