//! What a decoder was made to do, in units that do not depend on the machine.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of work, since the decoder was loaded; its copies and edited versions count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens through one block each, padding included.
    pub block_tokens: u64,
    /// How many of them were padding.
    pub padding: u64,
    /// Rows through the head.
    pub head_rows: u64,
    /// Bytes of kept keys and values that were copied so that new ones could stand behind them.
    pub copied_cache: u64,
    /// Steps of generation: passes through all blocks, whatever the number of texts.
    pub passes: u64,
}

/// Counts as they grow.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    block_tokens: AtomicU64,
    padding: AtomicU64,
    head_rows: AtomicU64,
    copied_cache: AtomicU64,
    passes: AtomicU64,
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

impl Meter {
    /// So many tokens through a block, of which some are padding.
    pub fn block(&self, tokens: usize, padding: usize) {
        add(&self.block_tokens, tokens);
        add(&self.padding, padding);
    }

    pub fn head(&self, rows: usize) {
        add(&self.head_rows, rows);
    }

    pub fn copied_cache(&self, bytes: usize) {
        add(&self.copied_cache, bytes);
    }

    pub fn pass(&self) {
        add(&self.passes, 1);
    }

    pub fn read(&self) -> Work {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Work {
            block_tokens: value(&self.block_tokens),
            padding: value(&self.padding),
            head_rows: value(&self.head_rows),
            copied_cache: value(&self.copied_cache),
            passes: value(&self.passes),
        }
    }
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            block_tokens: self.block_tokens - earlier.block_tokens,
            padding: self.padding - earlier.padding,
            head_rows: self.head_rows - earlier.head_rows,
            copied_cache: self.copied_cache - earlier.copied_cache,
            passes: self.passes - earlier.passes,
        }
    }
}
