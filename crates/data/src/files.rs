//! Which files a corpus is made of.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DataError, Place};

/// A corpus of more files than this is a mistake in a pattern.
const MOST: usize = 100_000;

/// How the texts of a file are laid out. What it is compressed with (gzip, Zstandard) is told from its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Running text.
    Text,
    /// One JSON object a line.
    Jsonl,
    /// An Apache Parquet table.
    Parquet,
}

impl Format {
    /// What a name tells, with `.gz` and `.zst` taken off: `None` where the ending is no text's.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = [".gz", ".zst"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "txt" | "text" => Some(Self::Text),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: Format,
}

/// The files that a path means: a file, every file below a folder whose ending is that of a text, or the files that a pattern
/// with `*`, `?`, `[…]` or `**` fits; sorted by name. A name that is there is no pattern.
///
/// Without a `format` each file's ending tells its own, and a lone file with another ending is plain text; with one, every
/// file of a folder belongs to it but those whose name begins with a dot.
///
/// # Errors
/// [`DataError`] where nothing is found, or a pattern or folder cannot be read.
pub fn corpus_files(path: &Path, format: Option<Format>) -> Result<Vec<CorpusFile>, DataError> {
    let mut found = Vec::new();
    if path.is_dir() {
        walk(path, format, &mut found)?;
        if found.is_empty() {
            return Err(DataError::new(path, Place::File, "the folder holds no text")
                .hint("files end in .txt, .jsonl, .json or .parquet, and .gz or .zst after that; or set `format`"));
        }
    } else if path.exists() || !is_pattern(path) {
        found.push(path.to_owned());
    } else {
        let text = path.to_str().ok_or_else(|| DataError::new(path, Place::File, "the pattern is not UTF-8"))?;
        let bad = |message: &str| DataError::new(path, Place::File, format!("not a pattern: {message}"));
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        for file in glob::glob_with(text, options).map_err(|e| bad(e.msg))? {
            let file = file.map_err(|e| DataError::io(e.path(), e.error()))?;
            if file.is_file() {
                found.push(file);
            }
            few(path, &found)?;
        }
        if found.is_empty() {
            return Err(DataError::new(path, Place::File, "no file fits the pattern").absent());
        }
    }
    found.sort();
    let format = |path: &Path| format.or_else(|| Format::of(path)).unwrap_or(Format::Text);
    Ok(found.into_iter().map(|path| CorpusFile { format: format(&path), path }).collect())
}

/// Whether a name has a wildcard.
pub fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
}

fn walk(folder: &Path, format: Option<Format>, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let io = |e: std::io::Error| DataError::io(folder, &e);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A link to a file is followed, one to a folder is not: it may lead back.
        if entry.file_type().map_err(io)?.is_dir() {
            walk(&path, format, found)?;
        } else if path.is_file() && (format.is_some() || Format::of(&path).is_some()) {
            found.push(path);
        }
        few(folder, found)?;
    }
    Ok(())
}

fn few(path: &Path, found: &[PathBuf]) -> Result<(), DataError> {
    if found.len() > MOST {
        return Err(DataError::new(path, Place::File, format!("more than {MOST} files")));
    }
    Ok(())
}
