//! Facts about a tokenizer.

use serde::Serialize;

/// What is known of a tokenizer without a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenizerFacts {
    /// Such as "byte-level BPE".
    pub kind: String,
    /// Entries, added tokens included.
    pub vocabulary: usize,
    /// Tokens put before every text: a beginning-of-sequence token, or none.
    pub prefix: Vec<String>,
    /// The token that ends a text.
    pub end: Option<String>,
}
