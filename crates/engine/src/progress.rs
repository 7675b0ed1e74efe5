//! Progress of long work inside a stage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::event::{Event, Observer};

const NEVER: u64 = u64::MAX;

/// Counts units of work; ends when dropped. Can be shared between threads.
pub struct Progress {
    observer: Arc<dyn Observer>,
    instance: String,
    what: String,
    total: Option<u64>,
    done: AtomicU64,
    kept: AtomicU64,
    note: Mutex<String>,
    started: Instant,
    /// Milliseconds between two updates, as the observer wants them.
    pace: u64,
    /// Milliseconds from the start to the last update that was told; [`NEVER`] before the first.
    told: AtomicU64,
}

impl Progress {
    pub(crate) fn start(observer: Arc<dyn Observer>, instance: &str, what: &str, total: Option<u64>) -> Self {
        observer.event(&Event::ProgressStarted { instance: instance.to_owned(), what: what.to_owned(), total });
        Self {
            pace: observer.pace().as_millis() as u64,
            observer,
            instance: instance.to_owned(),
            what: what.to_owned(),
            total,
            done: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            note: Mutex::default(),
            started: Instant::now(),
            told: AtomicU64::new(NEVER),
        }
    }

    /// Counts `n` more units as done.
    pub fn inc(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
        self.tell();
    }

    /// Counts `n` more units as done that were found from earlier work: they say nothing of how fast this goes.
    pub fn keep(&self, n: u64) {
        self.kept.fetch_add(n, Ordering::Relaxed);
        self.inc(n);
    }

    /// Sets a short remark beside the bar, such as "loss 0.12".
    pub fn note(&self, note: impl Into<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note.into();
        self.tell();
    }

    /// Units done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        let told = self.told.load(Ordering::Relaxed);
        let due = told == NEVER || now >= told + self.pace || Some(self.done()) == self.total;
        // Whoever wins the exchange tells; the others' counts are in the total anyway.
        if due && self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.observer.event(&Event::Progress {
                instance: self.instance.clone(),
                what: self.what.clone(),
                done: self.done(),
                kept: self.kept.load(Ordering::Relaxed),
                total: self.total,
                note: self.note.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            });
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.observer.event(&Event::ProgressEnded {
            instance: self.instance.clone(),
            what: self.what.clone(),
            done: self.done(),
            seconds: self.started.elapsed().as_secs_f64(),
        });
    }
}
