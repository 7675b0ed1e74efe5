//! Text to tokens and back.

pub(crate) mod facts;
mod text;

pub use text::Text;
