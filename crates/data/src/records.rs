//! Records of a file: the elements of one JSON array, one JSON object a line, or the rows of a CSV file or a Parquet table; one at a time,
//! none larger than a limit.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::csv_rows::Cells;
use crate::documents::plain;
use crate::stream::{self, Packing};
use crate::unique::Unique;
use crate::{DataError, EditRequest, Mistakes, Place, csv_rows, rows};

/// A file of requests is read whole: 512 MiB, ten times the largest in use.
const LARGEST_FILE: u64 = 512 << 20;
/// A record takes a few KiB: 4 MiB.
const LARGEST_RECORD: usize = 4 << 20;

/// What a reader of records says of a record: the field at fault, and what is wrong.
pub type Fault = (Option<String>, String);

/// Takes a record: its number, its line where it has one, and what was read.
type Take<'a> = dyn FnMut(usize, Option<usize>, Result<Value, String>) + 'a;

/// Turns every record of a file into a request by `make`, which gets the record's number; all mistakes at once.
pub fn requests<R: DeserializeOwned>(
    path: &Path,
    hint: &str,
    make: impl Fn(usize, R) -> Result<EditRequest, Fault>,
) -> Result<Vec<EditRequest>, Mistakes> {
    read(path, hint, |index, record| one(index, record, &make))
}

/// As [`requests`], where a record may be several requests, which `make` checks.
pub fn lists<R: DeserializeOwned>(
    path: &Path,
    hint: &str,
    make: impl Fn(usize, R) -> Result<Vec<EditRequest>, Fault>,
) -> Result<Vec<EditRequest>, Mistakes> {
    let lists = read(path, hint, |index, record| typed(record).and_then(|record| make(index, record)))?;
    Ok(lists.into_iter().flatten().collect())
}

/// Turns every record of a file into something by `make`, which gets the record's number; all mistakes at once.
pub fn read<T>(path: &Path, hint: &str, make: impl Fn(usize, Value) -> Result<T, Fault>) -> Result<Vec<T>, Mistakes> {
    read_as(path, hint, Cells::Json, |index, _, record| make(index, record))
}

/// Records of a file with the line of each, where it has one; cells of a CSV file are text.
pub fn with_lines(path: &Path) -> Result<Vec<(Option<usize>, Value)>, Mistakes> {
    read_as(path, "", Cells::Text, |_, line, record| Ok((line, record)))
}

/// As [`read`], with cells of a CSV file as this; `make` also gets the record's line, where it has one.
fn read_as<T>(
    path: &Path,
    hint: &str,
    cells: Cells,
    make: impl Fn(usize, Option<usize>, Value) -> Result<T, Fault>,
) -> Result<Vec<T>, Mistakes> {
    let table = table(path)?;
    let text = if table.is_none() { stream::read_text(path, LARGEST_FILE)? } else { String::new() };
    let mut all = Vec::new();
    let mut mistakes = Mistakes::default();
    let mut take = |index: usize, line: Option<usize>, value: Result<Value, String>| {
        let made = value.map_err(|message| (None, message)).and_then(|record| make(index, line, record));
        match made {
            Ok(made) => all.push(made),
            Err((field, message)) => mistakes.add(told(path, index, line, field, message, hint)),
        }
    };
    let body = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if let Some(records) = table {
        records.into_iter().enumerate().for_each(|(index, record)| take(index, None, Ok(record)));
    } else if body.starts_with('[') {
        array(body, &mut take).map_err(|error| {
            // Lines before the array count.
            let before = text[..text.len() - body.len()].matches('\n').count();
            let message = format!("not a JSON array of records: {}", error.message);
            DataError::new(path, Place::Line(before + error.line), message).hint(hint)
        })?;
    } else if let Some(message) = one_object(body) {
        return Err(DataError::new(path, Place::File, message).hint(hint).into());
    } else if let Some(table) = csv_rows::open(body, cells) {
        let before = text[..text.len() - body.len()].matches('\n').count();
        table.rows(LARGEST_RECORD, |index, line, value| take(index, Some(before + line), value));
    } else {
        let mut index = 0;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate().map(|(i, line)| (i + 1, line)) {
            if line.trim().is_empty() {
                continue;
            }
            let value = match line.len() {
                0..=LARGEST_RECORD => serde_json::from_str(line).map_err(|error| plain(&error)).and_then(Unique::value),
                _ => Err(too_large()),
            };
            take(index, Some(number), value);
            index += 1;
        }
    }
    if mistakes.count > 0 { Err(mistakes) } else { Ok(all) }
}

/// What is wrong with a text that is one JSON object over several lines: the records may be a list in it.
fn one_object(text: &str) -> Option<String> {
    if !text.starts_with('{') || text.lines().next().is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()) {
        return None;
    }
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) else { return None };
    let lists: Vec<String> =
        object.iter().filter(|(_, value)| value.is_array()).map(|(name, _)| format!("`{name}`")).collect();
    let lists = if lists.is_empty() { String::new() } else { format!("; it has lists: {}", lists.join(", ")) };
    Some(format!("the file is one JSON object, expected a list of records, or an object a line{lists}"))
}

/// The rows of a Parquet table; `None` for a file that is none, or that cannot be opened.
fn table(path: &Path) -> Result<Option<Vec<Value>>, DataError> {
    let Ok(mut file) = File::open(path) else { return Ok(None) };
    if !stream::packing(&mut file).is_ok_and(|packing| packing == Packing::Parquet) {
        if path.extension().is_some_and(|end| end == "parquet") {
            let message = "the file is named like a Parquet table and is none";
            return Err(DataError::new(path, Place::File, message).hint("download or copy the file again"));
        }
        return Ok(None);
    }
    if file.metadata().is_ok_and(|file| file.len() > LARGEST_FILE) {
        let message = format!("the file is larger than {} MiB", LARGEST_FILE >> 20);
        return Err(DataError::new(path, Place::File, message));
    }
    rows::read(path, file).map(Some)
}

/// One record by itself, as `make` turns it into a request.
pub fn one<R: DeserializeOwned>(
    index: usize,
    record: Value,
    make: impl Fn(usize, R) -> Result<EditRequest, Fault>,
) -> Result<EditRequest, Fault> {
    let request = typed(record).and_then(|record| make(index, record))?;
    request.check().map_err(|(field, message)| (Some(field.to_owned()), message))?;
    Ok(request)
}

/// A record's fields.
pub fn typed<R: DeserializeOwned>(value: Value) -> Result<R, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        ((field != ".").then_some(field), error.into_inner().to_string())
    })
}

/// Optional lists and mappings: `null`, as other programs write what they lack, is none.
pub fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// The mistake of a record, at its line where it has one.
pub fn told(
    path: &Path,
    index: usize,
    line: Option<usize>,
    field: Option<String>,
    message: String,
    hint: &str,
) -> DataError {
    let shape = message.starts_with("missing field") || message.starts_with("unknown field") || field.is_none();
    let error = match (line, field) {
        (None, field) => DataError::new(path, Place::Record(index, field), message),
        (Some(line), Some(field)) => DataError::new(path, Place::Line(line), format!("{field}: {message}")),
        (Some(line), None) => DataError::new(path, Place::Line(line), message),
    };
    if shape { error.hint(hint) } else { error }
}

fn too_large() -> String {
    format!("the record is larger than {} MiB", LARGEST_RECORD >> 20)
}

struct Broken {
    line: usize,
    message: String,
}

/// Reads the elements of an array; each in memory by itself.
fn array<'a>(text: &str, take: &'a mut Take<'a>) -> Result<(), Broken> {
    let left = Cell::new(LARGEST_RECORD);
    let mut reader = serde_json::Deserializer::from_reader(Rationed { text: text.as_bytes(), left: &left });
    let read = reader.deserialize_seq(Elements { take, left: &left }).and_then(|()| {
        left.set(LARGEST_RECORD);
        reader.end()
    });
    read.map_err(|error| Broken {
        line: error.line().max(1),
        message: if left.get() == 0 { too_large() } else { error.to_string() },
    })
}

/// Gives the text byte by byte, and no more of it than is left.
struct Rationed<'a> {
    text: &'a [u8],
    left: &'a Cell<usize>,
}

impl Read for Rationed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = buffer.len().min(self.text.len()).min(self.left.get());
        if n == 0 && !self.text.is_empty() && !buffer.is_empty() {
            return Err(std::io::Error::other("too large"));
        }
        let (now, later) = self.text.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.text = later;
        self.left.set(self.left.get() - n);
        Ok(n)
    }
}

struct Elements<'a> {
    take: &'a mut Take<'a>,
    left: &'a Cell<usize>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(read) = elements.next_element::<Unique>()? {
            (self.take)(index, None, read.value());
            self.left.set(LARGEST_RECORD);
            index += 1;
        }
        Ok(())
    }
}
