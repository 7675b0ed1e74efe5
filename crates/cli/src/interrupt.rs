//! Ctrl-C: once to stop after the current unit, twice to stop at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use palinode::ErrorKind;

use crate::command_error::exit_code;
use crate::terminal::{Style, clear, complain};

/// From now on the first interrupt sets the returned flag and the second ends the process. It is the same flag whenever this is called:
/// commands that run others after each other stop wherever they are.
pub fn watch() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    Arc::clone(FLAG.get_or_init(begin))
}

fn begin() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let handled = ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            // What was finished is on disk already: results are published as they are made.
            clear();
            std::process::exit(i32::from(exit_code(ErrorKind::Interrupted)));
        }
        let style = Style::stderr();
        complain(&style.yellow("finishing this unit; press again to stop at once\n"));
    });
    if let Err(error) = handled {
        complain(&format!("note: Ctrl-C will stop at once, without finishing the current unit ({error})\n"));
    }
    flag
}

/// The first interrupt sets the returned flag without a word, for what has nothing to finish; the second ends the process.
pub fn quietly() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    // Where it cannot be heard of, it ends the process as it does any other.
    let _ = ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(exit_code(ErrorKind::Interrupted)));
        }
    });
    flag
}
