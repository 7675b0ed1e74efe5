//! One configurable decoder in Burn, its tokenizer and its files.
//!
//! A model family is data ([`DecoderConfig`] and [`Layout`]), never code of its own: all families are points in one space (norms and where
//! they stand, positions, windows, block shape, feed-forward, caps and multipliers, head), read from a Hugging Face `config.json`.
//!
//! * [`Checkpoint`]: safetensors files or a GGUF file, checked against the shapes that the configuration asks for.
//! * [`Decoder`]: the forward pass, block by block, so that callers can tap a layer, stop early, or start in the middle.
//! * [`Rows`]: token rows as a batch; padded or packed is this crate's business alone. [`Decoder::shared_prefix`]: texts that share their
//!   beginning, which is computed once for all of them.
//! * [`Visit`]: many batches through blocks that are in memory, or read from disk one at a time ([`Decoder::stream`]).
//! * [`Decoder::restored_runs`]: runs of a text in which some values are another run's.
//! * [`Suffix`]: what a vector added in the middle of a computation can change.
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

pub use batch::keys::{Keys, KeysOfPart};
pub use batch::rows::{Activations, Places, Rows};
pub use checkpoint::gguf::write::{
    EditedType, companions_of_gguf, copy_gguf_with_changes, is_gguf, licence_of_gguf, write_gguf_as_safetensors,
};
pub use checkpoint::inspect::{
    EditableWeight, Inspection, MemoryNeeds, Shard, inspect, request_bytes, request_bytes_streamed,
};
pub use checkpoint::layout::{Layout, Orientation};
pub use checkpoint::{Checkpoint, save};
pub use config::compute::Compute;
pub use config::experts::{ExpertId, Experts};
pub use config::precision::Precision;
pub use config::published::PublishedEdit;
pub use config::weight::{MlpModule, WeightId};
pub use config::{
    Activation, Arrangement, Beyond, DecoderConfig, Family, HeadNorm, LayerRotary, NormKind, Positions, Rotary,
    RotaryScaling,
};
pub use decoder::block::{Block, BlockOutput, FeedForward, Inner, Norm, Router};
pub use decoder::host::kernel_product;
pub use decoder::parameters::Parameters;
pub use decoder::restore::{Asked, NoisyText, Part, Restored, Runs};
pub use decoder::said::{HeadLosses, Said};
pub use decoder::source::Streaming;
pub use decoder::suffix::{Run, Suffix, SuffixBuilder};
pub use decoder::walk::Visit;
pub use decoder::work::Work;
pub use decoder::{Decoder, generate, worker_pool};
pub use device::capacity::OutOfMemory;
pub use device::cat::cat;
pub use device::gather::gather;
pub use device::gpu::{Capability, Compiler, Cuda, Gpu, Version};
pub use device::matmul::matmul;
pub use device::numbers::add_key_products;
pub use device::readback::read;
pub use device::softmax::{Softmax, log_softmax, softmax};
pub use device::throughput::{kernel_throughput, matmul_throughput};
pub use device::{free_memory, is_cpu, memory, select_device, total_memory};
pub use error::ModelError;
pub use tokens::Text;
pub use tokens::chat;
pub use tokens::facts::TokenizerFacts;
