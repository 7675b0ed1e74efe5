//! Which instructions a CPU has, found out once while the program runs; and who computes.

/// How many threads an operation may use. Results are the same to the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The caller's alone.
    One,
    /// Those of rayon's pool, where there is enough to do.
    All,
}

impl Threads {
    /// Whether there is no other thread to share with: handing work over would take as long as some of it.
    pub(crate) fn alone(self) -> bool {
        self == Self::One || rayon::current_num_threads() == 1
    }
}

/// Runs `work`, compiled for the widest vectors that this CPU has. What it calls must be inlined into it.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// As [`vectorised`], for work that names the instructions itself.
#[inline(always)]
pub(crate) fn with_simd<W: pulp::WithSimd>(work: W) -> W::Output {
    pulp::Arch::new().dispatch(work)
}

/// Numbers that several threads write to, each its own part of them.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    start: *mut f32,
    length: usize,
}

// SAFETY: whoever calls `part` promises that no two parts overlap.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(values: &mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), length: values.len() }
    }

    /// The room of a vector, from its beginning: numbers that may not have been written yet.
    pub fn room(vector: &mut Vec<f32>) -> Self {
        Self { length: vector.capacity(), start: vector.as_mut_ptr() }
    }

    /// Where a part begins, whether its numbers were written before or not.
    ///
    /// # Safety
    /// As [`Shared::part`].
    #[inline(always)]
    pub unsafe fn place(self, from: usize, count: usize) -> *mut f32 {
        assert!(from + count <= self.length, "a part lies within the whole");
        // SAFETY: within what was allocated.
        unsafe { self.start.add(from) }
    }

    /// A part, as one slice. Its numbers were written before.
    ///
    /// # Safety
    /// The slice that this was made from is still borrowed, and no other part that overlaps with this one is in use.
    #[inline(always)]
    pub unsafe fn part<'a>(self, from: usize, count: usize) -> &'a mut [f32] {
        assert!(from + count <= self.length, "a part lies within the whole");
        // SAFETY: within the slice; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), count) }
    }
}
