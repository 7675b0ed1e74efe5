//! Models and data sets of the Hugging Face Hub: references to them, the cache that other programs share, downloads.
//!
//! The cache's folders, the variables `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`
//! and the routes are those of `huggingface_hub`. Nothing here uses the network but [`Hub::fetch`] and [`Web::fetch`].
//!
//! # Why this crate exists
//!
//! The Hub's own client for Rust, `hf-hub`, was tried first. Version 1.0 brings reqwest and tokio, 284 packages in all, into a program
//! that downloads a few files once. Version 0.5 can do with ureq, but it sends the token to whatever host a download is redirected to,
//! checks no digest, does not escape names that come from the server, and panics on answers that it does not expect. What Palinode needs
//! of the Hub is small: list a revision, fetch its files, and keep them in the cache that other programs share. This crate does that
//! with ureq alone. The token goes to the endpoint's own host and to no other. What arrives is kept only if it has the digest that the
//! server names for large files, and the size that it names for all. Names are escaped, and refused where they would leave their folder.
//! Whatever a server answers that is not understood ends in an error that says so.

mod blob;
mod cache;
mod client;
mod error;
mod hub;
mod listing;
mod reference;
mod shards;
mod web;

pub use error::HubError;
pub use hub::{FORBIDDEN, Hub, Progress, Snapshot};
pub use listing::COMPANIONS;
pub use reference::{Kind, Reference};
pub use shards::Shards;
pub use web::{Web, is_address};
