//! Bytes of a weight file, read when they are asked for.
//!
//! Files are read and not mapped: what is mapped of a file that another program cuts short cannot be looked at, and the system ends the
//! process without a word. A read beyond the end is an error like any other. It costs one copy of each piece, which is converted to f32 anyway.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::ModelError;

/// Bytes of a header; those of the largest models have a few million.
const HEADER: u64 = 32 << 20;
/// Bytes copied at once.
const PIECE: usize = 4 << 20;

/// An open file.
pub struct Bytes {
    path: PathBuf,
    file: File,
    len: usize,
    /// Bytes that were read so far.
    taken: AtomicU64,
}

impl Bytes {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Checkpoint`] for what is no file, and for an empty one.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let bad = |message: &str| ModelError::Checkpoint { path: path.into(), message: message.into() };
        let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
        let facts = file.metadata().map_err(|e| ModelError::io(path, e))?;
        if !facts.is_file() {
            return Err(bad("it is not a file"));
        }
        if facts.len() == 0 {
            return Err(bad("the file is empty"));
        }
        let len = usize::try_from(facts.len()).map_err(|_| bad("it is larger than memory can be"))?;
        Ok(Self { path: path.into(), file, len, taken: AtomicU64::new(0) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it was when it was opened.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that were read so far, those that the system had in its cache among them.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Some of its bytes.
    ///
    /// # Errors
    /// [`ModelError::Checkpoint`] where the file has become shorter; [`ModelError::Io`].
    pub fn read(&self, range: Range<usize>) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        self.read_into(range, &mut bytes)?;
        Ok(bytes)
    }

    /// Some of its bytes, in the place of what `bytes` held.
    ///
    /// # Errors
    /// As [`Bytes::read`].
    pub fn read_into(&self, range: Range<usize>, bytes: &mut Vec<u8>) -> Result<(), ModelError> {
        bytes.resize(range.len(), 0);
        self.taken.fetch_add(range.len() as u64, Ordering::Relaxed);
        read_at(&self.file, bytes, range.start as u64).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ModelError::Checkpoint {
                path: self.path.clone(),
                message: format!("it became shorter while it was read: it had {} bytes", self.len),
            },
            _ => ModelError::io(&self.path, error),
        })
    }

    /// Copies some of its bytes into `target`, which lies at `to`.
    ///
    /// # Errors
    /// As [`Bytes::read`]; [`ModelError::Io`] where they cannot be written.
    pub fn copy(&self, range: Range<usize>, target: &mut impl Write, to: &Path) -> Result<(), ModelError> {
        let mut bytes = Vec::new();
        for from in range.clone().step_by(PIECE) {
            self.read_into(from..(from + PIECE).min(range.end), &mut bytes)?;
            target.write_all(&bytes).map_err(|e| ModelError::io(to, e))?;
        }
        Ok(())
    }

    /// The header of a safetensors file, and where the tensors' data begin.
    ///
    /// # Errors
    /// [`ModelError::Checkpoint`] where it does not describe the file.
    pub fn header(&self) -> Result<(usize, Metadata), ModelError> {
        let bad = |message: String| ModelError::Checkpoint { path: self.path.clone(), message };
        let wrong = |error: SafeTensorError| bad(error.to_string());
        if self.len < LENGTH {
            return Err(wrong(SafeTensorError::HeaderTooSmall));
        }
        let mut length = [0; LENGTH];
        length.copy_from_slice(&self.read(0..LENGTH)?);
        let length = u64::from_le_bytes(length);
        if length > HEADER {
            return Err(bad(format!("its header would have {length} bytes, expected at most {HEADER}")));
        }
        let begin = LENGTH + length as usize;
        if begin > self.len {
            return Err(wrong(SafeTensorError::InvalidHeaderLength));
        }
        let text = self.read(LENGTH..begin)?;
        let text = std::str::from_utf8(&text).map_err(|e| wrong(SafeTensorError::InvalidHeader(e)))?;
        let header: Header =
            serde_json::from_str(text).map_err(|e| wrong(SafeTensorError::InvalidHeaderDeserialization(e)))?;
        let mut tensors: Vec<(String, TensorInfo)> = header.tensors.into_iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let end = tensors.last().map_or(0, |(_, info)| info.data_offsets.1);
        let header = Metadata::new(header.metadata, tensors).map_err(wrong)?;
        if begin.checked_add(end) != Some(self.len) {
            return Err(wrong(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok((begin, header))
    }
}

/// Bytes of a header's length.
const LENGTH: usize = 8;

/// A header as it is written.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: HashMap<String, TensorInfo>,
}

/// Fills `bytes` with what stands at a place of a file, which several threads may read at once.
#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[count..];
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a mapped file would end the process with, by a signal.
    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, vec![1; 3 << 20]).unwrap();
        let bytes = Bytes::open(&path).unwrap();
        assert_eq!(bytes.read((2 << 20)..(2 << 20) + 3).unwrap(), [1; 3]);
        File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(bytes.read(0..3).unwrap(), [1; 3]);
        let error = bytes.read((2 << 20)..(2 << 20) + 3).unwrap_err();
        assert!(error.to_string().contains("became shorter while it was read: it had 3145728 bytes"), "{error}");
        let copied = bytes.copy(0..bytes.len(), &mut Vec::new(), &path);
        assert!(copied.is_err());
    }
}
