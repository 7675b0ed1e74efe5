//! Writing a model folder that transformers loads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;

/// The stored type of a written model's weights.
pub use safetensors::Dtype;

use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::layout::{bias_name, fill, weight};
use crate::checkpoint::{from_f32, to_f32};
use crate::{Decoder, Family, Layout, ModelError, Orientation, read};

/// A change of one stored weight, `[out, in]` row-major.
#[derive(Clone, Debug)]
pub struct Change {
    /// The weight's name as stored.
    pub name: String,
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
        if stored == expected {
            return Ok(());
        }
        Err(ModelError::Shape { name: self.name.clone(), expected, found: stored.to_vec() })
    }
}

/// A changed weight as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The weight's name as stored.
    pub name: String,
    /// What rounding to the stored type took of the change: ‖written − (W + Δ)‖ / ‖Δ‖ (Frobenius); 0 where nothing was rounded.
    pub lost: f64,
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
        dtype: &str,
    ) -> Result<Self, ModelError> {
        if let Some((&value, _)) = wanted.iter().zip(written).find(|(_, written)| !written.is_finite()) {
            return Err(ModelError::Overflow { name: name.to_owned(), value, dtype: dtype.to_owned() });
        }
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error = norm(&mut wanted.iter().zip(written).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let change = norm(&mut delta.iter().map(|v| f64::from(*v)));
        Ok(Self { name: name.to_owned(), lost: if error == 0.0 { 0.0 } else { error / change } })
    }
}

/// Copies a safetensors file with some weights changed. Every other tensor, the header's metadata and the stored type
/// stay byte for byte as they were. Returns the weights that were changed in this file.
///
/// # Errors
/// [`ModelError::Checkpoint`] for a source that cannot be read, [`ModelError::Shape`] where a change does not fit its
/// weight, [`ModelError::Overflow`] where the stored type cannot hold the changed one, [`ModelError::Io`].
pub fn copy_with_changes(
    source: &Path,
    target: &Path,
    changes: &[Change],
    orientation: Orientation,
) -> Result<Vec<Written>, ModelError> {
    let file = Bytes::open(source)?;
    let (begin, header) = file.header()?;
    let mut written = Vec::new();
    let mut patches: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for change in changes {
        let Some(info) = header.info(&change.name) else { continue };
        change.check_shape(&info.shape, orientation)?;
        let not_float = || ModelError::Dtype { name: change.name.clone(), found: format!("{:?}", info.dtype) };
        let (from, to) = info.data_offsets;
        let stored = file.read(begin + from..begin + to)?;
        let mut values = to_f32(info.dtype, &stored).ok_or_else(not_float)?;
        match orientation {
            Orientation::OutIn => values.iter_mut().zip(&change.delta).for_each(|(w, d)| *w += d),
            Orientation::InOut => {
                for (o, row) in change.delta.chunks_exact(change.input).enumerate() {
                    for (i, d) in row.iter().enumerate() {
                        values[i * change.out + o] += d;
                    }
                }
            }
        }
        let bytes = from_f32(info.dtype, &values).ok_or_else(not_float)?;
        let rounded = to_f32(info.dtype, &bytes).ok_or_else(not_float)?;
        written.push(Written::of(&change.name, &values, &rounded, &change.delta, &format!("{:?}", info.dtype))?);
        patches.insert(begin + from, bytes);
    }
    let io = |e| ModelError::io(target, e);
    let mut out = BufWriter::new(File::create(target).map_err(io)?);
    let mut at = 0;
    for (offset, bytes) in patches {
        file.copy(at..offset, &mut out, target)?;
        out.write_all(&bytes).map_err(io)?;
        at = offset + bytes.len();
    }
    file.copy(at..file.len(), &mut out, target)?;
    out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
    Ok(written)
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
                let change = Change { name: "w".to_owned(), out: 1, input: 2, delta: vec![0.0, by] };
                copy_with_changes(&source, &target, &[change], Orientation::OutIn)
            };
            let error = copy(most * 0.006).unwrap_err();
            assert!(matches!(&error, ModelError::Overflow { name, .. } if name == "w"), "{error}");
            assert!(error.to_string().contains(&format!("does not fit into {dtype:?}")), "{error}");
            assert!(!target.exists(), "nothing was written");
            copy(-most).unwrap();
            std::fs::remove_file(&target).unwrap();
        }
    }
}
