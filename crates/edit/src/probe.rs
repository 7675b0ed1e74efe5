//! Activations at chosen tokens.

use burn::tensor::Tensor;
use palinode_model::{
    Activations, Beyond, BlockOutput, Decoder, DecoderConfig, ModelError, Places, Rows, Visit, read, worker_pool,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EditError, Prompt};

/// A place inside a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Input of the down-projection: an edit's key, size `f`.
    Key,
    /// Output of the feed-forward's down-projection, size `d`.
    MlpOutput,
    /// Hidden state after the block, size `d`.
    BlockOutput,
}

/// Where a target is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetSite {
    /// The hidden state after the block (MEMIT, EMMET); of models whose feed-forward has a norm behind it, as `mlp_output`.
    BlockOutput,
    /// The output of the feed-forward network (ROME).
    MlpOutput,
    /// The output of the feed-forward network, found together with a vector at the output of the attention of the same layer and token,
    /// which helps the search and is written nowhere (PMET).
    MlpWithAttention,
}

impl TargetSite {
    /// Vectors that are searched for together.
    pub fn vectors(self) -> usize {
        match self {
            Self::BlockOutput | Self::MlpOutput => 1,
            Self::MlpWithAttention => 2,
        }
    }
}

impl Site {
    /// Where a model's targets are measured: behind a norm, where no value of the hidden state says what the projection should give, that is
    /// the projection's own output.
    pub fn of_target(site: TargetSite, config: &DecoderConfig) -> Self {
        match site {
            TargetSite::BlockOutput if config.beyond() != Beyond::Norm => Self::BlockOutput,
            _ => Self::MlpOutput,
        }
    }

    /// What is missing at this site is so many times what is missing at the down-projection's output.
    pub fn multiplier(self, config: &DecoderConfig) -> f64 {
        match (self, config.beyond()) {
            (Self::BlockOutput, Beyond::Multiplier(multiplier)) => multiplier,
            _ => 1.0,
        }
    }
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
    /// The site's activations at some places, `[places, size]`.
    pub(crate) fn at(self, output: &BlockOutput, places: &Places) -> Result<Tensor<2>, ModelError> {
        match self {
            Self::Key => output.key.at(places),
            Self::MlpOutput => Ok(output.mlp.at(places)),
            Self::BlockOutput => Ok(output.hidden.at(places)),
        }
    }
}

/// Activations of every tap at every prompt's fact token; one row-major `[prompts, size]` a tap.
///
/// Runs no further than the last layer tapped. `tokens` bounds the tokens of a batch, padding included. Streamed blocks are read once for
/// all batches.
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
    Ok(decoder.within(tokens, |tokens| collect(decoder, prompts, taps, last, tokens))?)
}

/// [`probe`] for taps no later than `last`.
fn collect(
    decoder: &Decoder,
    prompts: &[Prompt],
    taps: &[Tap],
    last: usize,
    tokens: usize,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let config = decoder.config();
    let size = |tap: &Tap| if tap.site == Site::Key { config.key_size(tap.layer) } else { config.hidden };
    let mut found: Vec<Vec<f32>> = taps.iter().map(|tap| vec![0.0; prompts.len() * size(tap)]).collect();
    let lengths: Vec<usize> = prompts.iter().map(|p| p.ids.len()).collect();
    let groups = decoder.batches(&lengths, tokens);
    let visits = groups.into_iter().map(|group| {
        let prompts = group.iter().map(|&i| &prompts[i]).collect();
        AtFacts { group, prompts, taps, places: None, values: vec![None; taps.len()] }
    });
    for (values, group) in decoder.visit_all(visits.collect(), last, worker_pool::MOST)? {
        for ((tap, of), all) in taps.iter().zip(values).zip(&mut found) {
            let n = size(tap);
            for (row, &i) in of.chunks_exact(n).zip(&group) {
                all[i * n..][..n].copy_from_slice(row);
            }
        }
    }
    Ok(found)
}

/// Activations of every tap at the fact tokens of some of the prompts.
struct AtFacts<'a> {
    /// The prompts' numbers.
    group: Vec<usize>,
    prompts: Vec<&'a Prompt>,
    taps: &'a [Tap],
    places: Option<Places>,
    /// `[group, size]` of each tap.
    values: Vec<Option<Tensor<2>>>,
}

impl Visit for AtFacts<'_> {
    /// Values of each tap, row-major, and the prompts that they are of.
    type Found = (Vec<Vec<f32>>, Vec<usize>);

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let ids: Vec<&[u32]> = self.prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let rows = decoder.rows(&ids);
        self.places = Some(rows.places(self.prompts.iter().enumerate().map(|(row, prompt)| (row, prompt.fact))));
        rows
    }

    fn see(&mut self, layer: usize, output: &BlockOutput) -> Result<(), ModelError> {
        for (value, tap) in self.values.iter_mut().zip(self.taps).filter(|(_, tap)| tap.layer == layer) {
            *value = self.places.as_ref().map(|places| tap.site.at(output, places)).transpose()?;
        }
        Ok(())
    }

    fn finish(self, _: &Decoder, _: &Activations) -> Result<Self::Found, ModelError> {
        // The way ended at the last of the taps' layers, so that all of them have a value.
        let values = self.values.into_iter().flatten().map(read).collect::<Result<_, _>>()?;
        Ok((values, self.group))
    }
}
