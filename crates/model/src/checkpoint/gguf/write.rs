//! An edited model as a GGUF file, and as a folder in Hugging Face's layout.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::blocks::GgufType;
use crate::checkpoint::gguf::config::config_json;
use crate::checkpoint::gguf::read::{Gguf, Tensor};
use crate::checkpoint::gguf::tensors::{Arrange, places};
use crate::checkpoint::gguf::tokenizer::tokenizer_json;
use crate::checkpoint::save::{Change, Written, spare};
use crate::{DecoderConfig, Layout, ModelError, Orientation};

/// The type of edited tensors in a written file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EditedType {
    /// A float type stays, a quantized one becomes half precision; f32 where that would lose more than
    /// [`LARGE_SHARE`](crate::save::LARGE_SHARE) of a tensor's change.
    #[default]
    Auto,
    /// Half precision, of what is quantized.
    F16,
    /// Eight bits and a scale for 32 values, of what is quantized.
    Q8,
    /// Single precision, of every edited tensor.
    F32,
}

impl EditedType {
    /// What an edited tensor is written as, but for what is spared.
    fn usual(self, tensor: &Tensor) -> GgufType {
        let row = tensor.shape.last().copied().unwrap_or(1);
        match (self, tensor.kind) {
            (Self::F32, _) => GgufType::F32,
            (_, float @ (GgufType::F32 | GgufType::F16 | GgufType::BF16)) => float,
            (Self::Q8, _) if row.is_multiple_of(GgufType::Q8_0.block().0) => GgufType::Q8_0,
            _ => GgufType::F16,
        }
    }
}

/// Whether a file says that it is GGUF.
pub fn is_gguf(path: &Path) -> bool {
    Gguf::is(path)
}

/// What a folder in Hugging Face's layout has beside its weights, made of a GGUF file's metadata: names and texts of config.json,
/// tokenizer.json and tokenizer_config.json.
///
/// # Errors
/// As opening the file.
pub fn companions_of_gguf(path: &Path) -> Result<[(&'static str, String); 3], ModelError> {
    let file = Gguf::open(path)?;
    let (tokenizer, settings) = tokenizer_json(&file)?;
    Ok([("config.json", config_json(&file)?), ("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)])
}

/// The licence that a GGUF file's metadata names, where it names one.
///
/// # Errors
/// As opening the file.
pub fn licence_of_gguf(path: &Path) -> Result<Option<String>, ModelError> {
    Ok(Gguf::open(path)?.text("general.license")?.map(str::to_owned))
}

/// Copies a GGUF file with some weights changed. Metadata and all other tensors stay byte for byte as they were. Changed tensors are written
/// as `kind` says: the type of a quantized one could not hold a small change. Returns the weights that were changed.
///
/// # Errors
/// As opening the source; [`ModelError::Shape`] where a change does not fit its weight; [`ModelError::Overflow`] for a value that the type
/// cannot hold; [`ModelError::Io`].
pub fn copy_gguf_with_changes(
    source: &Path,
    target: &Path,
    changes: &[Change],
    kind: EditedType,
) -> Result<Vec<Written>, ModelError> {
    let file = Gguf::open(source)?;
    let config = DecoderConfig::from_hf(&config_json(&file)?, source)?;
    let places = places(&file, &config)?;
    let mut of_tensor: BTreeMap<usize, &Change> = BTreeMap::new();
    for change in changes {
        let Some(place) = places.get(&change.name) else {
            return Err(ModelError::MissingTensor { name: change.name.clone(), nearest: None });
        };
        // GGUF has every projection as [out, in], whatever the family's own layout.
        let found = &file.tensors[place.tensor].shape;
        change.check_shape(found, Orientation::OutIn)?;
        if !matches!(place.arrange, Arrange::AsStored | Arrange::Turned) {
            let expected = vec![change.out, change.input];
            return Err(ModelError::Shape { name: change.name.clone(), expected, found: found.clone() });
        }
        of_tensor.insert(place.tensor, change);
    }
    // Sizes stand in front of the data: what each edited tensor becomes is tried first.
    let mut chosen: BTreeMap<usize, Written> = BTreeMap::new();
    let mut types: BTreeMap<usize, GgufType> = BTreeMap::new();
    for (&index, change) in &of_tensor {
        let tensor = &file.tensors[index];
        let mut values = file.values(tensor)?;
        values.iter_mut().zip(&change.delta).for_each(|(w, d)| *w += d);
        let as_type = |kind: GgufType| {
            let bytes = encoded(kind, &values).ok_or_else(|| ModelError::Overflow {
                name: tensor.name.clone(),
                value: values.iter().fold(0f32, |most, v| if v.abs() > most.abs() { *v } else { most }),
                dtype: format!("{kind:?}"),
            })?;
            let mut rounded = Vec::with_capacity(values.len());
            kind.extend_f32(&bytes, &mut rounded);
            let types = [tensor.kind, kind].map(|kind| format!("{kind:?}"));
            Ok((Written::of(&change.name, &values, &rounded, &change.delta, types)?, kind))
        };
        let usual = as_type(kind.usual(tensor));
        let (written, made) = if kind == EditedType::Auto { spare(usual, || as_type(GgufType::F32))? } else { usual? };
        chosen.insert(index, written);
        types.insert(index, made);
    }
    let stored = |index: usize, tensor: &Tensor| types.get(&index).copied().unwrap_or(tensor.kind);

    let mut head = file.head().to_vec();
    let mut at = 0;
    for (index, tensor) in file.tensors.iter().enumerate() {
        let kind = stored(index, tensor);
        head.extend((tensor.name.len() as u64).to_le_bytes());
        head.extend(tensor.name.as_bytes());
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|side| head.extend((*side as u64).to_le_bytes()));
        head.extend(kind.number().to_le_bytes());
        head.extend((at as u64).to_le_bytes());
        at = (at + kind.bytes(tensor.shape.iter().product())).next_multiple_of(file.alignment);
    }
    head.resize(head.len().next_multiple_of(file.alignment), 0);
    let io = |e| ModelError::io(target, e);
    let mut out = BufWriter::new(File::create(target).map_err(io)?);
    out.write_all(&head).map_err(io)?;
    for (index, tensor) in file.tensors.iter().enumerate() {
        let written = match of_tensor.get(&index) {
            None => {
                file.bytes.copy(tensor.bytes.clone(), &mut out, target)?;
                tensor.bytes.len()
            }
            Some(change) => {
                let mut values = file.values(tensor)?;
                values.iter_mut().zip(&change.delta).for_each(|(w, d)| *w += d);
                let kind = stored(index, tensor);
                let bytes = encoded(kind, &values).ok_or_else(|| {
                    file.wrong(format!("an edited value of {} is too large for {kind:?}", tensor.name))
                })?;
                out.write_all(&bytes).map_err(io)?;
                bytes.len()
            }
        };
        out.write_all(&vec![0; written.next_multiple_of(file.alignment) - written]).map_err(io)?;
    }
    out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
    Ok(chosen.into_values().collect())
}

/// Values as a type that edited tensors are written in; `None` where one does not fit.
fn encoded(kind: GgufType, values: &[f32]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(kind.bytes(values.len()));
    match kind {
        GgufType::F32 => values.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        GgufType::BF16 => values.iter().for_each(|v| bytes.extend(bf16::from_f32(*v).to_le_bytes())),
        GgufType::Q8_0 => {
            for block in values.chunks_exact(kind.block().0) {
                let scale = block.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                if !f16::from_f32(scale).is_finite() {
                    return None;
                }
                bytes.extend(f16::from_f32(scale).to_le_bytes());
                bytes.extend(block.iter().map(|v| ((v * inverse).round() as i8).cast_unsigned()));
            }
        }
        _ => {
            for v in values {
                let half = f16::from_f32(*v);
                if !half.is_finite() {
                    return None;
                }
                bytes.extend(half.to_le_bytes());
            }
        }
    }
    Some(bytes)
}

/// Writes a GGUF file's weights, some of them changed, as one safetensors file in f32 under Hugging Face's names: every value is what the
/// decoder computes with.
///
/// # Errors
/// As opening the source; [`ModelError::Shape`] where a change does not fit its weight; [`ModelError::Io`].
pub fn write_gguf_as_safetensors(source: &Path, target: &Path, changes: &[Change]) -> Result<Vec<Written>, ModelError> {
    let checkpoint = Checkpoint::open(&[source.to_owned()])?;
    let config = DecoderConfig::read(source)?;
    let layout = Layout::of(&config);
    checkpoint.check(&config, &layout)?;
    let tensors = layout.tensors(&config);
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut at = 0;
    for (name, shape) in &tensors {
        let end = at + shape.iter().product::<usize>() * size_of::<f32>();
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let io = |e| ModelError::io(target, e);
    let mut out = BufWriter::new(File::create(target).map_err(io)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    out.write_all(header.as_bytes()).map_err(io)?;
    for (name, shape) in &tensors {
        let change = changes.iter().find(|change| change.name == *name);
        if let Some(change) = change {
            change.check_shape(shape, layout.orientation)?;
        }
        let width = shape.iter().skip(1).product::<usize>().max(1);
        let mut failed = Ok(());
        checkpoint.read_rows(name, shape, |first, rows| {
            let place = |i: usize| first * width + i;
            let delta = |i: usize| match (change, layout.orientation) {
                (None, _) => 0.0,
                (Some(change), Orientation::OutIn) => change.delta[place(i)],
                (Some(change), Orientation::InOut) => {
                    change.delta[place(i) % change.out * change.input + place(i) / change.out]
                }
            };
            let bytes: Vec<u8> = rows.iter().enumerate().flat_map(|(i, v)| (v + delta(i)).to_le_bytes()).collect();
            if failed.is_ok() {
                failed = out.write_all(&bytes);
            }
        })?;
        failed.map_err(io)?;
    }
    out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
    let known = changes.iter().filter(|change| tensors.iter().any(|(name, _)| *name == change.name));
    let written = |change: &Change| {
        let stored = checkpoint.stored(&change.name).map(|(kind, _)| kind).unwrap_or_default();
        let norm = change.delta.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let dtype = "F32".to_owned();
        Written { name: change.name.clone(), stored, dtype, lost: 0.0, spared: None, change: norm }
    };
    Ok(known.map(written).collect())
}
