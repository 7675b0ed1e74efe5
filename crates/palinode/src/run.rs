//! Running a pipeline with the stages that come with Palinode.

use std::sync::Arc;

use palinode_engine::{Error, Observer, Pipeline, RunOptions, RunReport, Store};

/// Starts the threads that stages compute on, so that a system that refuses them is met before the work. [`run`] does it by itself.
///
/// # Errors
/// Of kind limit, with what the system answered.
pub fn start_threads() -> Result<(), Error> {
    palinode_stages::start_threads()
}

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
    start_threads()?;
    palinode_engine::run(pipeline, &palinode_stages::catalogue(), store, options, observer)
}
