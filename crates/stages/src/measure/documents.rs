//! Documents of a corpus unit by unit, and when what was made of them is saved.

use std::time::{Duration, Instant};

use palinode_data::Corpus;
use palinode_engine::Error;
use palinode_model::DecoderConfig;

use crate::artifacts::model::Loaded;
use crate::errors::StageFailure;
use crate::measure::part_sums::UNIT;
use crate::sources::corpus::encode;

/// When sums were saved last, and how long that took.
pub struct Saved {
    at: Instant,
    took: Duration,
}

impl Saved {
    pub fn now() -> Self {
        Self { at: Instant::now(), took: Duration::ZERO }
    }

    pub fn after(save: impl FnOnce() -> Result<(), Error>) -> Result<Self, Error> {
        let start = Instant::now();
        save()?;
        Ok(Self { at: Instant::now(), took: start.elapsed() })
    }

    /// Little is lost in a kill, and little time goes into saving: 2 % at most.
    pub fn long_ago(&self) -> bool {
        self.at.elapsed() > Duration::from_secs(10).max(50 * self.took)
    }
}

/// Tokens of the next documents, each cut to so many: a unit of them, or fewer where `enough` tokens are reached, and
/// how many tokens they have.
pub fn unit(
    corpus: &mut Corpus,
    model: &Loaded,
    cut: usize,
    from: usize,
    end: usize,
    enough: u64,
) -> Result<(Vec<Vec<u32>>, u64), Error> {
    let mut documents = Vec::with_capacity(UNIT);
    let mut counted = 0;
    for index in from..end.min(from + UNIT) {
        let text = corpus.read(index).map_err(StageFailure::stage)?;
        let tokens = encode(&model.text, &text, cut).map_err(StageFailure::stage)?;
        counted += tokens.len() as u64;
        documents.push(tokens);
        if counted >= enough {
            break;
        }
    }
    Ok((documents, counted))
}

/// The tokens that a layer's second moment needs at least: as many as a key has dimensions. Of a mixture of experts, so many that each expert would
/// see as many as its keys have, if tokens were shared out evenly.
pub fn dimensions(config: &DecoderConfig, layer: usize) -> usize {
    match config.mixture(layer) {
        Some(experts) => (experts.size * experts.count).div_ceil(experts.top).max(experts.shared.unwrap_or(0)),
        None => config.feed_forward,
    }
}
