//! Second moments of several layers in one pass.

use std::collections::BTreeMap;

use burn::tensor::{DType, Int, Tensor, TensorData};
use palinode_math::SecondMoment;
use palinode_model::{Batch, Decoder, ModelError, is_host, lanes, pack, read};

use crate::{EditError, Site};

/// Groups of documents at a time at most: each takes the memory of its keys in every layer.
const MOST_LANES: usize = 4;

/// Accumulates the second moment of the keys of every asked layer.
#[derive(Debug, Default)]
pub struct Moments {
    layers: BTreeMap<usize, SecondMoment>,
}

impl Moments {
    /// Of no layers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a layer in, with what is known of it so far ([`SecondMoment::new`] where nothing is). Documents added from now
    /// on count for it.
    ///
    /// # Errors
    /// [`palinode_model::ModelError::Layer`]; [`EditError::Mismatch`] for a moment of another key size.
    pub fn insert(&mut self, decoder: &Decoder, layer: usize, moment: SecondMoment) -> Result<(), EditError> {
        decoder.config().check_layer(layer)?;
        let size = decoder.config().feed_forward;
        if moment.size() != size {
            let message = format!("a second moment of size {}, but keys of size {size}", moment.size());
            return Err(EditError::Mismatch(message));
        }
        self.layers.insert(layer, moment);
        Ok(())
    }

    /// The moments so far, by layer.
    pub fn layers(&self) -> &BTreeMap<usize, SecondMoment> {
        &self.layers
    }

    /// Adds documents, given as token rows, each cut to the model's context; returns the tokens counted. Padding is not
    /// counted. `tokens` bounds a batch's rectangle.
    ///
    /// # Errors
    /// [`palinode_model::ModelError::Readback`]; [`EditError::Math`] where an activation is not finite.
    pub fn add(&mut self, decoder: &Decoder, documents: &[Vec<u32>], tokens: usize) -> Result<u64, EditError> {
        let context = decoder.config().context;
        let rows: Vec<&[u32]> =
            documents.iter().map(|d| &d[..d.len().min(context)]).filter(|d| !d.is_empty()).collect();
        let lengths: Vec<usize> = rows.iter().map(|r| r.len()).collect();
        if self.layers.is_empty() {
            return Ok(0);
        }
        let count: u64 = lengths.iter().map(|&l| l as u64).sum();
        let groups = |tokens| -> Vec<Vec<&[u32]>> {
            pack(&lengths, tokens).iter().map(|group| group.iter().map(|&i| rows[i]).collect()).collect()
        };
        if !is_host(&decoder.device()) {
            let sums = decoder.within(tokens, |tokens| self.sums_there(decoder, &groups(tokens)))?;
            for (sum, (&layer, moment)) in sums.iter().zip(&mut self.layers) {
                moment.add_sum(sum, count).map_err(|source| EditError::Math { layer, source })?;
            }
            return Ok(count);
        }
        let groups = groups(tokens);
        let lanes = lanes::count(&decoder.device(), groups.len(), 1).min(MOST_LANES);
        for some in groups.chunks(lanes) {
            let keys = lanes::map(some.iter().collect(), |group| {
                keys(decoder, group, self.layers.keys())
                    .into_iter()
                    .map(read::<f32, _, _>)
                    .collect::<Result<Vec<_>, _>>()
            });
            let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
            // Each sum takes its keys in the order of the groups: it is the same to the last bit, however many lanes there are.
            let add = |(place, (&layer, moment)): (usize, (&usize, &mut SecondMoment))| {
                keys.iter()
                    .try_for_each(|of| moment.add(&of[place]))
                    .map_err(|source| EditError::Math { layer, source })
            };
            let mut sums: Vec<_> = self.layers.iter_mut().enumerate().collect();
            let parts = sums.len().div_ceil(lanes);
            let mut shares = Vec::new();
            while !sums.is_empty() {
                shares.push(sums.drain(..parts.min(sums.len())).collect::<Vec<_>>());
            }
            lanes::map(shares, |share| share.into_iter().try_for_each(add)).into_iter().collect::<Result<(), _>>()?;
        }
        Ok(count)
    }

    /// Sums of the key products of some groups of rows, `[f, f]` a layer, for a device that is better not asked for every key:
    /// they are made there, and fetched once.
    fn sums_there(&self, decoder: &Decoder, groups: &[Vec<&[u32]>]) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut sums: Vec<Option<Tensor<2>>> = vec![None; self.layers.len()];
        for group in groups {
            for (sum, keys) in sums.iter_mut().zip(keys(decoder, group, self.layers.keys())) {
                let product = gram(keys);
                *sum = Some(match sum.take() {
                    Some(sum) => sum + product,
                    None => product,
                });
            }
        }
        sums.into_iter().flatten().map(read).collect()
    }
}

/// `KᵀK`, `[f, f]`, of keys `[n, f]`, to the accuracy of f32 also on cards that take products of f32 in TF32, with 11 bits of
/// each factor: with `K = H + L`, `H` the 8 bits that bf16 keeps and `L` the rest, `KᵀK = HᵀH + HᵀL + (HᵀL)ᵀ`, where `LᵀL`, below
/// `2⁻¹⁸` of it, is left out.
fn gram(keys: Tensor<2>) -> Tensor<2> {
    let high = keys.clone().cast(DType::BF16).cast(DType::F32);
    let low = keys - high.clone();
    let turned = high.clone().transpose();
    let cross = turned.clone().matmul(low);
    turned.matmul(high) + cross.clone() + cross.transpose()
}

/// Keys of the given layers at every token of some rows, `[tokens, f]` each, padding left out.
fn keys<'a>(decoder: &Decoder, rows: &[&[u32]], layers: impl Iterator<Item = &'a usize>) -> Vec<Tensor<2>> {
    let wanted: Vec<usize> = layers.copied().collect();
    let Some(&last) = wanted.last() else { return Vec::new() };
    let device = decoder.device();
    let batch = Batch::new(rows, &device);
    let width = batch.width();
    let padded = rows.iter().any(|row| row.len() < width);
    let places = padded.then(|| {
        let places: Vec<i32> =
            rows.iter().enumerate().flat_map(|(r, row)| (0..row.len()).map(move |t| (r * width + t) as i32)).collect();
        let n = places.len();
        Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &device)
    });
    let mut found = Vec::new();
    decoder.walk(&batch, last, |layer, output| {
        if wanted.contains(&layer) {
            let keys = Site::Key.of(output);
            found.push(match &places {
                Some(places) => keys.select(0, places.clone()),
                None => keys,
            });
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use palinode_model::{Checkpoint, DecoderConfig};

    use super::*;

    /// Sums made on a device are those that are made here, but for rounding in f32.
    #[test]
    fn sums_made_there_equal_sums_made_here() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama-tiny");
        let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")]).unwrap();
        let decoder = Decoder::load(&checkpoint, &config, &Device::flex()).unwrap();
        let rows: Vec<Vec<u32>> = (0..5).map(|i| (0..4 + 3 * i).map(|t| 3 + (7 * i + t) % 50).collect()).collect();
        let empty = || {
            let mut moments = Moments::new();
            for layer in [0, 1] {
                moments.insert(&decoder, layer, SecondMoment::new(config.feed_forward)).unwrap();
            }
            moments
        };
        let (mut here, mut there) = (empty(), empty());
        here.add(&decoder, &rows, 16).unwrap();
        let groups: Vec<Vec<&[u32]>> = rows.chunks(2).map(|some| some.iter().map(Vec::as_slice).collect()).collect();
        let sums = there.sums_there(&decoder, &groups).unwrap();
        let tokens: usize = rows.iter().map(Vec::len).sum();
        for (sum, moment) in sums.iter().zip(there.layers.values_mut()) {
            moment.add_sum(sum, tokens as u64).unwrap();
        }
        for (layer, one) in here.layers() {
            let other = &there.layers()[layer];
            assert_eq!(one.count(), other.count());
            let far = one.sum().iter().zip(other.sum()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(far <= 1e-5 * one.trace() * one.count() as f64, "layer {layer}: {far:e}");
        }
    }
}
