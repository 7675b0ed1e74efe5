//! GGUF, the file of llama.cpp, as a source of models: a configuration, a tokenizer and tensors in one file.
//!
//! What it holds is handed on as if it came from a folder in Hugging Face's layout: [`config`] makes a config.json of its metadata,
//! [`tokenizer`] a tokenizer.json, and [`tensors`] says under which of Hugging Face's names each tensor goes and how its rows are put back
//! into order. So everything behind the checkpoint knows nothing of it, and an edited model can be written in either form.
//!
//! The reader is our own. The crates for the format copy its lists into memory before they know how long the file is, bring a tensor
//! library of their own, or read no values; what is needed of it is two hundred lines.

mod architectures;
pub mod blocks;
pub mod config;
pub mod read;
pub mod tensors;
pub mod tokenizer;
pub mod write;
