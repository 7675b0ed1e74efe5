//! A model folder looked at from outside a pipeline.

use std::path::Path;

use palinode_engine::Error;
pub use palinode_model::{EditableWeight, ExpertId, Experts, Inspection};

use crate::errors::StageFailure;

/// What a model folder holds and what working with it takes. No weight is read.
///
/// # Errors
/// Whatever would keep `load_model` from opening the folder, memory apart.
pub fn inspect(folder: &Path) -> Result<Inspection, Error> {
    palinode_model::inspect(folder).map_err(StageFailure::stage)
}
