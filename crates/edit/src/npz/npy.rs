//! One array of numpy's npy format, read by `npyz` within bounds that hold for any file.
//!
//! Arrays of plain numbers only. An array of objects is a pickle, and reading one runs what it says.

use std::io::{self, Read, Write};

use half::f16;
use npyz::{AutoSerialize, DType, NpyFile, NpyHeader, NpyWriter, Serialize, WriteOptions, WriterBuilder};

/// What a file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";
/// numpy writes 118 bytes before a matrix.
const MOST_HEADER: u64 = 512;
/// numpy writes two, around the description and the shape. The parser tries everything a bracket may begin: what nests takes
/// it twice as long with each.
const MOST_BRACKETS: usize = 8;

/// Reads what stands before an array's numbers, and no byte beyond it.
///
/// # Errors
/// In words, for what is no header, is cut off, or is far longer than those of plain arrays.
pub fn header(reader: &mut dyn Read) -> Result<NpyHeader, String> {
    // Six bytes of a name, two of a version, and the length of the text that follows. Memory for the text is taken before it
    // is read, so its length is looked at first.
    let mut start = [0; 12];
    reader.read_exact(&mut start[..10]).map_err(|error| broken(&error))?;
    let start = if start[6] == 1 { &mut start[..10] } else { &mut start[..] };
    reader.read_exact(&mut start[10..]).map_err(|error| broken(&error))?;
    let long = start[8..].iter().rev().fold(0, |long, &byte| (long << 8) | u64::from(byte));
    if !start.starts_with(MAGIC) {
        return Err("it is no npy array".into());
    }
    if long > MOST_HEADER {
        return Err(format!("its header is of {long} bytes, too long for an array of numbers"));
    }
    let mut text = vec![0; long as usize];
    reader.read_exact(&mut text).map_err(|error| broken(&error))?;
    if text.iter().filter(|byte| b"([{".contains(byte)).count() > MOST_BRACKETS {
        return Err("its header nests too much for an array of numbers".into());
    }
    NpyHeader::from_reader(start.chain(text.as_slice())).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".into(),
        _ => format!("its header does not read: {error}"),
    })
}

/// numpy's name of an array's type.
pub fn type_name(header: &NpyHeader) -> String {
    header.dtype().descr().trim_matches('\'').to_owned()
}

/// The numbers of an array of floats or whole numbers, in the order in which they lie.
///
/// # Errors
/// In words, for an array of anything else.
pub fn numbers<'a>(
    header: &NpyHeader,
    reader: &'a mut dyn Read,
) -> Result<Box<dyn Iterator<Item = io::Result<f64>> + 'a>, String> {
    let mut file = NpyFile::with_header(header.clone(), reader);
    macro_rules! of {
        ($($number:ty => $convert:expr),*) => {$(
            file = match file.try_data::<$number>() {
                Ok(numbers) => return Ok(Box::new(numbers.map(|number| number.map($convert)))),
                Err(file) => file,
            };
        )*};
    }
    of!(f32 => f64::from, f64 => |v| v, f16 => f16::to_f64, i64 => |v| v as f64, i32 => f64::from);
    of!(u64 => |v| v as f64, u32 => f64::from, i16 => f64::from, u16 => f64::from, i8 => f64::from, u8 => f64::from);
    let what =
        if file.uses_pickled_array() { "Python objects, whose reading could run anything" } else { "no numbers" };
    Err(format!("it holds {what} ({}): floats and whole numbers are read", type_name(header)))
}

/// Why the next number did not come.
pub fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
        _ => format!("it is damaged: {error}"),
    }
}

/// Fails where anything follows the array. At its end an archive compares its checksum.
///
/// # Errors
/// In words.
pub fn end(reader: &mut dyn Read) -> Result<(), String> {
    match reader.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("it goes on after its last number".into()),
        Err(error) => Err(broken(&error)),
    }
}

/// Begins an array of numbers, rows first.
pub fn begin<T: AutoSerialize, W: Write>(writer: W, shape: &[u64]) -> io::Result<NpyWriter<T, W>> {
    WriteOptions::new().default_dtype().shape(shape).writer(writer).begin_nd()
}

/// Writes one number as an array without axes.
pub fn write_number<T: AutoSerialize + Serialize>(writer: impl Write, number: T) -> io::Result<()> {
    let mut array = begin(writer, &[])?;
    array.push(&number)?;
    array.finish()
}

/// Writes a text as an array without axes.
pub fn write_text(writer: impl Write, text: &str) -> io::Result<()> {
    let count = text.chars().count();
    let dtype = format!("<U{count}").parse().map_err(io::Error::other)?;
    let options = WriteOptions::new_header_only().dtype(DType::new_scalar(dtype)).shape(&[]);
    let mut writer = options.writer(writer).write_header_only()?;
    text.chars().try_for_each(|char| writer.write_all(&u32::from(char).to_le_bytes()))
}
