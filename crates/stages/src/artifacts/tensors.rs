//! Matrices on their way into and out of the store, as safetensors.

use std::collections::HashMap;

use palinode_engine::{Error, FileRef, StageContext};
use safetensors::tensor::TensorView;
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

    /// The file, to look into.
    pub fn file(&self) -> Result<SafeTensors<'_>, Error> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| Error::internal(format!("stored tensors: {error}")))
    }

    /// Shape and values, row-major.
    pub fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>), Error> {
        let file = SafeTensors::deserialize(&self.bytes).map_err(|error| damaged(name, &error.to_string()))?;
        let view = file.tensor(name).map_err(|error| damaged(name, &error.to_string()))?;
        let values = match view.dtype() {
            Dtype::F32 => {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
            }
            Dtype::F64 => view
                .data()
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .collect(),
            other => return Err(damaged(name, &format!("is stored as {other:?}"))),
        };
        Ok((view.shape().to_vec(), values))
    }
}

/// Contents of the store are checked by digest: what does not read is a mistake of ours.
fn damaged(name: &str, what: &str) -> Error {
    Error::internal(format!("stored tensor `{name}`: {what}"))
}
