//! Token rows as batches.

pub(crate) mod grouping;
pub(crate) mod host_rows;
pub(crate) mod rows;
