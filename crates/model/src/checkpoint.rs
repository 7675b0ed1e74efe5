//! Safetensors files, memory-mapped; tensors are read as f32 after their shape was checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::ModelError;

/// One or several safetensors files that together hold a model's tensors.
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// Tensor name → shard.
    index: BTreeMap<String, usize>,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
}

impl Checkpoint {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`ModelError::Io`] where a file cannot be opened, [`ModelError::Checkpoint`] where it is empty, truncated, or its
    /// header does not describe it, or where two files hold the same tensor.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ModelError> {
        let mut shards = Vec::new();
        let mut index = BTreeMap::new();
        for path in paths {
            let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
            let bad = |message: String| ModelError::Checkpoint { path: path.clone(), message };
            if file.metadata().map_err(|e| ModelError::io(path, e))?.len() == 0 {
                return Err(bad("the file is empty".into()));
            }
            // SAFETY: the file is opened for reading only. A file that another program truncates while it is mapped
            // would fault; that is the accepted price of not copying checkpoints of many gigabytes.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))?;
            let tensors = SafeTensors::deserialize(&map).map_err(|e| bad(e.to_string()))?;
            for name in tensors.names() {
                if index.insert(name.to_string(), shards.len()).is_some() {
                    return Err(bad(format!("tensor {name} is in two files")));
                }
            }
            shards.push(Shard { path: path.clone(), map });
        }
        Ok(Self { shards, index })
    }

    /// The safetensors files of a model folder: `model.safetensors`, or the shards that its index names.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] where there is neither; [`ModelError::Checkpoint`] for an index that is not one or
    /// that names a file outside the folder.
    pub fn files(folder: &Path) -> Result<Vec<String>, ModelError> {
        const WHOLE: &str = "model.safetensors";
        const INDEX: &str = "model.safetensors.index.json";
        if folder.join(WHOLE).is_file() {
            return Ok(vec![WHOLE.into()]);
        }
        let path = folder.join(INDEX);
        if !path.is_file() {
            let hint = if folder.join("pytorch_model.bin").is_file() {
                "pytorch_model.bin runs code when read; convert it with transformers' save_pretrained, which writes safetensors"
            } else {
                "a model folder holds config.json, tokenizer.json and model.safetensors"
            };
            return Err(ModelError::MissingFile { folder: folder.into(), name: WHOLE.into(), hint: hint.into() });
        }
        let bad = |message: String| ModelError::Checkpoint { path: path.clone(), message };
        let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io(&path, e))?;
        let index: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        let map = index.get("weight_map").and_then(|m| m.as_object()).ok_or_else(|| bad("no weight_map".into()))?;
        let mut files: Vec<String> = Vec::new();
        for file in map.values() {
            let name = file.as_str().ok_or_else(|| bad("weight_map holds something that is not a file name".into()))?;
            if name.contains(['/', '\\']) || name.contains("..") {
                return Err(bad(format!("weight_map names {name:?}, which is not a file of this folder")));
            }
            files.push(name.to_string());
        }
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The name under which a tensor is stored: the full one, or the one without its first component (checkpoints saved
    /// from a bare model drop `transformer.` or `model.`).
    pub fn stored_name<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.index.contains_key(name) {
            return Some(name);
        }
        let (_, short) = name.split_once('.')?;
        self.index.contains_key(short).then_some(short)
    }

    /// Names of all stored tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// Reads a tensor as f32, row-major, after checking its shape.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`], [`ModelError::Dtype`].
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.with_view(name, |view| {
            if view.shape() != shape {
                return Err(ModelError::Shape {
                    name: name.into(),
                    expected: shape.into(),
                    found: view.shape().into(),
                });
            }
            to_f32(view.dtype(), view.data())
                .ok_or_else(|| ModelError::Dtype { name: name.into(), found: format!("{:?}", view.dtype()) })
        })
    }

    fn with_view<T>(
        &self,
        name: &str,
        read: impl FnOnce(TensorView<'_>) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let Some(stored) = self.stored_name(name) else {
            let nearest = self
                .names()
                .map(|n| (strsim::jaro_winkler(n, name), n))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, n)| n.to_string());
            return Err(ModelError::MissingTensor { name: name.into(), nearest });
        };
        let shard = &self.shards[self.index[stored]];
        let bad = |e: safetensors::SafeTensorError| ModelError::Checkpoint {
            path: shard.path.clone(),
            message: e.to_string(),
        };
        let tensors = SafeTensors::deserialize(&shard.map).map_err(bad)?;
        read(tensors.tensor(stored).map_err(bad)?)
    }
}

/// Little-endian bytes of a float type as f32; `None` for another type.
pub fn to_f32(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        Dtype::BF16 => Some(data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        _ => None,
    }
}

/// f32 values as little-endian bytes of a float type; `None` for another type.
pub fn from_f32(dtype: Dtype, values: &[f32]) -> Option<Vec<u8>> {
    match dtype {
        Dtype::F32 => Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Dtype::F16 => Some(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
        Dtype::BF16 => Some(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        _ => None,
    }
}
