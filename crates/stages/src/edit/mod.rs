//! Stages that edit: targets, distribution over layers, solve, sequence.

pub mod batch_limits;
pub mod distribute;
pub mod sequence;
pub mod solve;
pub mod suggestion;
pub mod target_cache;
pub mod targets;
