//! Independent computations side by side.
//!
//! Between large products, which use every core by themselves, a computation has many small steps that do not. Two of them at
//! a time fill each other's gaps.

use std::num::NonZero;
use std::thread;

use crate::is_host;
use burn::tensor::Device;

/// A graph of operations is walked recursively.
const STACK: usize = 16 << 20;

/// How many parts to make of `items` so that each has `least` or more: no more than the machine has cores; one on a device that
/// is best given everything at once.
pub fn count(device: &Device, items: usize, least: usize) -> usize {
    if !is_host(device) {
        return 1;
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    (items / least.max(1)).clamp(1, cores)
}

/// Deals batches out to a few lanes, in turn: as a rule neighbours take the same time. Each batch has the memory that its size
/// was chosen for, so there are not more than four at a time.
pub fn deal<T>(device: &Device, batches: Vec<T>) -> Vec<Vec<T>> {
    let lanes = count(device, batches.len(), 1).min(4);
    let mut dealt: Vec<Vec<T>> = (0..lanes).map(|_| Vec::new()).collect();
    for (i, batch) in batches.into_iter().enumerate() {
        dealt[i % lanes].push(batch);
    }
    dealt
}

/// Does `work` on every part, each in a thread of its own; the results in the parts' order.
///
/// Threads of the pool that products run on would not do: one that waits for its product takes up another part's work, and
/// with it locks that it may hold already.
pub fn map<T: Send, R: Send>(parts: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if parts.len() < 2 {
        return parts.into_iter().map(work).collect();
    }
    thread::scope(|scope| {
        let start = |part| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || work(part));
        let started: Vec<_> = parts.into_iter().map(|part| start(part).expect("a thread begins")).collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
