//! Running a pipeline with the stages that come with Palinode.

use std::sync::Arc;

use palinode_engine::{Error, Observer, Pipeline, RunOptions, RunReport, Store};

/// Runs every stage whose result is not in the store. A failed stage is in the report, not an error of this function.
///
/// # Errors
/// When the selection names a stage that is not there, or the run itself cannot be kept: the store cannot be written.
pub fn run(
    pipeline: &Pipeline,
    store: &Arc<Store>,
    options: &RunOptions,
    observer: &Arc<dyn Observer>,
) -> Result<RunReport, Error> {
    palinode_engine::run(pipeline, &palinode_stages::catalogue(), store, options, observer)
}
