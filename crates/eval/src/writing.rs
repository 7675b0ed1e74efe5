//! Longer texts that a model writes.

use palinode_model::generate::{Prompt, Sampling, generate_all};
use palinode_model::{Decoder, ModelError, Text};

/// How texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writing {
    /// Number of tokens of a text, including its prompt.
    pub length: usize,
    /// Each token is one of so many most probable ones, drawn in proportion to its probability.
    pub top_k: usize,
    /// Seed. Each prompt has its own stream of it, so that a text does not depend on the others.
    pub seed: u64,
}

/// Prompts and what the model makes of them, as one text each.
///
/// # Errors
/// [`ModelError::Tokenize`]; [`ModelError::TooLong`] for a prompt that is longer than the context.
pub fn write(decoder: &Decoder, text: &Text, prompts: &[String], writing: &Writing) -> Result<Vec<String>, ModelError> {
    let sampling = Sampling::TopK { k: writing.top_k, seed: writing.seed };
    let prompt = |prompt: &String| {
        let tokens = text.encode(prompt)?;
        Ok(Prompt { length: writing.length.max(tokens.len()), stream: stream(prompt), tokens })
    };
    let prompts = prompts.iter().map(prompt).collect::<Result<Vec<_>, ModelError>>()?;
    generate_all(decoder, &prompts, sampling, text.end())?.iter().map(|ids| text.decode(ids)).collect()
}

/// FNV-1a.
fn stream(prompt: &str) -> u64 {
    prompt.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
