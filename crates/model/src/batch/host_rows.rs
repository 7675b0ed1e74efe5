//! Packed rows as kernels take them.

use std::ops::Range;

use palinode_kernels::{Batch, Past, Rotation, Row};

use crate::DecoderConfig;
use crate::decoder::rotation::{Both, of_layer};

/// What kernels have to know of a batch.
#[derive(Clone, Debug)]
pub(crate) struct HostRows {
    /// Of each row its first tokens, and the ways on from them.
    pub rows: Vec<(Range<usize>, Vec<Range<usize>>)>,
    pub rotation: Both<Rotation>,
}

impl HostRows {
    /// In one layer, with what came before each row.
    pub fn batch<'a>(
        &'a self,
        config: &DecoderConfig,
        layer: usize,
        pasts: impl IntoIterator<Item = &'a Past>,
    ) -> Batch<'a> {
        let mut pasts = pasts.into_iter();
        let row = |(stem, ways): &(Range<usize>, Vec<Range<usize>>)| Row {
            past: pasts.next(),
            stem: stem.clone(),
            ways: ways.clone(),
        };
        Batch { rows: self.rows.iter().map(row).collect(), rotation: of_layer(&self.rotation, config, layer) }
    }
}
