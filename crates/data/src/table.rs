//! A column of texts in an Apache Parquet file.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::document::{Document, there_are};
use crate::lines::LONGEST;
use crate::pages::Pages;
use crate::{DataError, Place};

/// Rows decoded at once.
const BATCH: usize = 64;

/// The texts of one column, row by row.
pub struct Column {
    path: PathBuf,
    file: Arc<File>,
    metadata: ParquetMetaData,
    /// The column's number.
    number: usize,
    /// The definition level of a value that is not null.
    level: i16,
    /// The next row group.
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows decoded and not given yet: null or a value.
    rows: std::vec::IntoIter<Option<ByteArray>>,
    /// The next row.
    row: u64,
}

impl Column {
    /// Finds the column `name`.
    pub fn open(path: &Path, file: File, name: &str) -> Result<Self, DataError> {
        let metadata = guarded(|| ParquetMetaDataReader::new().parse_and_finish(&file))
            .map_err(|message| damaged(path, Place::File, &message))?;
        let schema = metadata.file_metadata().schema_descr();
        let Some(number) = schema.columns().iter().position(|column| column.path().string() == name) else {
            let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
            let there = there_are(names.iter().map(String::as_str));
            return Err(DataError::new(path, Place::File, format!("no column `{name}`{there}"))
                .hint("`field` names the column that holds the text"));
        };
        let column = schema.column(number);
        if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() != 0 {
            return Err(DataError::new(path, Place::File, format!("column `{name}` holds no text"))
                .hint("`field` names the column that holds the text"));
        }
        let level = column.max_def_level();
        Ok(Self {
            path: path.into(),
            file: Arc::new(file),
            metadata,
            number,
            level,
            group: 0,
            reader: None,
            rows: Vec::new().into_iter(),
            row: 0,
        })
    }

    /// The next text that is not blank.
    pub fn next(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            for value in self.rows.by_ref() {
                let row = self.row;
                self.row += 1;
                let Some(value) = value else { continue };
                let place = Place::Row(row);
                if value.len() > LONGEST {
                    let message = format!("the document is longer than {} MiB", LONGEST >> 20);
                    return Err(DataError::new(&self.path, place, message));
                }
                let text = std::str::from_utf8(value.data())
                    .map_err(|_| DataError::new(&self.path, place, "not UTF-8 text"))?;
                if !text.trim().is_empty() {
                    return Ok(Some(Document { text: text.to_owned(), at: row, size: text.len() as u32 }));
                }
            }
            match guarded(|| self.batch()) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(message) => return Err(damaged(&self.path, Place::Row(self.row), &message)),
            }
        }
    }

    /// Decodes some rows; `false` at the end of the file.
    fn batch(&mut self) -> Result<bool, ParquetError> {
        loop {
            let Some(reader) = &mut self.reader else {
                if self.group == self.metadata.num_row_groups() {
                    return Ok(false);
                }
                self.reader = Some(self.open_group()?);
                self.group += 1;
                continue;
            };
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let (rows, _, _) = reader.read_records(BATCH, Some(&mut levels), None, &mut values)?;
            if rows == 0 {
                self.reader = None;
                continue;
            }
            let mut values = values.into_iter();
            self.rows = if self.level == 0 {
                values.map(Some).collect::<Vec<_>>().into_iter()
            } else {
                let rows = levels.into_iter().map(|level| if level == self.level { values.next() } else { None });
                rows.collect::<Vec<_>>().into_iter()
            };
            return Ok(true);
        }
    }

    fn open_group(&self) -> Result<ColumnReaderImpl<ByteArrayType>, ParquetError> {
        let group = self.metadata.row_group(self.group);
        let chunk = group.column(self.number);
        let rows = usize::try_from(group.num_rows()).map_err(|_| ParquetError::General("a negative count".into()))?;
        let codec = chunk.compression();
        // The pages come as they are stored, and are unpacked where their size is watched.
        let raw = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let pages = SerializedPageReader::new(Arc::clone(&self.file), &raw, rows, None)?;
        let description = self.metadata.file_metadata().schema_descr().column(self.number);
        Ok(ColumnReaderImpl::new(description, Box::new(Pages::new(pages, codec))))
    }
}

/// The decoder is not ours, and files are: should it panic over a damaged one, that is an error like any other.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let text = error.to_string();
            let text = ["error: ", "NYI: "].iter().find_map(|kind| Some(text.split_once(kind)?.1)).unwrap_or(&text);
            Err(text.split("\nstack").next().unwrap_or_default().to_owned())
        }
        Err(_) => Err("its parts contradict each other".to_owned()),
    }
}

pub fn damaged(path: &Path, place: Place, message: &str) -> DataError {
    let made = DataError::new(path, place, format!("cannot read the Parquet file: {message}"));
    if message.contains("packed with") {
        made.hint("write it anew with another compression")
    } else {
        made.hint("download or copy the file again")
    }
}
