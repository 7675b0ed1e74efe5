//! Rows of an Apache Parquet file as records, with nested columns and lists.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::page::PageReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use crate::pages::Pages;
use crate::table::{damaged, guarded};
use crate::{DataError, Place};

/// Every row of a file, as a record.
pub fn read(path: &Path, file: File) -> std::result::Result<Vec<Value>, DataError> {
    let rows = guarded(|| {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
        let file = Arc::new(file);
        let mut rows = Vec::new();
        for number in 0..metadata.num_row_groups() {
            let group = Group { file: Arc::clone(&file), metadata: &metadata, number };
            for row in RowIter::from_row_group(None, &group)? {
                rows.push(record(&row?));
            }
        }
        Ok(rows)
    });
    rows.map_err(|message| damaged(path, Place::File, &message))
}

/// A row group whose pages are unpacked where their size is watched.
struct Group<'a> {
    file: Arc<File>,
    metadata: &'a ParquetMetaData,
    number: usize,
}

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata.row_group(self.number)
    }

    fn num_columns(&self) -> usize {
        self.metadata().num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let group = self.metadata();
        let chunk = group.column(column);
        let rows = usize::try_from(group.num_rows()).map_err(|_| ParquetError::General("a negative count".into()))?;
        let codec = chunk.compression();
        let raw = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let pages = SerializedPageReader::new(Arc::clone(&self.file), &raw, rows, None)?;
        Ok(Box::new(Pages::new(pages, codec)))
    }

    fn get_column_bloom_filter(&self, _: usize) -> Option<&parquet::bloom_filter::Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

fn record(row: &Row) -> Value {
    Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>())
}

/// What a request can use of a field; dates and the like are no texts.
fn value(field: &Field) -> Value {
    match field {
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => Number::from_f64(f64::from(*value)).map_or(Value::Null, Value::Number),
        Field::Double(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => bytes.as_utf8().map_or(Value::Null, Value::from),
        Field::Group(row) => record(row),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect()),
        _ => Value::Null,
    }
}
