//! How second moments fit their own corpus.
//!
//! Every document counts for `C`, and none is set apart: `C` stays what it was, and no text is lost to it. What a sample says is held out all
//! the same, because a document's own part can be taken out of `C` afterwards ([`Fit::held_out`]). The sample is the first documents of the
//! seeded order, which another number of documents, an interruption or a resumed run does not change.

use std::collections::BTreeMap;

use palinode_data::Corpus;
use palinode_edit::keys_by_document;
use palinode_engine::{Error, StageContext};
use palinode_math::{Fit, Mat, PartKeys, SecondMoment, difference_of_updates};

use crate::artifacts::model::Loaded;
use crate::artifacts::moments::{Gathered, Halves};
use crate::errors::StageFailure;
use crate::sources::corpus::encode;

/// Tokens that are looked at, those of a document, and the fewest documents.
const TOKENS: usize = 512;
const PIECE: usize = 256;
const DOCUMENTS: usize = 4;

/// What is usual: the figure is `1/(1 − f/N)` or so for N independent keys, and text is less independent than that.
const USUAL: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// Keys of each layer for which it is looked how far an update would be another on the other half of the text.
const UPDATES: usize = 64;

/// Documents that second moments were measured on, with their keys by layer. Of a long one the beginning stands for all: the rest of it stays
/// in `C`. Of a mixture of experts, the keys of those that a token uses are kept: all of them together are some hundred times wider.
pub struct Sample(Vec<BTreeMap<usize, PartKeys>>);

impl Sample {
    /// The first documents of a corpus of which `read` were measured.
    ///
    /// # Errors
    /// When the corpus cannot be read or tokenized; what running the model failed at.
    pub fn of(
        cx: &StageContext,
        corpus: &mut Corpus,
        model: &Loaded,
        layers: &[usize],
        (cut, read): (usize, usize),
    ) -> Result<Self, Error> {
        let (mut documents, mut tokens) = (Vec::new(), 0);
        for index in 0..read {
            if tokens >= TOKENS && documents.len() >= DOCUMENTS {
                break;
            }
            let text = corpus.read(index).map_err(StageFailure::stage)?;
            let document = encode(&model.text, &text, cut.min(PIECE)).map_err(StageFailure::stage)?;
            tokens += document.len();
            documents.push(document);
        }
        cx.check_interrupt()?;
        Ok(Self(keys_by_document(&model.decoder, &documents, layers).map_err(StageFailure::stage)?))
    }

    /// How far the halves of a layer's second moment are from each other, to three digits, where they are known.
    ///
    /// # Errors
    /// What the mathematics failed at.
    pub fn halves(&self, layer: usize, moment: &SecondMoment) -> Result<Option<Halves>, Error> {
        let Some(difference) = moment.difference() else { return Ok(None) };
        let documents = self.0.iter().filter_map(|keys| keys.get(&layer));
        let all: Vec<(&PartKeys, usize)> =
            documents.flat_map(|keys| (0..keys.tokens()).map(move |token| (keys, token))).collect();
        let some = UPDATES.min(all.len());
        let mut keys = Mat::zeros(moment.size(), some);
        for (at, to) in keys.col_iter_mut().enumerate() {
            let (keys, token) = all[at * all.len() / some];
            keys.write(token, moment.ranges(), to);
        }
        let update = match some {
            0 => None,
            _ => difference_of_updates(moment, keys.as_ref()).map_err(StageFailure::stage)?,
        };
        Ok(Some(Halves { moment: three_digits(difference), update: update.map(three_digits) }))
    }

    /// How each layer fits, to three digits; `None` where its `C` is singular without a document. What is unusual is a warning.
    ///
    /// # Errors
    /// What reading the store failed at.
    pub fn judge(&self, cx: &StageContext, layers: &[usize], made: &Gathered) -> Result<Vec<Option<f64>>, Error> {
        let bar = cx.progress("layers checked", Some(layers.len() as u64));
        let (mut found, mut usual) = (Vec::new(), Vec::new());
        for (layer, moment) in made.layers(cx) {
            cx.check_interrupt()?;
            let documents: Vec<&PartKeys> = self.0.iter().filter_map(|keys| keys.get(&layer)).collect();
            let ratio = match Fit::held_out(moment?, &documents).map_err(StageFailure::stage)? {
                Fit::Ratio(ratio) => Some(three_digits(ratio)),
                Fit::Identity | Fit::Singular => None,
            };
            match ratio {
                Some(ratio) if USUAL.contains(&ratio) => usual.push(format!("layer {layer} {ratio}")),
                Some(ratio) => cx.warn(format!(
                    "layer {layer}: the mean of kᵀC⁻¹k/f on documents that were left out is {ratio}, expected near 1: the corpus is too \
                     small for the key size, or its documents are of different kinds; more documents help"
                )),
                None => cx.warn(format!(
                    "layer {layer}: the second moment could not be checked: it is singular, or would be without one of its documents"
                )),
            }
            found.push(ratio);
            bar.inc(1);
        }
        if !usual.is_empty() {
            cx.say(format!("mean of kᵀC⁻¹k/f on documents that were left out, expected near 1: {}", usual.join(", ")));
        }
        Ok(found)
    }
}

/// What follows is rounding, which differs between machines.
pub fn three_digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}
