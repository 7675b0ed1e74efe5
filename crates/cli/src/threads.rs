//! Whether the system lets this program start threads at all.
//!
//! The store's index and the progress lines start threads inside libraries, which end the program where the system refuses one. So a few are
//! started at once before anything else, and a refusal is said in words.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use palinode::{Error, ErrorKind};

use crate::command_error::Failure;

/// Threads that a command may start besides those that it computes on: the index's, the lines of progress, Ctrl-C.
const FEW: usize = 8;

/// Fails where a few threads cannot be started at once.
pub fn check() -> Result<(), Failure> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let started: Vec<io::Result<thread::JoinHandle<()>>> = (0..FEW)
        .map(|_| {
            let gate = Arc::clone(&gate);
            thread::Builder::new().spawn(move || drop(gate.read()))
        })
        .collect();
    drop(closed);
    let ended: Vec<io::Result<()>> =
        started.into_iter().map(|thread| thread.map(|thread| drop(thread.join()))).collect();
    ended.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(refused(&error)))
}

/// The failure where the system refuses a thread.
pub fn refused(error: &io::Error) -> Failure {
    let error = Error::new(ErrorKind::Limit, format!("cannot start a thread: {error}"));
    error.hint("the system limits the processes of a user, and their memory: see `ulimit -u` and `ulimit -v`").into()
}
