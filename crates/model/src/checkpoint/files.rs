//! Reading small files whole, with a bound on what small means.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::ModelError;

/// Bytes of a configuration or an index: real ones have thousands, or a megabyte for a thousand shards.
pub const DESCRIPTION: u64 = 16 << 20;
/// Bytes of a tokenizer: the largest vocabularies take some 35 MB.
pub const TOKENIZER: u64 = 256 << 20;

/// A text file of at most `most` bytes. Nothing is read of a longer one.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::Config`] for a file that is too large, or not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String, ModelError> {
    let io = |e| ModelError::io(path, e);
    let file = File::open(path).map_err(io)?;
    let too_large = |size: u64| ModelError::config(path, format!("{size} bytes, expected at most {most}"));
    let size = file.metadata().map_err(io)?.len();
    if size > most {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // A pipe or a file that grows has no size to be believed.
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(too_large(bytes.len() as u64));
    }
    String::from_utf8(bytes).map_err(|e| ModelError::config(path, format!("not UTF-8 text: {e}")))
}
