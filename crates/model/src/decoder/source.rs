//! Where a decoder's blocks come from.
//!
//! Whoever walks the layers asks for a block and gives it back when it has computed with it. Blocks that are resident are borrowed. Blocks
//! that are streamed are read when they are asked for, and no more than a few are in memory at the same time, whatever the size of the
//! model; who asks for one more waits until another is given back. A walk therefore holds one block at a time: nobody who waits holds a
//! block that another one waits for.
//!
//! An edit is an overlay: the changed weight is kept beside the source and takes its place in the block that is lent. The source stays as
//! it is, so that edited versions of a model share it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;

use crate::decoder::block::Block;
use crate::device::memory::MOST_STREAMED;
use crate::{MlpModule, ModelError, WeightId};

/// Reads blocks from where they are stored.
pub(crate) trait ReadBlock: Send + Sync {
    /// A layer's block, on the device.
    fn read(&self, layer: usize) -> Result<Block, ModelError>;

    /// Refuses to hold `blocks` of them in memory where they have no room.
    fn check_room(&self, blocks: usize) -> Result<(), ModelError>;

    /// How many of them have room in a share of the memory that is free; none where nobody knows how much that is.
    fn fitting(&self, share: f64) -> usize;

    /// Bytes that were read so far.
    fn bytes_read(&self) -> u64;
}

/// Of the memory that is free, what held blocks may take.
const HELD_SHARE: f64 = 0.5;

/// A decoder's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    source: BlockSource,
    /// Streamed blocks that are kept in memory for as long as this is: see [`Blocks::hold`].
    held: BTreeMap<usize, Arc<Block>>,
    /// Changed weights, `[in, out]` in f32.
    overlay: BTreeMap<WeightId, Tensor<2>>,
}

/// What lends blocks.
#[derive(Clone, Debug)]
enum BlockSource {
    /// All of them are in memory.
    Resident(Arc<Vec<Block>>),
    /// They are read when they are asked for.
    Streamed(Arc<Stream>),
}

/// What streaming took so far; edited versions of a decoder count together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streaming {
    /// Blocks that were in memory at the same time at most, those apart that [`crate::Decoder::hold`] keeps.
    pub most_in_memory: usize,
    /// How often each layer's block was read.
    pub reads: Vec<u64>,
    /// Bytes that were read of the model's files, whatever for. What of it the system had in its cache cost no disk.
    pub bytes: u64,
}

struct Stream {
    reader: Box<dyn ReadBlock>,
    /// Whether blocks that are needed again and again are held where they have room.
    holds: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The blocks in memory, those read first in front.
    slots: Vec<Slot>,
    counts: Streaming,
}

struct Slot {
    layer: usize,
    /// How many have it now.
    users: usize,
    /// None while it is read.
    block: Option<Arc<Block>>,
}

/// A block on loan; it is given back when this is dropped.
pub(crate) struct Lent<'a> {
    from: Origin<'a>,
    /// The block with its overlay, where there is one.
    changed: Option<Box<Block>>,
}

enum Origin<'a> {
    Resident(&'a Block),
    Streamed(Loan<'a>),
}

/// Someone's use of a streamed block.
struct Loan<'a> {
    stream: &'a Stream,
    layer: usize,
    block: Arc<Block>,
}

impl Blocks {
    pub fn resident(blocks: Vec<Block>) -> Self {
        Self::new(BlockSource::Resident(Arc::new(blocks)))
    }

    /// Of a model of so many layers. `holds` says whether blocks that are needed again and again are held where they have room.
    pub fn streamed(reader: Box<dyn ReadBlock>, layers: usize, holds: bool) -> Self {
        let counts = Streaming { most_in_memory: 0, reads: vec![0; layers], bytes: 0 };
        let state = Mutex::new(State { slots: Vec::new(), counts });
        Self::new(BlockSource::Streamed(Arc::new(Stream { reader, holds, state, changed: Condvar::new() })))
    }

    fn new(source: BlockSource) -> Self {
        Self { source, held: BTreeMap::new(), overlay: BTreeMap::new() }
    }

    /// Lends a layer's block, as edits left it.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn lend(&self, layer: usize) -> Result<Lent<'_>, ModelError> {
        let from = match (&self.source, self.held.get(&layer)) {
            (BlockSource::Resident(blocks), _) => Origin::Resident(&blocks[layer]),
            (_, Some(block)) => Origin::Resident(block),
            (BlockSource::Streamed(stream), None) => Origin::Streamed(stream.lend(layer)?),
        };
        let mut lent = Lent { from, changed: None };
        for (id, weight) in self.overlay.range(WeightId::down(layer)..WeightId::down(layer + 1)) {
            let mut block = Block::clone(&lent);
            block.put(id.module, weight.clone());
            lent.changed = Some(Box::new(block));
        }
        Ok(lent)
    }

    /// Has `weight` `[in, out]` in f32 stand in for one of a block's.
    pub fn replace(&mut self, id: WeightId, weight: Tensor<2>) {
        self.overlay.insert(id, weight);
    }

    /// Whether a weight stands in for one of a layer's block.
    pub fn is_changed(&self, layer: usize, module: MlpModule) -> bool {
        self.overlay.contains_key(&WeightId::new(layer, module))
    }

    /// Keeps streamed blocks in memory: what comes back to them in every step reads them once.
    ///
    /// # Errors
    /// [`ModelError::Memory`]; what reading failed at.
    pub fn hold(&mut self, layers: Range<usize>) -> Result<(), ModelError> {
        let BlockSource::Streamed(stream) = &self.source else { return Ok(()) };
        let missing: Vec<usize> = layers.filter(|layer| !self.held.contains_key(layer)).collect();
        stream.reader.check_room(missing.len())?;
        for layer in missing {
            self.held.insert(layer, Arc::new(stream.reader.read(layer)?));
            stream.lock().counts.reads[layer] += 1;
        }
        Ok(())
    }

    /// As [`Blocks::hold`], of the last of these layers as many as have room in half of the memory that is free; none where the source
    /// is to take as little memory as it can.
    ///
    /// # Errors
    /// What reading failed at.
    pub fn hold_fitting(&mut self, layers: Range<usize>) -> Result<(), ModelError> {
        let BlockSource::Streamed(stream) = &self.source else { return Ok(()) };
        if !stream.holds {
            return Ok(());
        }
        let room = stream.reader.fitting(HELD_SHARE);
        self.hold(layers.start.max(layers.end.saturating_sub(room))..layers.end)
    }

    /// Whether a layer's block stays in memory.
    pub fn is_at_hand(&self, layer: usize) -> bool {
        !self.is_streamed() || self.held.contains_key(&layer)
    }

    /// Lets streamed blocks go that nobody has now: whoever walked is at the end.
    pub fn rest(&self) {
        if let BlockSource::Streamed(stream) = &self.source {
            stream.lock().slots.retain(|slot| slot.users > 0);
        }
    }

    /// Counts of a streamed source; none of a resident one.
    pub fn streaming(&self) -> Option<Streaming> {
        match &self.source {
            BlockSource::Resident(_) => None,
            BlockSource::Streamed(stream) => {
                let counts = stream.lock().counts.clone();
                Some(Streaming { bytes: stream.reader.bytes_read(), ..counts })
            }
        }
    }

    pub fn is_streamed(&self) -> bool {
        matches!(self.source, BlockSource::Streamed(_))
    }
}

impl Stream {
    fn lend(&self, layer: usize) -> Result<Loan<'_>, ModelError> {
        let mut state = self.lock();
        loop {
            if let Some(slot) = state.slots.iter_mut().find(|slot| slot.layer == layer) {
                if let Some(block) = &slot.block {
                    slot.users += 1;
                    return Ok(Loan { stream: self, layer, block: Arc::clone(block) });
                }
            } else if state.make_room() {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.slots.push(Slot { layer, users: 1, block: None });
        state.counts.reads[layer] += 1;
        state.counts.most_in_memory = state.counts.most_in_memory.max(state.slots.len());
        drop(state);
        // Read without the lock, so that others go on with the block that they have.
        let reading = Reading { stream: self, layer };
        let block = Arc::new(self.reader.read(layer)?);
        if let Some(slot) = self.lock().slots.iter_mut().find(|slot| slot.layer == layer) {
            slot.block = Some(Arc::clone(&block));
        }
        drop(reading);
        Ok(Loan { stream: self, layer, block })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether another block may be read, which the one that was read first and is used by nobody makes room for.
    fn make_room(&mut self) -> bool {
        if self.slots.len() >= MOST_STREAMED {
            match self.slots.iter().position(|slot| slot.users == 0) {
                Some(idle) => drop(self.slots.remove(idle)),
                None => return false,
            }
        }
        true
    }
}

/// A slot whose block is being read. Where nothing comes of it, it is taken away, so that who waits for it tries to read it.
struct Reading<'a> {
    stream: &'a Stream,
    layer: usize,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.stream.lock().slots.retain(|slot| slot.layer != self.layer || slot.block.is_some());
        self.stream.changed.notify_all();
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.stream.lock().slots.iter_mut().find(|slot| slot.layer == self.layer) {
            slot.users -= 1;
        }
        self.stream.changed.notify_all();
    }
}

impl Deref for Lent<'_> {
    type Target = Block;

    fn deref(&self) -> &Block {
        match (&self.changed, &self.from) {
            (Some(block), _) => block,
            (None, Origin::Resident(block)) => block,
            (None, Origin::Streamed(loan)) => &loan.block,
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("counts", &self.lock().counts).finish_non_exhaustive()
    }
}
