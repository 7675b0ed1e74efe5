//! Stages that measure a model on text: second moments and their factors.

pub mod covariance;
mod documents;
pub mod factor;
mod held_out;
pub mod merge_moments;
mod part_sums;
mod until_sure;
