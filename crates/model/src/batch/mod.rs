//! Token rows as batches.

pub(crate) mod grouping;
pub(crate) mod host_rows;
pub(crate) mod keys;
pub(crate) mod rows;
