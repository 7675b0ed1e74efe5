//! Continuing a prompt, greedily or by seeded top-k sampling.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::decoder::block::KeyValues;
use crate::{Decoder, ModelError, read};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most probable token.
    Greedy,
    /// One of the `k` most probable, drawn in proportion to its probability.
    TopK {
        /// Candidates.
        k: usize,
        /// Seed; each prompt draws from a stream of its own, so that results don't depend on their order.
        seed: u64,
    },
}

/// Continues a prompt until it holds `length` tokens, the context is full, or `end` was produced. Returns prompt and
/// continuation.
///
/// # Errors
/// [`ModelError::TooLong`] for a prompt that leaves no room; [`ModelError::Readback`].
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    length: usize,
    sampling: Sampling,
    stream: u64,
    end: Option<u32>,
) -> Result<Vec<u32>, ModelError> {
    let config = decoder.config();
    if prompt.is_empty() || prompt.len() > config.context {
        return Err(ModelError::TooLong { tokens: prompt.len(), context: config.context, text: format!("{prompt:?}") });
    }
    let mut random = match sampling {
        Sampling::TopK { seed, .. } => {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(stream);
            Some(random)
        }
        Sampling::Greedy => None,
    };
    let mut tokens = prompt.to_vec();
    let mut cache: Vec<Option<KeyValues>> = vec![None; config.layers];
    let mut fresh = tokens.clone();
    while tokens.len() < length.min(config.context) {
        let logits = step(decoder, &fresh, tokens.len() - fresh.len(), &mut cache)?;
        let next = match (sampling, &mut random) {
            (Sampling::TopK { k, .. }, Some(random)) => draw(&logits, k, random),
            _ => argmax(&logits),
        };
        tokens.push(next);
        if Some(next) == end {
            break;
        }
        fresh = vec![next];
    }
    Ok(tokens)
}

/// Runs new tokens after the cached ones; logits of the last, `[V]`.
fn step(
    decoder: &Decoder,
    fresh: &[u32],
    start: usize,
    cache: &mut [Option<KeyValues>],
) -> Result<Vec<f32>, ModelError> {
    let rows = decoder.continued(fresh, start);
    let mut hidden = decoder.embed(&rows).0;
    for (layer, cached) in cache.iter_mut().enumerate() {
        let output = decoder.run(&*decoder.lend(layer)?, layer, &rows.frame, hidden, cached.as_ref());
        *cached = Some(output.kv);
        hidden = output.hidden.0;
    }
    read(decoder.logits(hidden.narrow(0, fresh.len() - 1, 1)))
}

fn argmax(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).map_or(0, |(i, _)| i as u32)
}

fn draw(logits: &[f32], k: usize, random: &mut impl Rng) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let k = k.clamp(1, logits.len());
    order.select_nth_unstable_by(k - 1, |&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let top = f64::from(logits[order[0]]);
    let weights: Vec<f64> = order.iter().map(|&i| (f64::from(logits[i]) - top).exp()).collect();
    let mut left = random.random::<f64>() * weights.iter().sum::<f64>();
    for (&index, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return index as u32;
        }
    }
    order[k - 1] as u32
}
