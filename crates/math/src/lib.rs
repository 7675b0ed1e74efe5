//! The mathematics of editing, in f64 on the host. Reads no file, knows no model.
//!
//! One objective unites the methods (*A Unified Framework for Model Editing*, arXiv 2403.14236): preserve what a layer
//! does to the keys of a corpus, memorize new values at the edits' keys,
//!
//! ```text
//! min over Ŵ  tr((Ŵ−W) P (Ŵ−W)ᵀ) + memorization of (K, V),    P = λC + ρI
//! Δ = Ŵ − W = R (KᵀP⁻¹K + diag μ)⁻¹ KᵀP⁻¹,                    R = V − WK
//! ```
//!
//! with `μ = 0` for ROME (one edit) and EMMET (a batch), `μ = 1` for MEMIT, and `μ = ε` for a stabilised EMMET, which
//! therefore is MEMIT with weight `ελ`.
//!
//! * [`SecondMoment`]: `C`, accumulated and merged.
//! * [`Preservation`]: the metric `P`, whatever it is made of: [`Factor`] with second moments, [`Ridge`] without,
//!   [`PartFactors`] with a block for each expert, [`Projector`] over the directions that a corpus hardly uses, [`History`] with the keys of earlier rounds on any of them.
//! * [`Fit`]: whether a second moment is that of some keys.
//! * [`Objective`]: which `μ` a method means.
//! * [`solve()`]: the update as low-rank factors, with [`Diagnostics`].
//! * [`without()`]: the same without some of its edits, from what a solve leaves.
//! * [`Delta`]: a change of a weight in any form; [`rect()`], [`prune()`], [`sphere()`], [`revive()`]: after-care, from a change to a change.
//! * [`Plan`]: which layers absorb which part of the residual, in which order.

mod care;
mod delta;
mod distribution;
mod error;
mod keys;
mod matrix;
mod moments;
mod objective;
mod preservation;
mod solve;
mod spectrum;
mod without;

pub use care::{PruneForm, Sides, prune, rect, revive, sphere};
pub use delta::{Delta, LowRank, Sparse};
pub use distribution::{Plan, Refresh, RefreshKind, Step, Strategy, StrategyKind};
pub use error::MathError;
pub use keys::PartKeys;
pub use matrix::{from_row_major, mean_column_norm, row_major};
pub use moments::{KeptPart, SecondMoment};
pub use objective::{Objective, ObjectiveKind, RomeKey};
pub use preservation::{
    Change, Cut, Factor, Fit, History, PartFactors, Preservation, PreservationKind, PreservationWeights, Projection,
    Projector, Ridge, Spectrum, Threshold, difference_of_updates,
};
pub use solve::{Diagnostics, Form, Problem, Solution, System, solve};
pub use without::without;

pub use faer::Mat;
