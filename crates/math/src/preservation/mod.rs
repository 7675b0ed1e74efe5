//! What a change of a weight costs: the metric of a solve, an object of its own.
//!
//! The formula of the update reads the metric through three questions: what keys become under `P⁻¹`, what a change weighs under `P`, and
//! which part of that is the change's effect on the corpus. How `P` is put together is nobody else's business, so that any objective works
//! with any metric. What the field preserves by is one expression,
//!
//! ```text
//! P = λC + ρI + Σ KₚKₚᵀ,    P⁻¹ → U (UᵀPU)⁻¹ Uᵀ under a projector UUᵀ
//! ```
//!
//! with second moments or without, with the keys of earlier rounds or without, over all directions or those of a projector. A value of it is
//! a file here that implements [`Preservation`]: [`Factor`] is `λC + ρI`, [`Ridge`] does without second moments. [`History`] adds earlier
//! rounds to any of them, and its cost is that of the metric without them; [`PartFactors`] is `λC + ρI` with a block for each part of a key;
//! [`Projector`] has no `P` to give ([`Preservation::metric`] is
//! `None`), and everything is then solved in the dual form.

mod cholesky;
mod fit;
mod halves;
mod history;
mod metric;
mod parts;
mod projector;
mod ridge;

pub use cholesky::Factor;
pub use fit::Fit;
pub use halves::difference_of_updates;
pub use history::History;
pub use metric::{Change, Preservation, PreservationKind, PreservationWeights, Projection};
pub use parts::PartFactors;
pub use projector::{Cut, Projector, Spectrum, Threshold};
pub use ridge::Ridge;
