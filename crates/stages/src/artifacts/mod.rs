//! What passes between stages: how each kind of artifact is written and read.

pub mod chat;
pub mod compute;
pub mod deltas;
pub mod factors;
pub mod locate;
pub mod measurements;
pub mod model;
pub mod moments;
pub mod plan;
pub mod requests;
pub mod solved;
pub mod streaming;
pub mod targets;
pub mod templates;
pub mod tensors;
pub mod trace;
pub mod update;
