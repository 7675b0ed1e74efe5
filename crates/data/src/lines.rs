//! Lines of a file, one at a time, none of them longer than a limit.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::stream::{Packing, failed};
use crate::{DataError, Place};

/// A longer line is no document but a file without line ends, or a trap: 64 MiB.
pub const LONGEST: usize = 64 << 20;

/// Lines of a stream, counted.
pub struct Lines {
    path: PathBuf,
    packing: Packing,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Lines read.
    number: usize,
    /// Bytes read, unpacked.
    offset: u64,
}

/// One line; never empty, but for its end.
pub struct Line<'a> {
    /// With its end.
    pub raw: &'a str,
    /// From 1.
    pub number: usize,
    /// Where it begins, in bytes of the unpacked stream.
    pub offset: u64,
}

impl Lines {
    pub fn new(path: &Path, packing: Packing, reader: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.into(), packing, reader, line: Vec::new(), number: 0, offset: 0 }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next line.
    pub fn next(&mut self) -> Result<Option<Line<'_>>, DataError> {
        self.line.clear();
        let offset = self.offset;
        let place = Place::Line(self.number + 1);
        loop {
            let read = match self.reader.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(&self.path, self.packing, place, &error)),
            };
            let (taken, ended) = match read.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (read.len(), read.is_empty()),
            };
            self.line.extend_from_slice(&read[..taken]);
            self.reader.consume(taken);
            self.offset += taken as u64;
            if self.line.len() > LONGEST {
                return Err(DataError::new(
                    &self.path,
                    place,
                    format!("the line is longer than {} MiB", LONGEST >> 20),
                )
                .hint("write one document a line, each of them shorter than that"));
            }
            if ended {
                break;
            }
        }
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let raw = std::str::from_utf8(&self.line).map_err(|_| DataError::not_utf8(&self.path, place))?;
        Ok(Some(Line { raw, number: self.number, offset }))
    }
}

impl<'a> Line<'a> {
    /// Without its end.
    pub fn text(&self) -> &'a str {
        self.raw.trim_end_matches(['\n', '\r'])
    }
}
