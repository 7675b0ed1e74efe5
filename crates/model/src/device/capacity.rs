//! Batches that become smaller where a device has no memory for them.
//!
//! How much memory a batch needs cannot be known beforehand: it depends on kernels that a backend chooses as it goes, on what its pools
//! hold back, and on other programs that use the same GPU. So a batch is tried, and halved where it had no room. The size that fitted is
//! kept for all later batches of the same decoder: trying the full size again each time would fail each time, and every failure costs what
//! was computed up to it. Only the *size* is remembered, as a number of halvings and never as a number of rows, since the next caller
//! counts in other units (tokens, requests). Smaller batches can change last digits; results say so where that matters.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::ModelError;

/// A failure that may come from too little memory on the device.
pub trait OutOfMemory {
    /// Whether it does.
    fn out_of_memory(&self) -> bool;
}

impl OutOfMemory for ModelError {
    fn out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory)
    }
}

/// How often batches were halved.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    halvings: AtomicU32,
    /// Whether batches keep the size that was asked for, whatever happens.
    fixed: bool,
}

impl Capacity {
    /// Batches are never halved: what has no room is an error.
    pub fn fixed() -> Self {
        Self { fixed: true, ..Self::default() }
    }

    /// Does `work` with batches of `asked` at most, or as many as there was room for the last time; where there is none, with half
    /// as many, and so on. `free` is called before another attempt.
    pub fn within<R, E: OutOfMemory>(
        &self,
        asked: usize,
        mut work: impl FnMut(usize) -> Result<R, E>,
        free: impl Fn(),
    ) -> Result<R, E> {
        loop {
            let halvings = self.halvings.load(Ordering::Relaxed);
            let size = asked.checked_shr(halvings).unwrap_or(0).max(1);
            match work(size) {
                Err(error) if error.out_of_memory() && size > 1 && !self.fixed => {
                    tracing::warn!("the device has no memory for batches of {size}: going on with {}", size / 2);
                    // Another thread may have found out at the same time.
                    let _ =
                        self.halvings.compare_exchange(halvings, halvings + 1, Ordering::Relaxed, Ordering::Relaxed);
                    free();
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_halved_until_there_is_room_and_stay_so() {
        let capacity = Capacity::default();
        let tried = std::cell::RefCell::new(Vec::new());
        let work = |size: usize| {
            tried.borrow_mut().push(size);
            if size > 20 { Err(ModelError::OutOfMemory) } else { Ok(size) }
        };
        assert_eq!(capacity.within(100, work, || ()).unwrap(), 12);
        assert_eq!(capacity.within(80, work, || ()).unwrap(), 10);
        assert_eq!(*tried.borrow(), [100, 50, 25, 12, 10]);
        assert!(matches!(Capacity::fixed().within(100, work, || ()), Err(ModelError::OutOfMemory)));
        assert_eq!(*tried.borrow(), [100, 50, 25, 12, 10, 100]);
    }

    #[test]
    fn what_has_no_room_alone_and_what_fails_otherwise_is_told() {
        let capacity = Capacity::default();
        let mut times = 0;
        let nothing = |_: usize| {
            times += 1;
            Err::<(), _>(ModelError::OutOfMemory)
        };
        assert!(matches!(capacity.within(4, nothing, || ()), Err(ModelError::OutOfMemory)));
        assert_eq!(times, 3);
        let other = |_: usize| Err::<(), _>(ModelError::Readback(String::new()));
        assert!(matches!(Capacity::default().within(4, other, || ()), Err(ModelError::Readback(_))));
    }
}
