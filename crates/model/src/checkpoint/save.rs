//! Writing a model folder that transformers loads.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;

/// The stored type of a written model's weights.
pub use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::layout::{bias_name, fill, weight};
use crate::checkpoint::{from_f32, to_f32};
use crate::{Decoder, Family, Layout, ModelError, Orientation, Precision, read};

/// A change of one stored weight, `[out, in]` row-major.
#[derive(Clone, Debug)]
pub struct Change {
    /// The weight's name as stored.
    pub name: String,
    /// Which of several it is that are stored in one tensor, `[several, out, in]`.
    pub part: Option<usize>,
    /// Rows.
    pub out: usize,
    /// Columns.
    pub input: usize,
    /// Added to the weight.
    pub delta: Vec<f32>,
}

impl Change {
    /// Fails unless a tensor that is stored in this shape is the weight. A bias, `[out, 1]`, is stored as `[out]`.
    pub(crate) fn check_shape(&self, stored: &[usize], orientation: Orientation) -> Result<(), ModelError> {
        let expected = match orientation {
            _ if self.input == 1 && stored.len() == 1 => vec![self.out],
            Orientation::InOut => vec![self.input, self.out],
            Orientation::OutIn => vec![self.out, self.input],
        };
        let fits = match (self.part, stored) {
            (None, stored) => stored == expected,
            (Some(part), [several, own @ ..]) => part < *several && own == expected,
            (Some(_), []) => false,
        };
        if fits {
            return Ok(());
        }
        Err(ModelError::Shape { name: self.name.clone(), expected, found: stored.to_vec() })
    }

    /// Adds it to the weight's values as they are stored.
    fn add_to(&self, values: &mut [f32], orientation: Orientation) {
        match orientation {
            Orientation::OutIn => values.iter_mut().zip(&self.delta).for_each(|(w, d)| *w += d),
            Orientation::InOut => {
                for (o, row) in self.delta.chunks_exact(self.input).enumerate() {
                    for (i, d) in row.iter().enumerate() {
                        values[i * self.out + o] += d;
                    }
                }
            }
        }
    }
}

/// What changed weights are written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangedType {
    /// As they were stored, and in f32 where that would lose more than [`LARGE_SHARE`] of a weight's change.
    #[default]
    Auto,
    /// As they were stored.
    Stored,
    /// In one type.
    As(Precision),
}

/// A share of a change that is worth a wider type when rounding loses it.
pub const LARGE_SHARE: f64 = 0.05;

/// A changed weight as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The weight's name as stored.
    pub name: String,
    /// The name of the type in which the unedited weight is stored.
    pub stored: String,
    /// The name of the type in which the changed weight is written.
    pub dtype: String,
    /// What rounding to the written type took of the change: ‖written − (W + Δ)‖ / ‖Δ‖ (Frobenius); 0 where nothing was rounded.
    pub lost: f64,
    /// What the usual type would have taken of it, where that was too much.
    pub spared: Option<f64>,
    /// ‖Δ‖ (Frobenius).
    pub change: f64,
}

impl Written {
    /// Of a weight that should have become `wanted` by `delta`, and reads back as `written`, in the same order, from the type `dtype`.
    ///
    /// # Errors
    /// [`ModelError::Overflow`]: an infinite weight makes every answer of the model a NaN.
    pub(crate) fn of(
        name: &str,
        wanted: &[f32],
        written: &[f32],
        delta: &[f32],
        [stored, dtype]: [String; 2],
    ) -> Result<Self, ModelError> {
        if let Some((&value, _)) = wanted.iter().zip(written).find(|(_, written)| !written.is_finite()) {
            return Err(ModelError::Overflow { name: name.to_owned(), value, dtype });
        }
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error = norm(&mut wanted.iter().zip(written).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let change = norm(&mut delta.iter().map(|v| f64::from(*v)));
        let lost = if error == 0.0 { 0.0 } else { error / change };
        Ok(Self { name: name.to_owned(), stored, dtype, lost, spared: None, change })
    }

    /// What was lost of all changes together: the root of the sum of squares of the errors, over that of the changes.
    pub fn lost_in_all(all: &[Self]) -> f64 {
        let square = |of: fn(&Self) -> f64| all.iter().map(|weight| of(weight).powi(2)).sum::<f64>();
        let error = square(|weight| weight.lost * weight.change);
        if error == 0.0 { 0.0 } else { (error / square(|weight| weight.change)).sqrt() }
    }
}

/// Copies a safetensors file with some weights changed. Every other tensor and the header's metadata stay byte for byte as they were, and
/// so does the header where every weight keeps its stored type. Otherwise tensors are put in the order that writers of safetensors give
/// them: wider types first, then by name. `kind` says what each changed weight is written as. Returns the weights that were changed in this file.
///
/// # Errors
/// [`ModelError::Checkpoint`] for a source that cannot be read, [`ModelError::Shape`] where a change does not fit its
/// weight, [`ModelError::Overflow`] where the written type cannot hold the changed one, [`ModelError::Io`].
pub fn copy_with_changes(
    source: &Path,
    target: &Path,
    changes: &[Change],
    orientation: Orientation,
    kind: &dyn Fn(&str) -> ChangedType,
) -> Result<Vec<Written>, ModelError> {
    let file = Bytes::open(source)?;
    let (begin, header) = file.header()?;
    let mut written = Vec::new();
    let mut patches: BTreeMap<String, (Dtype, Vec<u8>)> = BTreeMap::new();
    for (i, first) in changes.iter().enumerate() {
        let Some(info) = header.info(&first.name) else { continue };
        if changes[..i].iter().any(|change| change.name == first.name) {
            // Changed with the first of its tensor.
            continue;
        }
        let not_float = || ModelError::Dtype { name: first.name.clone(), found: format!("{:?}", info.dtype) };
        let (from, to) = info.data_offsets;
        let stored = file.read(begin + from..begin + to)?;
        let mut values = to_f32(info.dtype, &stored).ok_or_else(not_float)?;
        drop(stored);
        let mut delta = vec![0.0; if first.part.is_some() { values.len() } else { 0 }];
        for change in changes[i..].iter().filter(|change| change.name == first.name) {
            change.check_shape(&info.shape, orientation)?;
            let at = change.part.unwrap_or(0) * change.delta.len();
            let own = at..at + change.delta.len();
            change.add_to(&mut values[own.clone()], orientation);
            if change.part.is_some() {
                delta[own].copy_from_slice(&change.delta);
            }
        }
        let delta = if first.part.is_some() { &delta } else { &first.delta };
        let as_type = |dtype: Dtype| {
            let bytes = from_f32(dtype, &values).ok_or_else(not_float)?;
            let rounded = to_f32(dtype, &bytes).ok_or_else(not_float)?;
            let types = [info.dtype, dtype].map(|dtype| format!("{dtype:?}"));
            Ok((Written::of(&first.name, &values, &rounded, delta, types)?, (dtype, bytes)))
        };
        let made = match kind(&first.name) {
            ChangedType::As(Precision::F32) => as_type(Dtype::F32)?,
            ChangedType::As(Precision::F16) => as_type(Dtype::F16)?,
            ChangedType::As(Precision::Bf16) => as_type(Dtype::BF16)?,
            ChangedType::Stored => as_type(info.dtype)?,
            ChangedType::Auto => spare(as_type(info.dtype), || as_type(Dtype::F32))?,
        };
        written.push(made.0);
        patches.insert(first.name.clone(), made.1);
    }
    let io = |e| ModelError::io(target, e);
    let mut out = BufWriter::new(File::create(target).map_err(io)?);
    let order = header.offset_keys();
    let same = patches.iter().all(|(name, (dtype, _))| header.info(name).is_some_and(|info| info.dtype == *dtype));
    let order = if same {
        file.copy(0..begin, &mut out, target)?;
        order
    } else {
        let (text, order) = retyped(&header, order, &patches);
        out.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(text.as_bytes()).map_err(io)?;
        order
    };
    for name in order {
        match (patches.get(&name), header.info(&name)) {
            (Some((_, bytes)), _) => out.write_all(bytes).map_err(io)?,
            (None, Some(info)) => {
                let (from, to) = info.data_offsets;
                file.copy(begin + from..begin + to, &mut out, target)?;
            }
            (None, None) => {}
        }
    }
    out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
    Ok(written)
}

/// What was written as usual, or `wider` where that lost too much of the change or cannot hold the weight.
pub(crate) fn spare<T>(
    usual: Result<(Written, T), ModelError>,
    wider: impl FnOnce() -> Result<(Written, T), ModelError>,
) -> Result<(Written, T), ModelError> {
    let lost = match &usual {
        Ok((written, _)) if written.lost <= LARGE_SHARE => return usual,
        Ok((written, _)) => Some(written.lost),
        Err(ModelError::Overflow { .. }) => None,
        Err(_) => return usual,
    };
    drop(usual);
    let (written, bytes) = wider()?;
    Ok((Written { spared: lost, ..written }, bytes))
}

/// A header in which some tensors have another type, and the tensors in the order of their data.
fn retyped(
    header: &Metadata,
    mut order: Vec<String>,
    patches: &BTreeMap<String, (Dtype, Vec<u8>)>,
) -> (String, Vec<String>) {
    let of = |name: &String| {
        let info = header.info(name)?;
        let stored = info.data_offsets.1 - info.data_offsets.0;
        Some(patches.get(name).map_or((info.dtype, stored), |(dtype, bytes)| (*dtype, bytes.len())))
    };
    order.sort_by_key(|name| (Reverse(of(name).map(|(dtype, _)| dtype)), name.clone()));
    let mut fields = Vec::new();
    if let Some(metadata) = header.metadata() {
        // In one order, whatever the order in which they were read.
        let metadata: BTreeMap<_, _> = metadata.iter().collect();
        fields.push(format!("\"__metadata__\":{}", json!(metadata)));
    }
    let mut at = 0;
    for name in &order {
        let (Some(info), Some((dtype, size))) = (header.info(name), of(name)) else { continue };
        let tensor = TensorInfo { dtype, shape: info.shape.clone(), data_offsets: (at, at + size) };
        // As a struct, whose fields come in the order in which writers of safetensors have them.
        let tensor = serde_json::to_string(&tensor).unwrap_or_default();
        fields.push(format!("{}:{tensor}", json!(name)));
        at += size;
    }
    let mut text = format!("{{{}}}", fields.join(","));
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    (text, order)
}

/// Name, shape and values of a tensor on its way to a file.
type Named = (String, Vec<usize>, Vec<f32>);

/// Writes a GPT-2 decoder's weights as safetensors under Hugging Face's names, as a training program does.
///
/// # Errors
/// [`ModelError::Config`] for another family, whose fused projections are not taken apart again; [`ModelError::Io`].
pub fn write_weights(decoder: &Decoder, dtype: Dtype, target: &Path) -> Result<(), ModelError> {
    let config = decoder.config();
    if config.family != Family::Gpt2 {
        let message = format!("weights of {} are copied from a checkpoint, not written anew", config.family.name());
        return Err(ModelError::config(target, message));
    }
    let layout = Layout::of(config);
    let p = decoder.ends();
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, values: Vec<f32>| {
        if let Some(bytes) = from_f32(dtype, &values) {
            all.push((name, shape, bytes));
        }
    };
    let matrix = |t: &Param<Tensor<2>>| {
        let t = t.val().without_autodiff();
        let shape = t.dims().to_vec();
        read(t).map(|v| (shape, v))
    };
    let vector = |t: &Param<Tensor<1>>| {
        let t = t.val().without_autodiff();
        let shape = t.dims().to_vec();
        read(t).map(|v| (shape, v))
    };
    let (shape, values) = matrix(&p.token_embedding)?;
    add(layout.token_embedding.into(), shape, values);
    if let Some(positions) = &p.position_embedding {
        let (shape, values) = matrix(positions)?;
        add(layout.position_embedding.into(), shape, values);
    }
    let norms = |stem: String, norm: &crate::decoder::block::Norm| -> Result<Vec<Named>, ModelError> {
        let (shape, values) = vector(&norm.weight)?;
        let mut out = vec![(format!("{stem}.weight"), shape, values)];
        if let Some(bias) = &norm.bias {
            let (shape, values) = vector(bias)?;
            out.push((format!("{stem}.bias"), shape, values));
        }
        Ok(out)
    };
    for layer in 0..config.layers {
        let block = decoder.lend(layer)?;
        for (stem, norm) in [(layout.norm_1, &block.norm_1), (layout.norm_2, &block.norm_2)] {
            let Some(norm) = norm else { continue };
            for (name, shape, values) in norms(fill(stem, layer), norm)? {
                add(name, shape, values);
            }
        }
        let projections = [
            (layout.qkv[0], &block.qkv),
            (layout.attention_out, &block.attention_out),
            (layout.up, &block.up),
            (layout.down, &block.down),
        ];
        for (stem, linear) in projections {
            let (shape, values) = matrix(&linear.weight)?;
            add(weight(stem, layer), shape, values);
            if let Some(bias) = &linear.bias {
                let (shape, values) = vector(bias)?;
                add(bias_name(stem, layer), shape, values);
            }
        }
    }
    for (name, shape, values) in norms(layout.final_norm.into(), &p.final_norm)? {
        add(name, shape, values);
    }
    let views: Vec<_> = all
        .iter()
        .map(|(name, shape, bytes)| {
            safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).map(|v| (name, v))
        })
        .collect::<Result<_, _>>()
        .map_err(|e| ModelError::Checkpoint { path: target.into(), message: e.to_string() })?;
    // transformers refuses a file whose metadata does not name its framework.
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), target)
        .map_err(|e| ModelError::Checkpoint { path: target.into(), message: e.to_string() })
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn what_the_stored_type_cannot_hold_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        for (dtype, most) in [(Dtype::F16, 65504.0), (Dtype::BF16, 3.38e38)] {
            let bytes = from_f32(dtype, &[1.0, most]).unwrap();
            let view = TensorView::new(dtype, vec![1, 2], &bytes).unwrap();
            safetensors::serialize_to_file([("w", view)], None, &source).unwrap();
            let copy = |by: f32| {
                let change = Change { name: "w".to_owned(), part: None, out: 1, input: 2, delta: vec![0.0, by] };
                copy_with_changes(&source, &target, &[change], Orientation::OutIn, &|_| ChangedType::Stored)
            };
            let error = copy(most * 0.006).unwrap_err();
            assert!(matches!(&error, ModelError::Overflow { name, .. } if name == "w"), "{error}");
            assert!(error.to_string().contains(&format!("does not fit into {dtype:?}")), "{error}");
            assert!(!target.exists(), "nothing was written");
            copy(-most).unwrap();
            std::fs::remove_file(&target).unwrap();
        }
    }

    /// A weight whose change its type would lose is written in f32, and everything else stays as it is; written back in its own type, the
    /// file is what it was.
    #[test]
    fn what_rounding_would_lose_is_kept_in_a_wider_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (before, edited, after) = (path("a.safetensors"), path("b.safetensors"), path("c.safetensors"));
        let bytes = from_f32(Dtype::BF16, &[1.0, -2.0, 3.0]).unwrap();
        let view = || TensorView::new(Dtype::BF16, vec![1, 3], &bytes).unwrap();
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file([("a", view()), ("w", view()), ("z", view())], Some(metadata), &before).unwrap();
        let change = |by: f32| Change { name: "w".to_owned(), part: None, out: 1, input: 3, delta: vec![by; 3] };
        let copy = |from: &Path, to: &Path, by: f32, kind| {
            copy_with_changes(from, to, &[change(by)], Orientation::OutIn, &|_| kind).unwrap().remove(0)
        };
        // Less than half a step of each value.
        let small = 2f32.powi(-10);
        let lost = copy(&before, &edited, small, ChangedType::Stored);
        assert_eq!((lost.lost, lost.dtype.as_str(), lost.spared), (1.0, "BF16", None));
        let kept = copy(&before, &edited, small, ChangedType::Auto);
        assert_eq!((kept.lost, kept.dtype.as_str(), kept.stored.as_str()), (0.0, "F32", "BF16"));
        assert_eq!(kept.spared, Some(1.0));
        assert_eq!(Written::lost_in_all(&[lost.clone(), kept.clone()]), 0.5f64.sqrt());
        let read = std::fs::read(&edited).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&read).unwrap();
        let w = tensors.tensor("w").unwrap();
        assert_eq!((w.dtype(), to_f32(Dtype::F32, w.data()).unwrap()[0]), (Dtype::F32, 1.0 + small));
        for other in ["a", "z"] {
            assert_eq!(tensors.tensor(other).unwrap(), view());
        }
        let wide = copy(&before, &after, 1.0, ChangedType::Auto);
        assert_eq!((wide.lost, wide.dtype.as_str(), wide.spared), (0.0, "BF16", None));
        copy(&edited, &after, -small, ChangedType::As(Precision::Bf16));
        assert!(std::fs::read(&before).unwrap() == std::fs::read(&after).unwrap());
    }
}
