//! Between a model and the mathematics: keys, targets, second moments, and edits applied layer by layer.
//!
//! * [`prompts`]: the token rows of a request, with the subject's last token found.
//! * [`probe()`]: activations at chosen tokens, in one truncated forward pass for many prompts.
//! * [`Moments`]: second moments of several layers in one pass over a corpus.
//! * [`MomentFile`]: second moments that others have published.
//! * [`optimise`]: targets by gradient descent, many requests at once.
//! * [`tune()`], [`edit_lifelong`]: edits by gradient.
//! * [`apply()`]: an objective and a plan turned into changes of weights.

mod anchor;
mod apply;
mod chain;
mod descent;
mod error;
mod findings;
mod head;
mod lifelong;
mod losses;
mod moments;
mod npz;
mod probe;
pub mod prompts;
mod target;
mod targets;
mod tune;

pub use anchor::{anchor, anchor_norm};
pub use apply::{Applied, Edit, LayerEdit, Preservations, apply, keys_of, with_edits};
pub use chain::{optimise_pieces, pieces};
pub use error::EditError;
pub use findings::{Finding, Findings, Severity, findings, shared_keys};
pub use lifelong::{
    Lifelong, LifelongEdit, LifelongSettings, RunningStatistics, Taken, edit_lifelong, solve_lifelong, take,
};
pub use moments::{Moments, keys_by_document, no_tokens, text_keys};
pub use npz::{MomentFile, Origin, Precision, write_moment};
pub use probe::{Site, Tap, TargetSite, probe};
pub use prompts::{FactToken, Prompt};
pub use target::{Step, StepRecord, StopRule, Target, TargetRules, TargetSettings};
pub use targets::{TARGETS_IN_UNIT, TargetSearch, optimise, optimise_at_most, searches, target_batch};
pub use tune::{TuneLoss, TuneSettings, Tuned, tune};
