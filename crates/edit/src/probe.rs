//! Activations at chosen tokens.

use burn::tensor::{Int, Tensor, TensorData};
use palinode_model::{Batch, BlockOutput, Decoder, ModelError, pack};
use serde::{Deserialize, Serialize};

use crate::{EditError, Prompt};

/// A place inside a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Input of the down-projection: an edit's key, size `f`.
    Key,
    /// Output of the feed-forward, size `d`.
    MlpOutput,
    /// Hidden state after the block, size `d`.
    BlockOutput,
}

/// A site of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The layer.
    pub layer: usize,
    /// The site.
    pub site: Site,
}

impl Site {
    /// The site's activations, `[batch · seq, size]`.
    pub(crate) fn of(self, output: &BlockOutput) -> Tensor<2> {
        let tensor = match self {
            Self::Key => &output.key,
            Self::MlpOutput => &output.mlp,
            Self::BlockOutput => &output.hidden,
        };
        let [batch, seq, size] = tensor.dims();
        tensor.clone().reshape([batch * seq, size])
    }
}

/// Activations of every tap at every prompt's fact token; one row-major `[prompts, size]` a tap.
///
/// Runs no further than the last layer tapped. `tokens` bounds a batch's rectangle.
///
/// # Errors
/// [`ModelError::Layer`] for a layer that the model lacks, [`ModelError::Readback`].
pub fn probe(decoder: &Decoder, prompts: &[Prompt], taps: &[Tap], tokens: usize) -> Result<Vec<Vec<f32>>, EditError> {
    let config = decoder.config();
    let mut last = 0;
    for tap in taps {
        config.check_layer(tap.layer)?;
        last = last.max(tap.layer);
    }
    let size = |tap: &Tap| if tap.site == Site::Key { config.feed_forward } else { config.hidden };
    let mut found: Vec<Vec<f32>> = taps.iter().map(|tap| vec![0.0; prompts.len() * size(tap)]).collect();
    let device = decoder.device();
    let lengths: Vec<usize> = prompts.iter().map(|p| p.ids.len()).collect();
    for group in pack(&lengths, tokens) {
        let rows: Vec<&[u32]> = group.iter().map(|&i| prompts[i].ids.as_slice()).collect();
        let batch = Batch::new(&rows, &device);
        let width = batch.width();
        let places: Vec<i32> = group.iter().enumerate().map(|(r, &i)| (r * width + prompts[i].fact) as i32).collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [group.len()]), &device);
        let mut picked: Vec<Option<Tensor<2>>> = vec![None; taps.len()];
        decoder.walk(&batch, last, |layer, output| {
            for (slot, tap) in picked.iter_mut().zip(taps) {
                if tap.layer == layer {
                    *slot = Some(tap.site.of(output).select(0, places.clone()));
                }
            }
        });
        for ((tap, slot), values) in taps.iter().zip(picked).zip(&mut found) {
            let Some(tensor) = slot else { continue };
            let n = size(tap);
            for (row, &i) in read(tensor)?.chunks_exact(n).zip(&group) {
                values[i * n..][..n].copy_from_slice(row);
            }
        }
    }
    Ok(found)
}

/// A tensor's values on the host, row-major.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, EditError> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec::<f32>()
        .map_err(|e| EditError::Model(ModelError::Readback(format!("{e:?}"))))
}
