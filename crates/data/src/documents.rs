//! The documents of one file of a corpus, one after another, in memory that does not grow with the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::document::{Document, there_are};
use crate::files::{CorpusFile, Format};
use crate::lines::{LONGEST, Lines};
use crate::reading::{Reading, Split};
use crate::stream::{self, Packing};
use crate::table::Column;
use crate::{DataError, Place};

/// The documents of a file.
pub enum Documents {
    /// Plain text.
    Text(Lines, Split),
    /// JSON lines with the text in a field.
    Json(Lines, String),
    /// A column of a table.
    Table(Box<Column>),
}

impl Documents {
    /// Opens a file, and tells how it is packed.
    pub fn open(file: &CorpusFile, reading: &Reading) -> Result<(Self, Packing), DataError> {
        let path = &file.path;
        let (bytes, packing) = stream::open(path)?;
        if packing == Packing::Parquet {
            return Ok((Self::Table(Box::new(Column::open(path, bytes, &reading.field)?)), packing));
        }
        if file.format == Format::Parquet {
            return Err(DataError::new(path, Place::File, "not a Parquet file: it does not begin with PAR1")
                .hint("download or copy the file again"));
        }
        let reader = stream::unpacked(bytes, packing).map_err(|e| DataError::io(path, &e))?;
        let lines = Lines::new(path, packing, reader);
        let documents = match file.format {
            Format::Jsonl => Self::Json(lines, reading.field.clone()),
            Format::Text | Format::Parquet => Self::Text(lines, reading.split),
        };
        Ok((documents, packing))
    }

    /// The next document; blank ones are passed over.
    pub fn next(&mut self) -> Result<Option<Document>, DataError> {
        match self {
            Self::Text(lines, Split::Line) => next_line(lines),
            Self::Text(lines, Split::BlankLine) => next_block(lines),
            Self::Json(lines, field) => next_record(lines, field),
            Self::Table(column) => column.next(),
        }
    }
}

fn next_line(lines: &mut Lines) -> Result<Option<Document>, DataError> {
    while let Some(line) = lines.next()? {
        let text = line.text();
        if !text.trim().is_empty() {
            return Ok(Some(Document { text: text.to_owned(), at: line.offset, size: text.len() as u32 }));
        }
    }
    Ok(None)
}

fn next_block(lines: &mut Lines) -> Result<Option<Document>, DataError> {
    let mut text = String::new();
    let mut at = 0;
    while let Some(line) = lines.next()? {
        if line.raw.trim().is_empty() {
            if text.is_empty() {
                continue;
            }
            break;
        }
        if text.is_empty() {
            at = line.offset;
        }
        text.push_str(line.raw);
        if text.len() > LONGEST {
            let place = Place::Line(line.number);
            return Err(DataError::new(
                lines.path(),
                place,
                format!("the document is longer than {} MiB without a blank line", LONGEST >> 20),
            )
            .hint("set documents: line if every line is one"));
        }
    }
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    let size = text.len() as u32;
    Ok((size > 0).then_some(Document { text, at, size }))
}

fn next_record(lines: &mut Lines, field: &str) -> Result<Option<Document>, DataError> {
    loop {
        let Some(line) = lines.next()? else { return Ok(None) };
        let json = line.text();
        if json.trim().is_empty() {
            continue;
        }
        let (at, size, number) = (line.offset, json.len() as u32, line.number);
        match field_of(json, field) {
            Ok(Some(text)) if !text.trim().is_empty() => return Ok(Some(Document { text, at, size })),
            Ok(_) => {}
            Err(message) => {
                return Err(DataError::new(lines.path(), Place::Line(number), message)
                    .hint("every line is one JSON object; `field` names the one that holds the text"));
            }
        }
    }
}

/// The text of a JSON object's field; `None` where it is null.
pub fn field_of(json: &str, field: &str) -> Result<Option<String>, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let read = Field(field).deserialize(&mut reader).and_then(|found| reader.end().map(|()| found));
    match read {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(missing(json, field)),
        Err(error) => Err(plain(&error)),
    }
}

#[expect(clippy::zero_sized_map_values, reason = "serde skips the values; a set it would read from an array")]
fn missing(json: &str, field: &str) -> String {
    let names: BTreeMap<String, IgnoredAny> = serde_json::from_str(json).unwrap_or_default();
    format!("no field `{field}`{}", there_are(names.keys().map(String::as_str)))
}

/// A JSON error within one line, with its column alone.
pub fn plain(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// Reads one field of an object as text and passes over all others, building nothing.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Option<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Option<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if name == self.0 {
                found = Some(map.next_value::<Option<String>>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The document in a record that was read again from its place in a plain file.
pub fn again(path: &Path, format: Format, record: &str, field: &str) -> Result<String, DataError> {
    let changed = || DataError::new(path, Place::File, "the file changed while it was read");
    match format {
        Format::Jsonl => field_of(record, field).ok().flatten().ok_or_else(changed),
        Format::Text | Format::Parquet => Ok(record.to_owned()),
    }
}
