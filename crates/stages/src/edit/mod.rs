//! Stages that edit: targets, distribution over layers, solve, sequence, after-care.

pub mod batch_limits;
pub mod distribute;
pub mod finetune;
pub mod gradient_rounds;
mod lost;
pub mod rect;
pub mod sequence;
pub mod solve;
pub mod suggestion;
pub mod target_cache;
pub mod targets;
pub mod ultraedit;
