//! Copies of weights that a decoder has for work that multiplies with them again and again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use palinode_kernels::Packed;

use crate::Compute;
use crate::decoder::host::HostBlock;

/// Copies of weights for the way there and the way back: those of some layers, and of the head.
pub(crate) struct Copies {
    compute: Compute,
    blocks: BTreeMap<usize, Arc<HostBlock>>,
    head: Option<[Packed; 2]>,
}

impl Copies {
    /// For products that round factors to `compute`.
    pub fn new(compute: Compute, blocks: BTreeMap<usize, Arc<HostBlock>>, head: Option<[Packed; 2]>) -> Self {
        Self { compute, blocks, head }
    }

    /// What products with them round factors to.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// A layer's block with its copies.
    pub fn block(&self, layer: usize) -> Option<Arc<HostBlock>> {
        self.blocks.get(&layer).cloned()
    }

    /// The layers whose blocks have copies, in rising order.
    pub fn layers(&self) -> impl Iterator<Item = usize> + '_ {
        self.blocks.keys().copied()
    }

    /// The head, there and back.
    pub fn head(&self) -> Option<&[Packed; 2]> {
        self.head.as_ref()
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers: Vec<_> = self.layers().collect();
        f.debug_struct("Copies").field("compute", &self.compute).field("layers", &layers).finish_non_exhaustive()
    }
}
