//! What a model says by itself, before and after.

use std::ops::Range;

use palinode_data::EditRequest;
use palinode_edit::with_edits;
use palinode_engine::Error;
use palinode_engine::shown::{self, Sample};
use palinode_eval::RecordScores;
use palinode_model::Decoder;
use palinode_model::generate::{Sampling, generate};

use crate::artifacts::model::Loaded;
use crate::artifacts::update::Batch;
use crate::errors::StageFailure;

/// The field of a sample with the new target's probability.
const P_NEW: &str = "p(new)";

/// The new target's probability after the rewrite prompt, as the metrics have it.
fn probability(record: Option<&RecordScores>) -> Option<String> {
    Some(shown::percent(record?.rewrite.first()?.new.probability()))
}

/// How much is shown.
#[derive(Clone, Copy)]
pub struct Length {
    /// Number of samples.
    pub samples: usize,
    /// Tokens of each text.
    pub tokens: usize,
}

/// A batch and the requests that it is scored on.
pub type Part<'a> = (&'a Batch, Range<usize>);

/// Greedy continuations of the first requests' prompts.
pub fn samples(
    length: Length,
    model: &Loaded,
    parts: &[Part<'_>],
    requests: &[EditRequest],
    scores: (&[RecordScores], &[RecordScores]),
) -> Result<Vec<Sample>, Error> {
    let said = |decoder: &Decoder, request: &EditRequest| -> Result<String, Error> {
        let prompt = model.text.encode(&request.filled_prompt()).map_err(StageFailure::stage)?;
        let length = prompt.len() + length.tokens;
        let ids =
            generate(decoder, &prompt, length, Sampling::Greedy, 0, model.text.end()).map_err(StageFailure::stage)?;
        let words = model.text.decode(&ids[prompt.len()..]).map_err(StageFailure::stage)?;
        Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let mut samples = Vec::new();
    for (i, request) in requests.iter().take(length.samples).enumerate() {
        let mut sample = vec![
            ("prompt", request.filled_prompt()),
            ("new target", request.target_new.trim().to_owned()),
            ("before", said(&model.decoder, request)?),
        ];
        let (before, after) = (probability(scores.0.get(i)), probability(scores.1.get(i)));
        let probability = match after {
            Some(after) => format!("{} → {after}", before.unwrap_or_default()),
            None => before.unwrap_or_default(),
        };
        sample.push((P_NEW, probability));
        if let Some((batch, _)) = parts.iter().find(|(_, range)| range.contains(&i)) {
            let updates = batch.updates.iter().map(|(layer, update)| (*layer, update));
            let edited = with_edits(&model.decoder, updates).map_err(StageFailure::stage)?;
            sample.push(("after", said(&edited, request)?));
        }
        samples.push(shown::sample(sample));
    }
    Ok(samples)
}
