//! What can be wrong with a model folder.

use std::path::PathBuf;

use crate::{Precision, WeightId};

/// A failure to read, understand, run or write a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file that the model needs is not in its folder.
    #[error("{folder} has no {name}")]
    MissingFile {
        /// The model folder.
        folder: PathBuf,
        /// The file's name.
        name: String,
        /// What to do.
        hint: String,
    },
    /// `config.json` is not what a supported model writes.
    #[error("{path}: {message}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A safetensors file is damaged or not one.
    #[error("{path} is not a whole safetensors file: {message}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A GGUF file is damaged, or holds what is not read.
    #[error("{path} is not a GGUF file that can be read: {message}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// `model.safetensors.index.json` is not an index of this folder's files.
    #[error("{path}: {message}")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The checkpoint has a tensor in a block that the family, as configured, does not have.
    #[error("the checkpoint has a tensor {name}, which {family} as config.json describes it does not have")]
    Unused {
        /// The tensor.
        name: String,
        /// The family's name.
        family: &'static str,
    },
    /// The weights are larger than the memory that is free.
    #[error("the model's weights take {} in {}, and {} of memory are free", gib(*needed), precision.name(), gib(*available))]
    Memory {
        /// Bytes that the weights take.
        needed: u64,
        /// The type that they are held in.
        precision: Precision,
        /// Bytes that are free.
        available: u64,
    },
    /// The checkpoint lacks a tensor.
    #[error("the checkpoint has no tensor {name}")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The stored name that looks most like it.
        nearest: Option<String>,
    },
    /// A tensor has another shape than `config.json` implies.
    #[error("tensor {name} has shape {found:?}, but config.json implies {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// As configured.
        expected: Vec<usize>,
        /// As stored.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that cannot be read as floats.
    #[error("tensor {name} is stored as {found}; f32, f16 and bf16 are read")]
    Dtype {
        /// The tensor.
        name: String,
        /// The stored type.
        found: String,
    },
    /// A changed weight has a value that its stored type cannot hold.
    #[error("tensor {name}: the changed weight has the value {value:e}, which does not fit into {dtype}")]
    Overflow {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
        /// The type in which the model stores it.
        dtype: String,
    },
    /// The tokenizer file is damaged or of an unknown kind.
    #[error("{path}: {message}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library said.
        message: String,
    },
    /// A text could not be tokenized.
    #[error("tokenizing {text:?}: {message}")]
    Tokenize {
        /// The text.
        text: String,
        /// What the tokenizers library said.
        message: String,
    },
    /// Prompts cannot be put as a chat's messages.
    #[error("{message}")]
    Chat {
        /// Why not.
        message: String,
    },
    /// A layer index past the end.
    #[error("layer {layer} is out of range: the model has layers 0 to {last}")]
    Layer {
        /// As asked.
        layer: usize,
        /// The last layer.
        last: usize,
    },
    /// A weight that the model does not have.
    #[error("{family} has no weight {weight}")]
    Weight {
        /// As asked.
        weight: WeightId,
        /// The family's name.
        family: &'static str,
    },
    /// A prompt longer than the model's context.
    #[error("a prompt of {tokens} tokens is longer than the model's context of {context}: {text:?}")]
    TooLong {
        /// Tokens in the prompt.
        tokens: usize,
        /// The model's context.
        context: usize,
        /// The prompt's beginning.
        text: String,
    },
    /// No device has this name.
    #[error("cannot compute on {name}")]
    UnknownDevice {
        /// As asked.
        name: String,
    },
    /// The device asked for is not there, or lacks something.
    #[error("cannot compute on {name}")]
    Device {
        /// As asked.
        name: String,
        /// What is missing, and how to get it.
        hint: String,
    },
    /// The tensor library could not hand a result back.
    #[error("reading a tensor back from the device: {0}")]
    Readback(String),
    /// The device lacks memory for what it was given.
    #[error("the device has no memory left")]
    OutOfMemory,
}

impl ModelError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingFile { hint, .. } | Self::Device { hint, .. } => Some(hint.clone()),
            Self::UnknownDevice { .. } => Some("use auto, cpu, cuda or cuda:N".into()),
            Self::Checkpoint { .. } | Self::Tokenizer { .. } => Some("download or copy the file again".into()),
            Self::MissingTensor { nearest: Some(name), .. } => {
                Some(format!("the nearest name in it is {name}; does config.json belong to this checkpoint?"))
            }
            Self::Index { .. } => Some("download the file again, beside the shards it names".into()),
            Self::Unused { .. } => Some(
                "computing without it would give other results; does config.json belong to this checkpoint?".into(),
            ),
            Self::OutOfMemory => Some(
                "`dtype: bf16` under load_model halves what weights take; fewer layers in a covariance stage, smaller batches \
                 (`batch_tokens`, `parallel_requests`), or a GPU with more memory"
                    .into(),
            ),
            Self::Memory { precision: Precision::F32, .. } => Some(
                "`dtype: bf16` under load_model holds them in half of it; or use a machine with more memory, or a smaller model"
                    .into(),
            ),
            Self::Memory { .. } => Some("use a machine with more memory, or a smaller model".into()),
            Self::Shape { .. } => Some("does config.json belong to this checkpoint?".into()),
            Self::Chat { .. } => Some("leave `chat` out, and prompts are texts that the model continues".into()),
            Self::TooLong { .. } => Some("shorten the prompt or use fewer generated context templates".into()),
            _ => None,
        }
    }

    pub(crate) fn config(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::Config { path: path.into(), message: message.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

/// Bytes as people read them.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1u32 << 30))
}
