//! Activations at chosen tokens.

use burn::tensor::{Int, Tensor, TensorData};
use palinode_model::{Batch, BlockOutput, Decoder, ModelError, lanes, pack, read};
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
    Ok(decoder.within(tokens, |tokens| gather(decoder, prompts, taps, last, tokens))?)
}

/// [`probe`] for taps no later than `last`.
fn gather(
    decoder: &Decoder,
    prompts: &[Prompt],
    taps: &[Tap],
    last: usize,
    tokens: usize,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let config = decoder.config();
    let size = |tap: &Tap| if tap.site == Site::Key { config.feed_forward } else { config.hidden };
    let mut found: Vec<Vec<f32>> = taps.iter().map(|tap| vec![0.0; prompts.len() * size(tap)]).collect();
    let device = decoder.device();
    let lengths: Vec<usize> = prompts.iter().map(|p| p.ids.len()).collect();
    let dealt = lanes::deal(&device, pack(&lengths, tokens));
    let picked = lanes::map(dealt, |groups| {
        groups
            .into_iter()
            .map(|group| Ok((picked(decoder, prompts, &group, taps, last)?, group)))
            .collect::<Result<Vec<_>, ModelError>>()
    });
    for (values, group) in picked.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        for ((tap, of), all) in taps.iter().zip(values).zip(&mut found) {
            let n = size(tap);
            for (row, &i) in of.chunks_exact(n).zip(&group) {
                all[i * n..][..n].copy_from_slice(row);
            }
        }
    }
    Ok(found)
}

/// Activations of every tap at the fact tokens of some of the prompts, `[group, size]` each.
fn picked(
    decoder: &Decoder,
    prompts: &[Prompt],
    group: &[usize],
    taps: &[Tap],
    last: usize,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let device = decoder.device();
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
    // `last` is the last of the taps' layers, so that all of them are filled.
    picked.into_iter().flatten().map(read).collect()
}
