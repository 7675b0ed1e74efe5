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
mod checkpoint;
mod config;
mod decoder;
mod device;
mod error;
mod tokens;

pub use batch::Batch;
pub use batch::packing::{Packing, pack};
pub use checkpoint::inspect::{EditableWeight, Inspection, MemoryNeeds, Shard, TokenizerFacts, inspect, request_bytes};
pub use checkpoint::layout::{Layout, Orientation};
pub use checkpoint::{Checkpoint, save};
pub use config::precision::Precision;
pub use config::{Activation, Arrangement, DecoderConfig, Family, NormKind, Positions, RotaryScaling};
pub use decoder::block::{Block, BlockOutput, KeyValues, Norm, Rotation};
pub use decoder::forks::Forks;
pub use decoder::work::Work;
pub use decoder::{Decoder, Parameters, generate, lanes};
pub use device::card::{Capability, Card, Compiler, Cuda, Version};
pub use device::host::read;
pub use device::join::join;
pub use device::pick::pick;
pub use device::product::product;
pub use device::rate::product_rate;
pub use device::room::Starved;
pub use device::{free_memory, is_host, memory, select_device, total_memory};
pub use error::ModelError;
pub use tokens::Text;
