//! Packed rows as kernels take them.

use std::ops::Range;

use palinode_kernels::{Batch, Past, Rotation, Row};

/// What kernels have to know of a batch.
#[derive(Clone, Debug)]
pub(crate) struct HostRows {
    /// Of each row its first tokens, and the ways on from them.
    pub rows: Vec<(Range<usize>, Vec<Range<usize>>)>,
    pub rotation: Option<Rotation>,
}

impl HostRows {
    /// With what came before each row, in one layer.
    pub fn batch<'a>(&'a self, pasts: impl IntoIterator<Item = &'a Past>) -> Batch<'a> {
        let mut pasts = pasts.into_iter();
        let row = |(stem, ways): &(Range<usize>, Vec<Range<usize>>)| Row {
            past: pasts.next(),
            stem: stem.clone(),
            ways: ways.clone(),
        };
        Batch { rows: self.rows.iter().map(row).collect(), rotation: self.rotation.as_ref() }
    }
}
