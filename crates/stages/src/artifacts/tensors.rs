//! Matrices on their way into and out of the store, as safetensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Take, Write};
use std::path::Path;

use palinode_engine::{Error, ErrorKind, FileRef, StageContext};
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use safetensors::{Dtype, SafeTensors};

/// A named tensor, row-major.
pub struct Named {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Named {
    /// In single precision.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: impl IntoIterator<Item = f32>) -> Self {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self { name: name.into(), shape: shape.into(), dtype: Dtype::F32, bytes }
    }

    /// Whole numbers, as torch reads them.
    pub fn places(name: impl Into<String>, numbers: &[usize]) -> Self {
        let bytes = numbers.iter().flat_map(|number| (*number as i64).to_le_bytes()).collect();
        Self { name: name.into(), shape: vec![numbers.len()], dtype: Dtype::I64, bytes }
    }

    /// In double precision, of as many values as the shape asks for.
    pub fn values(name: impl Into<String>, shape: Vec<usize>, values: impl Iterator<Item = f64>) -> Self {
        let mut bytes = Vec::with_capacity(8 * shape.iter().product::<usize>());
        bytes.extend(values.flat_map(f64::to_le_bytes));
        Self { name: name.into(), shape, dtype: Dtype::F64, bytes }
    }
}

/// The bytes of a safetensors file.
pub fn serialize(tensors: &[Named], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>, Error> {
    let failed = |error: safetensors::SafeTensorError| Error::internal(format!("writing tensors: {error}"));
    let views = tensors
        .iter()
        .map(|t| Ok((&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).map_err(failed)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    safetensors::serialize(views, metadata).map_err(failed)
}

/// Puts tensors into the store.
pub fn put(cx: &StageContext, tensors: &[Named]) -> Result<FileRef, Error> {
    cx.put_bytes(&serialize(tensors, None)?)
}

/// A tensor that is written value by value, in double precision, row-major, so that its bytes never lie in memory together.
pub struct Streamed<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// As many values as the shape asks for.
    pub values: Box<dyn Iterator<Item = f64> + 'a>,
}

impl Streamed<'_> {
    /// The same with its bytes in memory.
    pub fn named(self) -> Named {
        Named::values(self.name, self.shape, self.values)
    }
}

/// Puts tensors into the store that are written value by value: the same file as of [`put`].
pub fn put_streamed(cx: &StageContext, tensors: Vec<Streamed<'_>>) -> Result<FileRef, Error> {
    cx.put_with(|to| write_streamed(to, tensors))
}

fn write_streamed(to: &mut dyn Write, mut tensors: Vec<Streamed<'_>>) -> io::Result<()> {
    // The order of `serialize`, for tensors of one type.
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut at = 0;
    let of = |tensor: &Streamed<'_>| {
        let from = at;
        at += size_of::<f64>() * tensor.shape.iter().product::<usize>();
        (tensor.name.clone(), TensorInfo { dtype: Dtype::F64, shape: tensor.shape.clone(), data_offsets: (from, at) })
    };
    let infos = tensors.iter().map(of).collect();
    let mut header = serde_json::to_vec(&Metadata::new(None, infos).map_err(io::Error::other)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut to = BufWriter::with_capacity(1 << 20, to);
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    for value in tensors.into_iter().flat_map(|tensor| tensor.values) {
        to.write_all(&value.to_le_bytes())?;
    }
    to.flush()
}

/// A safetensors file of the store, in memory.
pub struct Tensors {
    bytes: Vec<u8>,
}

impl Tensors {
    /// From bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// An entry of the file's metadata.
    pub fn note(&self, name: &str) -> Option<String> {
        SafeTensors::read_metadata(&self.bytes).ok()?.1.metadata().as_ref()?.get(name).cloned()
    }

    /// Reads one.
    pub fn read(cx: &StageContext, file: &FileRef) -> Result<Self, Error> {
        Ok(Self { bytes: cx.read(file)? })
    }

    /// Reads one that lies at a path.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Store, "read", path, error))?;
        Ok(Self { bytes })
    }

    /// The file, to look into.
    pub fn file(&self) -> Result<SafeTensors<'_>, Error> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| Error::internal(format!("stored tensors: {error}")))
    }

    /// Shape and values, row-major.
    pub fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>), Error> {
        let file = SafeTensors::deserialize(&self.bytes).map_err(|error| damaged(name, &error.to_string()))?;
        let view = file.tensor(name).map_err(|error| damaged(name, &error.to_string()))?;
        let mut values = vec![0.0; view.shape().iter().product()];
        numbers(name, view.dtype(), view.data(), &mut values)?;
        Ok((view.shape().to_vec(), values))
    }
}

/// A safetensors file of the store, of which one tensor is read at a time.
pub struct OneByOne {
    file: File,
    /// Where the tensors begin.
    begin: u64,
    metadata: Metadata,
}

impl OneByOne {
    /// Opens one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read_header(path).map_err(|error| Error::io(ErrorKind::Store, "read", path, error))
    }

    fn read_header(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let header = u64::from_le_bytes(length);
        let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if header > file.metadata()?.len() {
            return Err(damaged("its header is longer than the file".to_owned()));
        }
        let mut bytes = Vec::new();
        (&mut file).take(header).read_to_end(&mut bytes)?;
        let metadata = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { file, begin: 8 + header, metadata })
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize], Error> {
        Ok(&self.metadata.info(name).ok_or_else(|| damaged(name, "is missing"))?.shape)
    }

    /// The values of a tensor, row-major, to be read some at a time.
    pub fn stream(&mut self, name: &str) -> Result<Values<'_>, Error> {
        let info = self.metadata.info(name).ok_or_else(|| damaged(name, "is missing"))?;
        let ((from, to), dtype) = (info.data_offsets, info.dtype);
        let at = SeekFrom::Start(self.begin + from as u64);
        self.file.seek(at).map_err(|error| damaged(name, &error.to_string()))?;
        let from = BufReader::with_capacity(1 << 20, (&mut self.file).take((to - from) as u64));
        Ok(Values { name: name.to_owned(), dtype, from, bytes: Vec::new() })
    }
}

/// The values of a stored tensor, one behind the other.
pub struct Values<'a> {
    name: String,
    dtype: Dtype,
    from: BufReader<Take<&'a mut File>>,
    bytes: Vec<u8>,
}

impl Values<'_> {
    /// Reads as many as there is room for.
    pub fn fill(&mut self, into: &mut [f64]) -> Result<(), Error> {
        for into in into.chunks_mut(1 << 16) {
            self.bytes.resize(into.len() * self.dtype.bitsize() / 8, 0);
            self.from.read_exact(&mut self.bytes).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged(&self.name, "is cut short"),
                _ => damaged(&self.name, &error.to_string()),
            })?;
            numbers(&self.name, self.dtype, &self.bytes, into)?;
        }
        Ok(())
    }
}

/// Numbers as they are stored.
fn numbers(name: &str, dtype: Dtype, data: &[u8], into: &mut [f64]) -> Result<(), Error> {
    match dtype {
        Dtype::F32 => {
            let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            into.iter_mut().zip(values).for_each(|(to, value)| *to = value.into());
        }
        Dtype::F64 => {
            let values =
                data.chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
            into.iter_mut().zip(values).for_each(|(to, value)| *to = value);
        }
        other => return Err(damaged(name, &format!("is stored as {other:?}"))),
    }
    Ok(())
}

/// Contents of the store are checked by digest: what does not read is a mistake of ours.
fn damaged(name: &str, what: &str) -> Error {
    Error::internal(format!("stored tensor `{name}`: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(file: &mut OneByOne, name: &str, count: usize) -> Result<Vec<f64>, Error> {
        let mut all = vec![0.0; count];
        file.stream(name)?.fill(&mut all)?;
        Ok(all)
    }

    /// One tensor is read without the others; a file that does not hold what its header says gives no number.
    #[test]
    fn tensors_are_read_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let made = [
            Named::values("a", vec![2, 2], [1.0, 2.0, 3.0, 4.0].into_iter()),
            Named::f32("b", [3], [0.5, 0.25, -1.0]),
            Named::places("c", &[7]),
        ];
        let bytes = serialize(&made, None).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let mut file = OneByOne::open(&path).unwrap();
        assert_eq!(file.shape("a").unwrap(), [2, 2]);
        assert_eq!(values(&mut file, "b", 3).unwrap(), [0.5, 0.25, -1.0]);
        assert_eq!(values(&mut file, "a", 4).unwrap(), Tensors::new(bytes.clone()).values("a").unwrap().1);
        let message = |error: Error| error.message;
        assert_eq!(values(&mut file, "d", 1).map_err(message), Err("stored tensor `d`: is missing".to_owned()));
        assert_eq!(values(&mut file, "c", 1).map_err(message), Err("stored tensor `c`: is stored as I64".to_owned()));

        std::fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
        let mut file = OneByOne::open(&path).unwrap();
        assert_eq!(values(&mut file, "b", 3).map_err(message), Err("stored tensor `b`: is cut short".to_owned()));
        for wrong in [&bytes[..4], &bytes[..40], b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0[]"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(OneByOne::open(&path).is_err(), "{wrong:?}");
        }
        assert!(OneByOne::open(&folder.path().join("none")).is_err());
    }

    fn streamed(name: &str, from: u32, shape: [usize; 2]) -> Streamed<'static> {
        let values = (0..).map(move |i| f64::from(from + i) / 7.0).take(shape[0] * shape[1]);
        Streamed { name: name.to_owned(), shape: shape.to_vec(), values: Box::new(values) }
    }

    /// A file that is written value by value has the bytes, and so the digest, of one that is made in memory; it is read back some values at a time.
    #[test]
    fn streamed_tensors_are_the_same_file() {
        let all = || ["sum.2", "sum.10", "sum.0"].map(|name| streamed(name, name.len() as u32, [3, 5]));
        let mut written = Vec::new();
        write_streamed(&mut written, all().into()).unwrap();
        assert_eq!(written, serialize(&all().map(Streamed::named), None).unwrap());
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, &written).unwrap();
        let mut file = OneByOne::open(&path).unwrap();
        assert_eq!(file.shape("sum.10").unwrap(), [3, 5]);
        let mut values = file.stream("sum.10").unwrap();
        let mut read = [0.0; 15];
        for row in read.chunks_mut(4) {
            values.fill(row).unwrap();
        }
        assert_eq!(read.to_vec(), streamed("", 6, [3, 5]).values.collect::<Vec<_>>());
        assert!(values.fill(&mut [0.0]).is_err(), "there is no more");
        std::fs::write(&path, &written[..written.len() - 130]).unwrap();
        let mut cut = OneByOne::open(&path).unwrap();
        assert!(cut.stream("sum.2").unwrap().fill(&mut [0.0; 15]).is_err(), "cut short");
    }
}
