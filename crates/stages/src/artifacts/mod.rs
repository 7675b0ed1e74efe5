//! What passes between stages: how each kind of artifact is written and read.

pub mod deltas;
pub mod factors;
pub mod model;
pub mod moments;
pub mod tensors;
pub mod update;
