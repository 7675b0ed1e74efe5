//! What a decoder was made to do, in units that do not depend on the machine.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of work, since the decoder was loaded; its copies and edited versions count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens through one block each, padding included.
    pub block_tokens: u64,
    /// Rows through the head.
    pub head_rows: u64,
}

/// Counts as they grow.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    block_tokens: AtomicU64,
    head_rows: AtomicU64,
}

impl Meter {
    pub fn block(&self, tokens: usize) {
        self.block_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    pub fn head(&self, rows: usize) {
        self.head_rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub fn read(&self) -> Work {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Work { block_tokens: value(&self.block_tokens), head_rows: value(&self.head_rows) }
    }
}

impl std::ops::Sub for Work {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { block_tokens: self.block_tokens - earlier.block_tokens, head_rows: self.head_rows - earlier.head_rows }
    }
}
