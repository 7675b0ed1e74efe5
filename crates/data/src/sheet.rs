//! Tables as Apache Parquet, for whoever reads them with other programs.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

/// A column's values, row by row; none where a row has none.
#[derive(Clone, Debug)]
pub enum Column {
    /// Texts.
    Text(Vec<Option<String>>),
    /// Numbers, as float64.
    Number(Vec<Option<f64>>),
    /// Whole numbers, as int64.
    Count(Vec<Option<i64>>),
    /// Yes or no.
    Flag(Vec<Option<bool>>),
}

impl Column {
    fn physical(&self) -> Physical {
        match self {
            Self::Text(_) => Physical::BYTE_ARRAY,
            Self::Number(_) => Physical::DOUBLE,
            Self::Count(_) => Physical::INT64,
            Self::Flag(_) => Physical::BOOLEAN,
        }
    }

    fn write(&self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Self::Text(rows) => put::<ByteArrayType, _>(writer, rows, |text| ByteArray::from(text.as_str())),
            Self::Number(rows) => put::<DoubleType, _>(writer, rows, |number| *number),
            Self::Count(rows) => put::<Int64Type, _>(writer, rows, |count| *count),
            Self::Flag(rows) => put::<BoolType, _>(writer, rows, |flag| *flag),
        }
    }
}

fn put<T: DataType, V>(
    writer: &mut SerializedColumnWriter<'_>,
    rows: &[Option<V>],
    value: impl Fn(&V) -> T::T,
) -> Result<(), ParquetError> {
    let there: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
    let values: Vec<T::T> = rows.iter().flatten().map(value).collect();
    writer.typed::<T>().write_batch(&values, Some(&there), None).map(|_| ())
}

/// Writes named columns of one length as a table.
///
/// # Errors
/// What keeps `out` from being written, as text.
pub fn write_parquet(out: impl Write + Send, columns: &[(&str, Column)]) -> Result<(), String> {
    write(out, columns).map_err(|error| error.to_string())
}

fn write(out: impl Write + Send, columns: &[(&str, Column)]) -> Result<(), ParquetError> {
    let field = |(name, column): &(&str, Column)| {
        let text = matches!(column, Column::Text(_)).then_some(LogicalType::String);
        let kind = Type::primitive_type_builder(name, column.physical()).with_repetition(Repetition::OPTIONAL);
        kind.with_logical_type(text).build().map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("records").with_fields(fields).build()?);
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(WriterProperties::builder().build()))?;
    let mut group = file.next_row_group()?;
    for (_, column) in columns {
        let Some(mut writer) = group.next_column()? else {
            return Err(ParquetError::General("fewer columns than there should be".into()));
        };
        column.write(&mut writer)?;
        writer.close()?;
    }
    group.close()?;
    file.close().map(|_| ())
}
