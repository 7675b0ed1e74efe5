//! Stages that edit: targets, distribution over layers, solve, sequence, after-care.

pub mod batch_limits;
pub mod care;
pub mod distribute;
pub mod finetune;
pub mod gradient_rounds;
pub mod locate;
mod lost;
pub mod preservation;
pub mod prune;
pub mod rect;
pub mod revive;
pub mod round_care;
pub mod sequence;
pub mod solve;
pub mod sphere;
pub mod suggestion;
pub mod target_cache;
pub mod targets;
pub mod ultraedit;
