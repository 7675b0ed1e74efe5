//! The threads that stages compute on.

use palinode_engine::{Error, ErrorKind};
use palinode_model::worker_pool;

/// Starts them: see [`worker_pool::start`].
///
/// # Errors
/// Of kind limit, with what the system answered.
pub fn start_threads() -> Result<(), Error> {
    worker_pool::start().map_err(|error| {
        Error::new(ErrorKind::Limit, format!("cannot start the threads to compute on: {error}")).hint(
            "the system limits the processes of a user, and their memory: `ulimit -u` and `ulimit -v` show how many",
        )
    })
}
