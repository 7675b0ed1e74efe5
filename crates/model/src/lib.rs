//! One configurable decoder in Burn, its tokenizer and its files.
//!
//! A model family is data ([`DecoderConfig`] and [`Layout`]), never code of its own: GPT-2, GPT-J, GPT-NeoX, Llama,
//! Mistral and Qwen are points in one space (norm, positions, window, block shape, feed-forward, head), read from a
//! Hugging Face `config.json`.
//!
//! * [`Checkpoint`]: safetensors files, memory-mapped and checked against the shapes that the configuration asks for.
//! * [`Decoder`]: the forward pass, block by block, so that callers can tap a layer, stop early, or start in the middle.
//! * [`Forks`]: texts that share their beginning, which is run once for all of them.
//! * [`memory`]: what a model needs and what there is, looked at before anything is read.
//! * [`Text`]: the tokenizer, with the beginning-of-sequence rules that model editing depends on.
//! * [`generate`]: greedy and seeded top-k continuation.
//! * [`inspect`]: what a folder holds and takes, without reading a weight.
//! * [`save`]: a folder that transformers loads, with edited weights in place of the original ones.

mod batch;
mod block;
mod card;
mod checkpoint;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod decoder;
mod device;
mod error;
mod families;
mod fields;
mod files;
mod forks;
pub mod generate;
mod host;
mod inspect;
mod join;
pub mod lanes;
mod layout;
mod load;
pub mod memory;
mod packing;
mod pick;
mod precision;
mod product;
mod rate;
mod room;
pub mod save;
mod text;
mod work;

pub use batch::Batch;
pub use block::{Block, BlockOutput, KeyValues, Norm, Rotation};
pub use card::{Capability, Card, Compiler, Cuda, Version};
pub use checkpoint::Checkpoint;
pub use config::{Activation, Arrangement, DecoderConfig, Family, NormKind, Positions, RotaryScaling};
pub use decoder::{Decoder, Parameters};
pub use device::{free_memory, is_host, select_device, total_memory};
pub use error::ModelError;
pub use forks::Forks;
pub use host::read;
pub use inspect::{EditableWeight, Inspection, MemoryNeeds, Shard, TokenizerFacts, inspect, request_bytes};
pub use join::join;
pub use layout::{Layout, Orientation};
pub use packing::{Packing, pack};
pub use pick::pick;
pub use precision::Precision;
pub use product::product;
pub use rate::product_rate;
pub use room::Starved;
pub use text::Text;
pub use work::Work;
