//! Text to tokens and back.

pub(crate) mod facts;
mod growth;
mod text;

pub use text::Text;
