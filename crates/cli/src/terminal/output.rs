//! The two places where text is printed: stdout for results, stderr for everything else.

use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::MultiProgress;
use palinode::Error;

use super::keys;
use super::safe::{self, safe};
use crate::command_error::Failure;

/// The progress bars, once there are any: everything else on stderr has to be written above them.
pub static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Removes the progress bars, and leaves the terminal as it was.
pub fn clear() {
    if let Some(bars) = BARS.get()
        && !CLEARED.swap(true, Ordering::Relaxed)
    {
        let _ = bars.clear();
        keys::show();
        // The bars leave the cursor at the end of the last line.
        let _ = io::stderr().write_all(b"\n");
    }
}

/// Whether they were removed.
static CLEARED: AtomicBool = AtomicBool::new(false);

/// Prints a result on stdout.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(safe(text).as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Closed),
        Err(error) => {
            // Nothing is wrong with what was asked: the place where it should go has no room, or is gone.
            let message = format!("cannot write to stdout: {error}");
            Err(Error::new(palinode::ErrorKind::Store, message).source(error).into())
        }
    }
}

/// Prints a result for programs: one JSON document.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&(safe::json(&text) + "\n")),
        Err(error) => Err(Error::internal(format!("a result cannot be written as JSON: {error}")).into()),
    }
}

/// Writes to stderr, above the progress bars where there are any. Nobody is left to tell when that fails.
pub fn complain(text: &str) {
    let write = || {
        let _ = io::stderr().lock().write_all(safe(text).as_bytes());
    };
    match BARS.get() {
        Some(bars) if !CLEARED.load(Ordering::Relaxed) => bars.suspend(write),
        _ => write(),
    }
}
