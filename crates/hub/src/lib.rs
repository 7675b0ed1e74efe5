//! Models and data sets of the Hugging Face Hub: references to them, the cache that other programs share, downloads.
//!
//! The cache's folders, the variables `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`
//! and the routes are those of `huggingface_hub`. Nothing here uses the network but [`Hub::fetch`].

mod blob;
mod cache;
mod client;
mod error;
mod hub;
mod listing;
mod reference;

pub use error::HubError;
pub use hub::{Hub, Progress, Snapshot};
pub use reference::{Kind, Reference};
