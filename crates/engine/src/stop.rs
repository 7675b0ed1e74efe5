//! How one stage is asked to stop while the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wishes to one stage at work; the user's interrupt, which is for all, is apart.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    /// Finish the current unit, then stop.
    pub finish: Arc<AtomicBool>,
    /// End at once, where that can be had: only a process can be ended from outside.
    pub end: Arc<AtomicBool>,
}

impl Stop {
    /// Asks first for one, then for the other.
    pub fn ask(&self) {
        if self.finish.swap(true, Ordering::Relaxed) {
            self.end.store(true, Ordering::Relaxed);
        }
    }
}
