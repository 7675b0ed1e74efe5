//! The tokenizer: byte-level BPE, as GPT-2's.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, TokenizerImpl};

use crate::error::{Error, at};

/// The end-of-text token.
pub const END: &str = "<|endoftext|>";

/// Trains a tokenizer of `size` tokens on the lines and writes `tokenizer.json`.
pub fn train(lines: &[String], size: usize, path: &Path) -> Result<(), Error> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer: TokenizerImpl<BPE, tokenizers::NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
        TokenizerImpl::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.train(&mut trainer, lines.iter())?;
    let text = tokenizer.to_string(true).map_err(at(path))?;
    // Read back as any other program will, so that a file that cannot be read is never left behind.
    text.parse::<Tokenizer>().map_err(at(path))?;
    std::fs::write(path, text).map_err(at(path))
}
