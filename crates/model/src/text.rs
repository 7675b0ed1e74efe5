//! The tokenizer and the beginning-of-sequence rules that editing depends on.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::ModelError;

/// Text to tokens and back, as Hugging Face's fast tokenizers do it.
#[derive(Clone)]
pub struct Text {
    tokenizer: Tokenizer,
    /// Tokens that the tokenizer puts before every text.
    prefix: usize,
    /// The end-of-text token, where one of the usual names is in the vocabulary.
    end: Option<u32>,
}

impl Text {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] for a damaged file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let bad = |e: tokenizers::Error| ModelError::Tokenizer { path: path.into(), message: e.to_string() };
        let mut tokenizer = Tokenizer::from_file(path).map_err(bad)?;
        // Padding and truncation belong to whoever forms a batch.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(bad)?;
        let prefix = tokenizer.encode("", true).map_err(bad)?.len();
        let end = ["<|endoftext|>", "</s>", "<|end_of_text|>"].iter().find_map(|t| tokenizer.token_to_id(t));
        Ok(Self { tokenizer, prefix, end })
    }

    /// Tokens of a text, beginning-of-sequence included where the tokenizer adds it.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|e| ModelError::Tokenize { text: text.chars().take(80).collect(), message: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a continuation: `text` gets a leading space if it has none, and what the tokenizer puts before every
    /// text is dropped.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn encode_target(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let spaced = if text.starts_with(' ') { text.to_string() } else { format!(" {text}") };
        let mut ids = self.encode(&spaced)?;
        ids.drain(..self.prefix.min(ids.len()));
        Ok(ids)
    }

    /// Index of the last token of `before + subject` in any text that begins so: the *fact token*. The text after the
    /// subject is not looked at, as in the reference implementations.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn last_token(&self, before_and_subject: &str) -> Result<usize, ModelError> {
        Ok(self.encode(before_and_subject)?.len().saturating_sub(1))
    }

    /// Text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|e| ModelError::Tokenize { text: format!("{ids:?}"), message: e.to_string() })
    }

    /// Number of tokens put before every text (1 with a beginning-of-sequence token, else 0).
    pub fn prefix(&self) -> usize {
        self.prefix
    }

    /// The end-of-text token.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("vocabulary", &self.vocabulary()).field("prefix", &self.prefix).finish()
    }
}
