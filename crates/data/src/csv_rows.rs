//! Rows of a CSV file as records: each cell under the heading of its column.

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord, Trim};
use serde_json::{Map, Value};

/// Columns that hold text, whatever it looks like. In all others a cell is JSON where it can be read as such: a number, or a list of texts.
const TEXTS: [&str; 6] = ["id", "subject", "prompt", "target_new", "target_true", "target_prefix"];

/// A table with headings.
pub struct Table<'a> {
    reader: Reader<&'a [u8]>,
    headings: StringRecord,
}

/// The table that a text is; `None` where it looks like JSON, or its first line has no second column.
pub fn open(text: &str) -> Option<Table<'_>> {
    if text.starts_with(['{', '[', '"']) || !text.lines().next()?.contains(',') {
        return None;
    }
    let mut reader = ReaderBuilder::new().trim(Trim::Headers).from_reader(text.as_bytes());
    let headings = reader.headers().ok()?.clone();
    Some(Table { reader, headings })
}

impl Table<'_> {
    /// Gives every row to `take`: its number, its line counted from 1, and the record; an empty cell is a field that is not there.
    pub fn rows(mut self, largest: usize, mut take: impl FnMut(usize, usize, Result<Value, String>)) {
        let mut row = StringRecord::new();
        for index in 0.. {
            let read = self.reader.read_record(&mut row);
            let line = row.position().map_or(1, |position| position.line() as usize);
            match read {
                Ok(false) => return,
                Ok(true) if row.as_slice().len() > largest => {
                    take(index, line, Err(format!("the record is larger than {} MiB", largest >> 20)));
                }
                Ok(true) => take(index, line, Ok(self.record(&row))),
                Err(error) => {
                    let message = match error.kind() {
                        ErrorKind::UnequalLengths { expected_len, len, .. } => {
                            format!("the row has {len} cells, and the heading {expected_len}")
                        }
                        _ => format!("not CSV: {error}"),
                    };
                    take(index, line, Err(message));
                    if !matches!(error.kind(), ErrorKind::UnequalLengths { .. }) {
                        return;
                    }
                }
            }
        }
    }

    fn record(&self, row: &StringRecord) -> Value {
        let cells = self.headings.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        let cells = cells.map(|(heading, cell)| {
            let text = || Value::String(cell.to_owned());
            let value =
                if TEXTS.contains(&heading) { text() } else { serde_json::from_str(cell).unwrap_or_else(|_| text()) };
            (heading.to_owned(), value)
        });
        Value::Object(cells.collect::<Map<_, _>>())
    }
}
