//! Rows of a CSV file as records: each cell under the heading of its column.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::{Map, Value};

/// Columns that hold text, whatever it looks like. In all others a cell is JSON where it can be read as such: a number, or a list of texts.
const TEXTS: [&str; 7] = ["id", "subject", "relation", "prompt", "target_new", "target_true", "target_prefix"];

/// A table with headings.
pub struct Table<'a> {
    rows: Rows<'a>,
    headings: Vec<String>,
    cells: Cells,
}

/// What cells are, in columns that are not known to hold text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// JSON where they can be read as such.
    Json,
    /// Text, but for lists and objects in JSON: a year is no number, and `007` not 7.
    Text,
}

/// What stands between cells: spreadsheets of languages with a decimal comma write semicolons.
const BETWEEN: [char; 3] = [',', ';', '\t'];

/// The table that a text is; `None` where it looks like JSON, or its first line has no second column.
pub fn open(text: &str, kind: Cells) -> Option<Table<'_>> {
    if text.starts_with(['{', '[']) {
        return None;
    }
    let first = text.lines().next()?;
    let between = BETWEEN.into_iter().find(|between| first.contains(*between))?;
    let reader = ReaderBuilder::new().delimiter(between as u8).build();
    let mut rows = Rows { reader, left: text.as_bytes() };
    let (_, cells) = rows.next()?;
    let headings = cells.into_iter().map(|heading| heading.trim().to_owned()).collect();
    Some(Table { rows, headings, cells: kind })
}

impl Table<'_> {
    /// Gives every row to `take`: its number, its line counted from 1, and the record; an empty cell is a field that is not there.
    pub fn rows(mut self, largest: usize, mut take: impl FnMut(usize, usize, Result<Value, String>)) {
        for index in 0.. {
            let Some((line, cells)) = self.rows.next() else { return };
            let row = if cells.iter().map(String::len).sum::<usize>() > largest {
                Err(format!("the record is larger than {} MiB", largest >> 20))
            } else if cells.len() == self.headings.len() {
                Ok(self.record(cells))
            } else {
                let own = if cells.len() == 1 { "1 cell".to_owned() } else { format!("{} cells", cells.len()) };
                Err(format!("the row has {own}, and the heading {}", self.headings.len()))
            };
            take(index, line, row);
        }
    }

    fn record(&self, cells: Vec<String>) -> Value {
        let cells = self.headings.iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
        let cells = cells.map(|(heading, cell)| {
            let text = match self.cells {
                Cells::Json => TEXTS.contains(&heading.as_str()),
                Cells::Text => !cell.starts_with(['[', '{']),
            };
            let json = if text { None } else { serde_json::from_str(&cell).ok() };
            (heading.clone(), json.unwrap_or(Value::String(cell)))
        });
        Value::Object(cells.collect::<Map<_, _>>())
    }
}

/// The rows of a text.
struct Rows<'a> {
    reader: Reader,
    left: &'a [u8],
}

impl Rows<'_> {
    /// The next row that is not blank: its line, and its cells.
    fn next(&mut self) -> Option<(usize, Vec<String>)> {
        let line = self.reader.line() as usize + blank_lines(self.left);
        // A cell is never longer than what is left, and a row has no more cells than that and one.
        let (mut text, mut ends) = (vec![0; 256], vec![0; 16]);
        let (mut filled, mut count) = (0, 0);
        loop {
            let (result, read, wrote, ended) =
                self.reader.read_record(self.left, &mut text[filled..], &mut ends[count..]);
            self.left = &self.left[read..];
            (filled, count) = (filled + wrote, count + ended);
            match result {
                // An empty rest tells the reader that nothing comes any more.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => text.resize(2 * text.len(), 0),
                ReadRecordResult::OutputEndsFull => ends.resize(2 * ends.len(), 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return None,
            }
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let cells =
            starts.zip(&ends).take(count).map(|(start, &end)| String::from_utf8_lossy(&text[start..end]).into());
        Some((line, cells.collect()))
    }
}

/// Lines without anything at the beginning of a text: the reader passes over them.
fn blank_lines(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, Result<Value, String>)> {
        let mut rows = Vec::new();
        open(text, Cells::Json).unwrap().rows(1000, |_, line, row| rows.push((line, row)));
        rows
    }

    #[test]
    fn rows_become_records_with_their_lines() {
        let long = "x".repeat(700);
        let text = format!(
            "subject, prompt ,strength,paraphrases\r\nA,\"{{}}, \"\"so\"\"\n\",0.5,\"[\"\"p\"\"]\"\n\n{long},7,,\nB,b\n"
        );
        let rows = read(&text);
        let first =
            serde_json::json!({ "subject": "A", "prompt": "{}, \"so\"\n", "strength": 0.5, "paraphrases": ["p"] });
        assert_eq!(rows[0], (2, Ok(first)));
        assert_eq!(rows[1], (5, Ok(serde_json::json!({ "subject": long, "prompt": "7" }))));
        assert_eq!(rows[2], (6, Err("the row has 2 cells, and the heading 4".to_owned())));
        assert_eq!(rows.len(), 3);
        let wide = format!("a,b\n{},1\n", "y".repeat(2000));
        assert!(read(&wide)[0].1.as_ref().unwrap_err().contains("larger"));
        assert!(open("{\"a\": 1, \"b\": 2}", Cells::Json).is_none() && open("plain text", Cells::Json).is_none());
    }
}
