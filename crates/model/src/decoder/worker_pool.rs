//! Independent computations at the same time.
//!
//! Between large products, which use every core by themselves, a computation has many small steps that do not. Two of them at
//! a time fill each other's gaps.

use std::num::NonZero;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use crate::is_cpu;
use burn::tensor::Device;

/// A graph of operations is walked recursively.
const STACK: usize = 16 << 20;

/// How many parts to make of `items` so that each has `least` or more: no more than the machine has cores; one on a device that
/// is best given everything at once.
pub fn count(device: &Device, items: usize, least: usize) -> usize {
    if !is_cpu(device) {
        return 1;
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    (items / least.max(1)).clamp(1, cores)
}

/// Workers at a time at most, where each has a batch: every batch takes the memory that its size was chosen for.
pub const MOST: usize = 4;

/// Deals items out to at most `most` workers, in turn: as a rule neighbours take the same time.
pub fn deal<T>(device: &Device, items: Vec<T>, most: usize) -> Vec<Vec<T>> {
    let workers = count(device, items.len(), 1).min(most).max(1);
    let mut dealt: Vec<Vec<T>> = (0..workers).map(|_| Vec::new()).collect();
    for (i, item) in items.into_iter().enumerate() {
        dealt[i % workers].push(item);
    }
    dealt
}

/// Parts items into as many shares of neighbours, at most `most`, as there are workers.
pub fn share<T>(device: &Device, mut items: Vec<T>, most: usize) -> Vec<Vec<T>> {
    let each = items.len().div_ceil(count(device, items.len(), 1).min(most).max(1));
    let mut shares = Vec::new();
    while !items.is_empty() {
        shares.push(items.drain(..each.min(items.len())).collect());
    }
    shares
}

/// Does `work` on every part, each in a thread of its own; the results in the parts' order.
///
/// Threads of the pool that products run on would not do: one that waits for its product takes up another part's work, and
/// with it locks that it may hold already.
pub fn map<T: Send, R: Send>(parts: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if parts.len() < 2 {
        return parts.into_iter().map(work).collect();
    }
    let parts: Vec<Mutex<Option<T>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    let take = |part: &Mutex<Option<T>>| {
        let part = part.lock().unwrap_or_else(PoisonError::into_inner).take();
        work(part.expect("a part is taken once"))
    };
    thread::scope(|scope| {
        let start = |part| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || take(part));
        let started: Vec<_> = parts.iter().map(|part| (start(part), part)).collect();
        let ended = started.into_iter().map(|(thread, part)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The system gives no further thread: this one does the work.
            Err(_) => take(part),
        });
        ended.collect()
    })
}

/// Starts the threads that products run on, one a core, before anything needs them: where the system refuses, this is the place that says
/// so. Later calls do nothing.
///
/// # Errors
/// What the system answered.
pub fn start() -> std::io::Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let built = rayon::ThreadPoolBuilder::new().build_global();
        // Whoever uses this as a library may have made the pool already.
        let there = |error: &rayon::ThreadPoolBuildError| std::error::Error::source(error).is_none();
        built.or_else(|error| if there(&error) { Ok(()) } else { Err(error.to_string()) })
    });
    started.clone().map_err(std::io::Error::other)
}
