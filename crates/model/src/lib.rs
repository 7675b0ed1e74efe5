//! One configurable decoder in Burn, its tokenizer and its files.
//!
//! A model family is data ([`DecoderConfig`] and [`Layout`]), never code of its own: GPT-2, GPT-J and Llama are
//! points in one space (norm, positions, block shape, feed-forward, head), read from a Hugging Face `config.json`.
//!
//! * [`Checkpoint`]: safetensors files, memory-mapped and checked against the shapes that the configuration asks for.
//! * [`Decoder`]: the forward pass, block by block, so that callers can tap a layer, stop early, or start in the middle.
//! * [`Text`]: the tokenizer, with the beginning-of-sequence rules that model editing depends on.
//! * [`generate`]: greedy and seeded top-k continuation.
//! * [`save`]: a folder that transformers loads, with edited weights in place of the original ones.

mod batch;
mod block;
mod checkpoint;
mod config;
mod decoder;
mod device;
mod error;
mod families;
pub mod generate;
mod layout;
mod packing;
pub mod save;
mod text;

pub use batch::Batch;
pub use block::{Block, BlockOutput, KeyValues, Norm, Rotation};
pub use checkpoint::Checkpoint;
pub use config::{Activation, Arrangement, DecoderConfig, Family, NormKind, Positions, RotaryScaling};
pub use decoder::{Decoder, Parameters};
pub use device::select_device;
pub use error::ModelError;
pub use layout::{Layout, Orientation};
pub use packing::{Packing, pack};
pub use text::Text;
