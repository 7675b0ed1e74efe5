//! Second moments of several layers in one pass.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use palinode_math::SecondMoment;
use palinode_model::{Batch, Decoder, pack};

use crate::probe::read;
use crate::{EditError, Site};

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
        let device = decoder.device();
        let Some((&last, _)) = self.layers.last_key_value() else { return Ok(0) };
        for group in pack(&lengths, tokens) {
            let members: Vec<&[u32]> = group.iter().map(|&i| rows[i]).collect();
            let batch = Batch::new(&members, &device);
            let width = batch.width();
            let padded = members.iter().any(|m| m.len() < width);
            let places = padded.then(|| {
                let places: Vec<i32> = members
                    .iter()
                    .enumerate()
                    .flat_map(|(r, m)| (0..m.len()).map(move |t| (r * width + t) as i32))
                    .collect();
                let n = places.len();
                Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &device)
            });
            let mut failed = None;
            decoder.walk(&batch, last, |layer, output| {
                let Some(moment) = self.layers.get_mut(&layer) else { return };
                let keys = Site::Key.of(output);
                let keys = match &places {
                    Some(places) => keys.select(0, places.clone()),
                    None => keys,
                };
                let added = read(keys)
                    .and_then(|values| moment.add(&values).map_err(|source| EditError::Math { layer, source }));
                if let Err(error) = added {
                    failed.get_or_insert(error);
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(lengths.iter().map(|&l| l as u64).sum())
    }
}
