//! Weight files: safetensors, or one GGUF file. Tensors are read as f32, piece by piece, after their shape was checked.

mod bytes;
pub(crate) mod files;
mod fused;
pub(crate) mod gguf;
pub(crate) mod inspect;
pub(crate) mod layout;
pub(crate) mod load;
pub mod save;
mod stored;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;

use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::files::{DESCRIPTION, read_text};
use crate::checkpoint::fused::Parts;
use crate::checkpoint::gguf::blocks::GgufType;
use crate::checkpoint::gguf::read::Gguf;
use crate::checkpoint::gguf::tensors::{Arrange, places};
use crate::checkpoint::stored::{Encoding, Stored};
use crate::{DecoderConfig, Layout, ModelError};

/// Values converted at once.
const PIECE: usize = 1 << 18;

/// One or several safetensors files that together hold a model's tensors, or a GGUF file, whose tensors go by the names of Hugging Face's
/// layout.
pub struct Checkpoint {
    shards: Vec<Bytes>,
    index: BTreeMap<String, Stored>,
    /// Experts that lie in one of these.
    parts: Parts,
}

impl Checkpoint {
    /// Opens the files and reads their headers.
    ///
    /// # Errors
    /// [`ModelError::Io`] where a file cannot be opened, [`ModelError::Checkpoint`] where it is empty, truncated, or its
    /// header does not describe it, or where two files hold the same tensor.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ModelError> {
        let mut shards = Vec::new();
        let mut index = BTreeMap::new();
        for path in paths {
            if Gguf::is(path) {
                return Self::open_gguf(path, paths);
            }
            let bytes = Bytes::open(path)?;
            let (begin, header) = bytes.header()?;
            for name in header.offset_keys() {
                let Some(info) = header.info(&name) else { continue };
                let (from, to) = info.data_offsets;
                let shape = info.shape.clone();
                let encoding = Encoding::Plain(info.dtype);
                let stored = Stored { shard: shards.len(), encoding, shape, bytes: begin + from..begin + to };
                if let Some(Stored { shard, .. }) = index.insert(name.clone(), stored) {
                    let other: &Bytes = shards.get(shard).unwrap_or(&bytes);
                    let other = other.path().file_name().unwrap_or_default().to_string_lossy();
                    let message = format!("tensor {name} is in {other} too");
                    return Err(ModelError::Checkpoint { path: path.clone(), message });
                }
            }
            shards.push(bytes);
        }
        let parts = index.iter().flat_map(|(name, stored)| fused::parts(name, stored)).collect();
        Ok(Self { shards, index, parts })
    }

    fn open_gguf(path: &Path, paths: &[PathBuf]) -> Result<Self, ModelError> {
        let file = Gguf::open(path)?;
        if paths.len() > 1 {
            return Err(file.wrong("a GGUF file is a whole model, expected no other weights beside it"));
        }
        let config = DecoderConfig::of_gguf(&file)?;
        let stored = places(&file, &config)?.into_iter().map(|(name, place)| {
            let tensor = &file.tensors[place.tensor];
            let encoding = Encoding::Gguf(tensor.kind, place.arrange);
            (name, Stored { shard: 0, encoding, shape: place.shape, bytes: tensor.bytes.clone() })
        });
        let index = stored.collect();
        Ok(Self { shards: vec![file.bytes], index, parts: Parts::new() })
    }

    /// The safetensors files of a model folder: `model.safetensors`, or the shards that its index names.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] where there is neither, or where a shard is missing; [`ModelError::Index`] for an
    /// index that is not one or that names a file outside the folder.
    pub fn files(folder: &Path) -> Result<Vec<String>, ModelError> {
        const WHOLE: &str = "model.safetensors";
        const INDEX: &str = "model.safetensors.index.json";
        if folder.join(WHOLE).is_file() {
            return Ok(vec![WHOLE.into()]);
        }
        let path = folder.join(INDEX);
        let missing = |name: &str, hint: &str| ModelError::MissingFile {
            folder: folder.into(),
            name: name.into(),
            hint: hint.into(),
        };
        if !path.is_file() {
            let hint = if folder.join("pytorch_model.bin").is_file()
                || folder.join("pytorch_model.bin.index.json").is_file()
            {
                "pytorch_model.bin runs code when read; convert it with transformers' save_pretrained, which writes safetensors"
            } else {
                "a model folder holds config.json, tokenizer.json and model.safetensors; a GGUF file is given by its own name"
            };
            return Err(missing(WHOLE, hint));
        }
        let bad = |message: String| ModelError::Index { path: path.clone(), message };
        let text = read_text(&path, DESCRIPTION)?;
        let index: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        let map = index.get("weight_map").and_then(|m| m.as_object()).ok_or_else(|| bad("no weight_map".into()))?;
        let mut files: Vec<String> = Vec::new();
        for file in map.values() {
            let name = file.as_str().ok_or_else(|| bad("weight_map holds something that is not a file name".into()))?;
            // One plain component: no folder, no parent, no drive.
            let plain =
                Path::new(name).file_name().is_some_and(|only| only == name) && !name.contains(['\\', ':', '\0']);
            if !plain {
                let name: String = name.chars().take(80).collect();
                return Err(bad(format!("weight_map names {name:?}, which is not a file of this folder")));
            }
            files.push(name.to_string());
        }
        if files.is_empty() {
            return Err(bad("weight_map names no file".into()));
        }
        files.sort();
        files.dedup();
        match files.iter().find(|name| !folder.join(name).is_file()) {
            Some(name) => Err(missing(name, "model.safetensors.index.json names it: download the missing shard")),
            None => Ok(files),
        }
    }

    /// The name under which a tensor is stored: the full one, or the one without its first component (checkpoints saved
    /// from a bare model drop `transformer.` or `model.`); of an expert that lies in one tensor with others, the name of that tensor.
    pub fn stored_name(&self, name: &str) -> Option<&str> {
        Some(self.place(name)?.0)
    }

    /// Where a tensor is stored, and under which name.
    fn place(&self, name: &str) -> Option<(&str, &Stored)> {
        self.known(name).or_else(|| self.known(&fused::renamed(name)?))
    }

    /// Of an expert that lies in one tensor `[experts, out, in]` with others, which of them it is.
    pub fn slice_of(&self, name: &str) -> Option<usize> {
        let (whole, part) = self.place(name)?;
        let all = &self.index[whole];
        let apart = part.bytes.len().max(1);
        (all.shape.len() == part.shape.len() + 1).then(|| (part.bytes.start - all.bytes.start) / apart)
    }

    fn known(&self, name: &str) -> Option<(&str, &Stored)> {
        let names = [Some(name), name.split_once('.').map(|(_, short)| short)];
        names.into_iter().flatten().find_map(|name| {
            let whole = self.index.get_key_value(name).map(|(name, stored)| (name.as_str(), stored));
            whole.or_else(|| self.parts.get(name).map(|(name, stored)| (name.as_str(), stored)))
        })
    }

    /// Bytes that were read of the files so far, those that the system had in its cache among them.
    pub fn bytes_read(&self) -> u64 {
        self.shards.iter().map(Bytes::taken).sum()
    }

    /// Bytes that a pass over all blocks reads: those of their tensors as they are stored.
    pub fn bytes_of_blocks(&self, config: &DecoderConfig, layout: &Layout) -> u64 {
        let ends = layout.tensors(&DecoderConfig { layers: 0, ..config.clone() });
        let of = |all: Vec<(String, Vec<usize>)>| -> u64 {
            let sizes = all.iter().filter_map(|(name, _)| Some(self.place(name)?.1.bytes.len() as u64));
            sizes.sum()
        };
        of(layout.tensors(config)).saturating_sub(of(ends))
    }

    /// Names of all stored tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// The name of the type in which a tensor is stored, and the file that holds it.
    pub fn stored(&self, name: &str) -> Option<(String, &Path)> {
        let (_, stored) = self.place(name)?;
        let kind = match stored.encoding {
            Encoding::Plain(dtype) => format!("{dtype:?}"),
            Encoding::Gguf(kind, _) => format!("{kind:?}"),
        };
        Some((kind, self.shards[stored.shard].path()))
    }

    /// Compares every tensor that a configuration asks for with what is stored, before any is read: presence, shape,
    /// type; and whether a block has tensors that the configuration knows nothing of.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`], [`ModelError::Dtype`], [`ModelError::Unused`].
    pub fn check(&self, config: &DecoderConfig, layout: &Layout) -> Result<(), ModelError> {
        let mut asked = std::collections::BTreeSet::new();
        for (name, shape) in layout.tensors(config) {
            self.find(&name, &shape)?;
            asked.extend(self.stored_name(&name).map(str::to_owned));
        }
        match self.names().find(|name| !asked.contains(*name) && layout.matters(name)) {
            Some(name) => Err(ModelError::Unused { name: name.into(), family: config.family.name() }),
            None => Ok(()),
        }
    }

    /// Reads a tensor as f32, row-major, some rows at a time: `take` gets the first row's number and the rows.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`], [`ModelError::Dtype`]; [`ModelError::Checkpoint`] where the file has become
    /// shorter, [`ModelError::Io`].
    pub fn read_rows(
        &self,
        name: &str,
        shape: &[usize],
        mut take: impl FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let stored = self.find(name, shape)?;
        let file = &self.shards[stored.shard];
        let width = shape.iter().skip(1).product::<usize>().max(1);
        let dtype = match stored.encoding {
            Encoding::Plain(dtype) => dtype,
            Encoding::Gguf(kind, arrange) => {
                return read_blocks(file, stored.bytes.clone(), kind, arrange, shape, take);
            }
        };
        let rows = (PIECE / width).max(1);
        let size = dtype.bitsize() / 8;
        let mut values = Vec::with_capacity(rows.min(shape.first().copied().unwrap_or(1)) * width);
        let mut bytes = Vec::new();
        let mut from = stored.bytes.start;
        for first in (0..).step_by(rows) {
            if from >= stored.bytes.end {
                break;
            }
            let to = (from + rows * width * size).min(stored.bytes.end);
            values.clear();
            file.read_into(from..to, &mut bytes)?;
            extend_f32(dtype, &bytes, &mut values);
            take(first, &values);
            from = to;
        }
        Ok(())
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&Stored, ModelError> {
        let Some((_, stored)) = self.place(name) else {
            let nearest = self
                .names()
                .map(|n| (strsim::jaro_winkler(n, name), n))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, n)| n.chars().take(200).collect());
            return Err(ModelError::MissingTensor { name: name.into(), nearest });
        };
        if stored.shape != shape {
            return Err(ModelError::Shape { name: name.into(), expected: shape.into(), found: stored.shape.clone() });
        }
        match stored.encoding {
            Encoding::Plain(Dtype::F32 | Dtype::F16 | Dtype::BF16) | Encoding::Gguf(..) => Ok(stored),
            Encoding::Plain(other) => Err(ModelError::Dtype { name: name.into(), found: format!("{other:?}") }),
        }
    }
}

/// Reads a tensor of a GGUF file in the order of Hugging Face's layout, some rows at a time. A matrix that lies there the other way round,
/// and a vector in another order, are taken into memory whole.
fn read_blocks(
    file: &Bytes,
    bytes: Range<usize>,
    kind: GgufType,
    arrange: Arrange,
    shape: &[usize],
    mut take: impl FnMut(usize, &[f32]),
) -> Result<(), ModelError> {
    let (count, width) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product::<usize>().max(1));
    let mut values = Vec::new();
    if arrange == Arrange::Turned || (shape.len() < 2 && arrange != Arrange::AsStored) {
        kind.extend_f32(&file.read(bytes)?, &mut values);
        let ordered: Vec<f32> = match arrange {
            Arrange::PlusOne => values.iter().map(|value| value - 1.0).collect(),
            // Stored as `width` rows of `count`.
            Arrange::Turned => (0..count * width).map(|i| values[i % width * count + i / width]).collect(),
            _ => (0..count).map(|row| values[arrange.row(row)]).collect(),
        };
        take(0, &ordered);
        return Ok(());
    }
    // A vector is one row, whose blocks go over its values.
    let (count, width) = if shape.len() < 2 { (1, count) } else { (count, width) };
    let size = kind.bytes(width);
    let rows = (PIECE / width).max(1);
    let mut piece = Vec::new();
    for first in (0..count).step_by(rows) {
        values.clear();
        let end = (first + rows).min(count);
        if arrange == Arrange::AsStored {
            file.read_into(bytes.start + first * size..bytes.start + end * size, &mut piece)?;
            kind.extend_f32(&piece, &mut values);
        } else {
            for row in first..end {
                let from = bytes.start + arrange.row(row) * size;
                file.read_into(from..from + size, &mut piece)?;
                kind.extend_f32(&piece, &mut values);
            }
        }
        take(first, &values);
    }
    Ok(())
}

/// Appends little-endian bytes of f32, f16 or bf16 as f32; whether the type is one of them.
fn extend_f32(dtype: Dtype, data: &[u8], values: &mut Vec<f32>) -> bool {
    match dtype {
        Dtype::F32 => values.extend(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        Dtype::F16 => values.extend(data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())),
        Dtype::BF16 => values.extend(data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        _ => return false,
    }
    true
}

/// Little-endian bytes of a float type as f32; `None` for another type.
pub fn to_f32(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    let mut values = Vec::with_capacity(data.len() / 2);
    extend_f32(dtype, data, &mut values).then_some(values)
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
