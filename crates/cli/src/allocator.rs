//! The allocator of the program.
//!
//! Tensors of tens of megabytes come and go with every operation. An allocator that hands their pages back to the system each
//! time has the system clear them again each time, which took a quarter of the time of finding targets.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, the same in its versions 2 and 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds for which freed pages are kept, ten times that for the largest: longer than an operation takes, shorter than a
/// stage.
const KEPT: std::ffi::c_long = 300;

/// Has freed memory kept for a while.
pub fn keep_pages() {
    // SAFETY: sets a number under a lock-free option table; any thread may do so at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT) }
}
