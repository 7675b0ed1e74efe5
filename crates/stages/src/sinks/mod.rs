//! What leaves the store: exports, patched folders, reports.

pub mod export;
pub mod export_moments;
pub mod model_folder;
pub mod patch;
pub mod report;
pub mod take_off;
