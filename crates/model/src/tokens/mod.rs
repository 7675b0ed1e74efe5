//! Text to tokens and back.

mod text;

pub use text::Text;
