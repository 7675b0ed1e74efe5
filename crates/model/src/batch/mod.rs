//! Token rows as batches.

pub(crate) mod grouping;
pub(crate) mod rows;
