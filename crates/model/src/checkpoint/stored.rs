//! Where a checkpoint's tensors lie, and how.

use std::ops::Range;

use safetensors::Dtype;

use crate::checkpoint::gguf::blocks::GgufType;
use crate::checkpoint::gguf::tensors::Arrange;

/// Where a tensor lies.
#[derive(Clone)]
pub struct Stored {
    /// Which of the files.
    pub shard: usize,
    /// How its values are stored.
    pub encoding: Encoding,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Of the file's bytes.
    pub bytes: Range<usize>,
}

/// How a tensor's values are stored.
#[derive(Clone, Copy)]
pub enum Encoding {
    /// In safetensors: row by row.
    Plain(Dtype),
    /// In GGUF: in blocks, and maybe in another order.
    Gguf(GgufType, Arrange),
}
