//! What all targets share.

pub mod lowered_features;
