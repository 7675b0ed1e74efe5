//! A plain-text corpus as documents that can be read in any order.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{DataError, Place};

/// What separates documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Every line that is not blank is a document.
    #[default]
    Line,
    /// Blank lines separate documents.
    BlankLine,
}

/// Places of documents in a file; their text is read when it is asked for.
#[derive(Debug)]
pub struct Corpus {
    path: PathBuf,
    file: File,
    /// Offset and length in bytes.
    documents: Vec<(u64, usize)>,
}

impl Corpus {
    /// Finds the documents of a file in one pass.
    ///
    /// # Errors
    /// [`DataError`] where the file cannot be read, is not UTF-8 (with the line), or holds no document.
    pub fn open(path: &Path, split: Split) -> Result<Self, DataError> {
        let io = |e: std::io::Error| DataError::io(path, &e);
        let mut reader = BufReader::new(File::open(path).map_err(io)?);
        let mut documents = Vec::new();
        let mut line = Vec::new();
        let (mut offset, mut number) = (0u64, 0usize);
        let mut open: Option<(u64, usize)> = None;
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(io)?;
            if read == 0 {
                break;
            }
            number += 1;
            let text = std::str::from_utf8(&line).map_err(|_| {
                DataError::new(path, Place::Line(number), "not UTF-8 text").hint("save the file as UTF-8")
            })?;
            let body = text.trim_end_matches(['\n', '\r']);
            let blank = body.trim().is_empty();
            match split {
                Split::Line if !blank => documents.push((offset, body.len())),
                Split::Line => {}
                Split::BlankLine if blank => documents.extend(open.take()),
                Split::BlankLine => {
                    let begin = open.map_or(offset, |(begin, _)| begin);
                    open = Some((begin, (offset - begin) as usize + body.len()));
                }
            }
            offset += read as u64;
        }
        documents.extend(open);
        if documents.is_empty() {
            return Err(DataError::new(path, Place::File, "the corpus holds no text"));
        }
        Ok(Self { path: path.into(), file: File::open(path).map_err(io)?, documents })
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there is none (never, for an opened corpus).
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Indices of the documents to read: shuffled by the seed, the first `samples` of them.
    ///
    /// A larger `samples` begins with the same documents.
    pub fn order(&self, seed: u64, samples: Option<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        order.truncate(samples.unwrap_or(usize::MAX));
        order
    }

    /// One document's text.
    ///
    /// # Errors
    /// [`DataError`] where the file changed since it was opened.
    pub fn read(&mut self, index: usize) -> Result<String, DataError> {
        let (offset, length) = self.documents[index];
        let mut bytes = vec![0; length];
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| DataError::io(&self.path, &e))?;
        String::from_utf8(bytes)
            .map_err(|_| DataError::new(&self.path, Place::File, "the file changed while it was read"))
    }
}
