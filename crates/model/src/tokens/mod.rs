//! Text to tokens and back.

pub mod chat;
pub(crate) mod facts;
mod growth;
mod text;

pub use text::Text;
