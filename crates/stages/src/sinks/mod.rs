//! What leaves the store: exports, patched folders, reports.

pub mod export;
pub mod export_moments;
pub mod patch;
pub mod report;
