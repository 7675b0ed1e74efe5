//! What makes a result that result.
//!
//! [`Digest`] names contents. [`Fingerprint`] is all that can change the result of a stage, and [`Fingerprint::key`] the key that
//! the result is stored under. [`Encoder`] is the stable encoding below both: never a serialiser's output by accident.

mod digest;
mod encode;
mod fingerprint;

pub use digest::{Digest, FileRef, Key};
pub use encode::{Encoder, SCHEMA};
pub use fingerprint::{Change, Fingerprint, flatten, unflatten};
