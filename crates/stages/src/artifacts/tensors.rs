//! Matrices on their way into and out of the store, as safetensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use palinode_engine::{Error, ErrorKind, FileRef, StageContext};
use safetensors::tensor::{Metadata, TensorView};
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
        Ok((view.shape().to_vec(), numbers(name, view.dtype(), view.data())?))
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

    fn read_header(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let header = u64::from_le_bytes(length);
        let damaged = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
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

    /// The values of a tensor, row-major.
    pub fn values(&mut self, name: &str) -> Result<Vec<f64>, Error> {
        let info = self.metadata.info(name).ok_or_else(|| damaged(name, "is missing"))?;
        let (from, to) = info.data_offsets;
        let failed = |error: std::io::Error| damaged(name, &error.to_string());
        self.file.seek(SeekFrom::Start(self.begin + from as u64)).map_err(failed)?;
        let mut bytes = Vec::new();
        (&mut self.file).take((to - from) as u64).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() != to - from {
            return Err(damaged(name, "is cut short"));
        }
        numbers(name, info.dtype, &bytes)
    }
}

/// Numbers as they are stored.
fn numbers(name: &str, dtype: Dtype, data: &[u8]) -> Result<Vec<f64>, Error> {
    match dtype {
        Dtype::F32 => Ok(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()),
        Dtype::F64 => Ok(data
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect()),
        other => Err(damaged(name, &format!("is stored as {other:?}"))),
    }
}

/// Contents of the store are checked by digest: what does not read is a mistake of ours.
fn damaged(name: &str, what: &str) -> Error {
    Error::internal(format!("stored tensor `{name}`: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(file.values("b").unwrap(), [0.5, 0.25, -1.0]);
        assert_eq!(file.values("a").unwrap(), Tensors::new(bytes.clone()).values("a").unwrap().1);
        let message = |error: Error| error.message;
        assert_eq!(file.values("d").map_err(message), Err("stored tensor `d`: is missing".to_owned()));
        assert_eq!(file.values("c").map_err(message), Err("stored tensor `c`: is stored as I64".to_owned()));

        std::fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
        let mut file = OneByOne::open(&path).unwrap();
        assert_eq!(file.values("b").map_err(message), Err("stored tensor `b`: is cut short".to_owned()));
        for wrong in [&bytes[..4], &bytes[..40], b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0[]"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(OneByOne::open(&path).is_err(), "{wrong:?}");
        }
        assert!(OneByOne::open(&folder.path().join("none")).is_err());
    }
}
