//! Continuing a prompt, greedily or by seeded top-k sampling.

use std::collections::VecDeque;

use palinode_kernels::Past;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::batch::rows::Activations;
use crate::decoder::block::{KeyValues, Kv};
use crate::decoder::host::{HostBlock, heads};
use crate::decoder::packed::PackedModel;
use crate::device::numbers::Numbers;
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

/// A text to be continued.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens that it shall have in the end, its own counted.
    pub length: usize,
    /// The stream of random numbers that it draws from.
    pub stream: u64,
}

/// Texts that are continued at the same time by kernels: more of them make products no faster.
const TOGETHER: usize = 32;

/// Texts up to which products in f32 read weights straight through, once: a copy would be read as fast.
const FEW: usize = 4;

/// Tokens from which on copies of all weights are worth making: a copy takes as long as few of them.
const WORTH_COPYING: usize = 12;

/// Tokens that memory is set aside for beforehand.
const MOST_ROOM: usize = 512;

/// Tokens of prompts that are read at the same time.
const READ_TOGETHER: usize = 2048;

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
    let prompt = Prompt { tokens: prompt.to_vec(), length, stream };
    Ok(generate_all(decoder, &[prompt], sampling, end)?.pop().unwrap_or_default())
}

/// As [`generate`], for many prompts; the texts in their order.
///
/// Where kernels compute, rows of different lengths go through the blocks together, and whoever is finished leaves. A text is the same to
/// the last bit whatever it is written beside.
///
/// # Errors
/// As [`generate`].
pub fn generate_all(
    decoder: &Decoder,
    prompts: &[Prompt],
    sampling: Sampling,
    end: Option<u32>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    generate_until(decoder, prompts, sampling, &|_, tokens| Ok(tokens.last().copied() == end))
}

/// When a text is over: its prompt, by number, and the tokens that were written behind it, of which the last is new.
pub type Over<'a> = dyn Fn(usize, &[u32]) -> Result<bool, ModelError> + 'a;

/// As [`generate_all`], where each text goes on until `over` says so of what was written.
///
/// # Errors
/// As [`generate`]; what `over` gives.
pub fn generate_until(
    decoder: &Decoder,
    prompts: &[Prompt],
    sampling: Sampling,
    over: &Over<'_>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let context = decoder.config().context;
    for Prompt { tokens, .. } in prompts {
        if tokens.is_empty() || tokens.len() > context {
            return Err(ModelError::TooLong { tokens: tokens.len(), context, text: format!("{tokens:?}") });
        }
    }
    let numbered = prompts.iter().enumerate();
    let mut texts: Vec<Writing> = numbered.map(|(i, prompt)| Writing::new(i, prompt, sampling, context)).collect();
    if decoder.kernels {
        write_together(decoder, texts.iter_mut().collect(), over)?;
    } else {
        texts.iter_mut().try_for_each(|text| write_alone(decoder, text, over))?;
    }
    decoder.rest();
    Ok(texts.into_iter().map(|text| text.tokens).collect())
}

/// A text as it grows.
struct Writing {
    /// The number of its prompt, and how many of its tokens are that prompt's.
    prompt: (usize, usize),
    tokens: Vec<u32>,
    length: usize,
    sampling: Sampling,
    random: Option<ChaCha8Rng>,
    ended: bool,
    /// Of each layer, keys and values of the tokens that were run: where kernels compute.
    past: Vec<Past>,
}

impl Writing {
    fn new(number: usize, prompt: &Prompt, sampling: Sampling, context: usize) -> Self {
        let random = match sampling {
            Sampling::TopK { seed, .. } => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(prompt.stream);
                Some(random)
            }
            Sampling::Greedy => None,
        };
        let length = prompt.length.min(context);
        let own = (number, prompt.tokens.len());
        Self { prompt: own, tokens: prompt.tokens.clone(), length, sampling, random, ended: false, past: Vec::new() }
    }

    fn is_finished(&self) -> bool {
        self.ended || self.tokens.len() >= self.length
    }

    /// Goes on by the token that these logits choose.
    fn go_on(&mut self, logits: &[f32], over: &Over<'_>) -> Result<(), ModelError> {
        let next = match (self.sampling, &mut self.random) {
            (Sampling::TopK { k, .. }, Some(random)) => draw(logits, k, random),
            _ => argmax(logits),
        };
        self.tokens.push(next);
        self.ended = over(self.prompt.0, &self.tokens[self.prompt.1..])?;
        Ok(())
    }

    /// Tokens that were not run yet.
    fn fresh(&self) -> &[u32] {
        &self.tokens[self.past.first().map_or(0, Past::len)..]
    }
}

/// By kernels: as many texts at a time as make products fast.
fn write_together(decoder: &Decoder, texts: Vec<&mut Writing>, over: &Over<'_>) -> Result<(), ModelError> {
    let mut waiting: VecDeque<&mut Writing> = texts.into_iter().filter(|text| !text.is_finished()).collect();
    let mut going: Vec<&mut Writing> = Vec::new();
    let steps = waiting.iter().map(|text| text.length - text.tokens.len()).max().unwrap_or(0);
    // Copies in bf16 have half of the weights' bytes, which is what a step of few texts takes its time for.
    let worth = waiting.len() > FEW || (!waiting.is_empty() && !decoder.compute.is_usual());
    let packed = if worth && steps >= WORTH_COPYING { PackedModel::of(decoder)? } else { None };
    loop {
        // Prompts are read beside texts that go on, not all at once.
        let mut read = 0;
        while going.len() < TOGETHER
            && let Some(text) = waiting.pop_front_if(|text| read == 0 || read + text.tokens.len() <= READ_TOGETHER)
        {
            read += text.tokens.len();
            let layers = 0..decoder.config().layers;
            let room = text.length.min(text.tokens.len() + MOST_ROOM);
            text.past = layers.map(|layer| Past::with_room(room, &heads(decoder.config(), layer))).collect();
            going.push(text);
        }
        if going.is_empty() {
            return Ok(());
        }
        let logits = step_together(decoder, packed.as_ref(), &mut going)?;
        for (text, logits) in going.iter_mut().zip(logits.chunks_exact(decoder.config().vocab)) {
            text.go_on(logits, over)?;
            if text.is_finished() {
                text.past = Vec::new();
            }
        }
        going.retain(|text| !text.is_finished());
    }
}

/// Runs the tokens of texts that were not run yet; logits after the last of each, `[texts, V]`.
fn step_together(
    decoder: &Decoder,
    packed: Option<&PackedModel>,
    texts: &mut [&mut Writing],
) -> Result<Vec<f32>, ModelError> {
    let config = decoder.config();
    let rows = {
        let fresh: Vec<(&[u32], usize)> =
            texts.iter().map(|text| (text.fresh(), text.tokens.len() - text.fresh().len())).collect();
        decoder.continued(&fresh)
    };
    let elsewhere = || ModelError::Readback("numbers that are not in this machine's memory".into());
    let host = rows.frame.host.as_ref().ok_or_else(elsewhere)?;
    decoder.meter.pass();
    let mut hidden = decoder.embed(&rows).0;
    for layer in 0..config.layers {
        decoder.meter.block(rows.frame.shape.cells(), 0);
        let lent;
        let made;
        let block: &HostBlock = if let Some(packed) = packed {
            &packed.blocks[layer]
        } else {
            lent = decoder.lend(layer)?;
            made = decoder.host_block(layer, &lent).ok_or_else(elsewhere)?;
            &made
        };
        let numbers = Numbers::of(hidden).ok_or_else(elsewhere)?;
        let output = {
            let batch = host.batch(config, layer, texts.iter().map(|text| &text.past[layer]));
            block.run(config, layer, &numbers, &batch)
        };
        let Kv::Host(qkv) = &output.kv else { return Err(elsewhere()) };
        let heads = heads(config, layer);
        for (text, (tokens, _)) in texts.iter_mut().zip(&host.rows) {
            text.past[layer].append(&qkv[tokens.start * heads.width()..tokens.end * heads.width()], &heads);
        }
        hidden = output.hidden.0;
    }
    let last = rows.places(rows.lengths().iter().enumerate().map(|(row, length)| (row, length - 1)));
    let normed = decoder.final_norm(Activations(hidden).at(&last));
    match packed {
        Some(packed) => Ok(packed.logits(decoder, &Numbers::of(normed).ok_or_else(elsewhere)?)),
        None => read(decoder.read_out(normed)),
    }
}

/// By the tensor library: one text.
fn write_alone(decoder: &Decoder, text: &mut Writing, over: &Over<'_>) -> Result<(), ModelError> {
    let mut cache: Vec<Option<KeyValues>> = vec![None; decoder.config().layers];
    let mut from = 0;
    while !text.is_finished() {
        let logits = step(decoder, &text.tokens[from..], from, &mut cache)?;
        from = text.tokens.len();
        text.go_on(&logits, over)?;
    }
    Ok(())
}

/// Runs new tokens after the cached ones; logits of the last, `[V]`.
fn step(
    decoder: &Decoder,
    fresh: &[u32],
    start: usize,
    cache: &mut [Option<KeyValues>],
) -> Result<Vec<f32>, ModelError> {
    let rows = decoder.continued(&[(fresh, start)]);
    decoder.meter.pass();
    let mut hidden = decoder.embed(&rows).0;
    for (layer, cached) in cache.iter_mut().enumerate() {
        let output = decoder.run(&*decoder.lend(layer)?, layer, &rows.frame, hidden, cached.as_ref());
        *cached = match output.kv {
            Kv::Tensors(kv) => Some(kv),
            Kv::Host(_) => None,
        };
        hidden = output.hidden.0;
    }
    read(decoder.logits(hidden.narrow(0, fresh.len() - 1, 1)))
}

fn argmax(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).map_or(0, |(i, _)| i as u32)
}

fn draw(logits: &[f32], k: usize, random: &mut impl Rng) -> u32 {
    let order = best(logits, k);
    let top = f64::from(logits[order[0]]);
    let weights: Vec<f64> = order.iter().map(|&i| (f64::from(logits[i]) - top).exp()).collect();
    let mut left = random.random::<f64>() * weights.iter().sum::<f64>();
    for (&index, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return index as u32;
        }
    }
    order[order.len() - 1] as u32
}

/// The places of the `k` largest logits, falling; of equal ones the earlier comes first.
fn best(logits: &[f32], k: usize) -> Vec<usize> {
    let k = k.clamp(1, logits.len());
    let before = |a: usize, b: usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if k > MOST_KEPT {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.select_nth_unstable_by(k - 1, |&a, &b| before(a, b));
        order.truncate(k);
        order.sort_by(|&a, &b| before(a, b));
        return order;
    }
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| before(a, b));
    let mut least = logits[order[k - 1]];
    for (at, logit) in logits.iter().enumerate().skip(k) {
        // Later ones of the same size come behind.
        if logit.total_cmp(&least).is_le() {
            continue;
        }
        let place = order.partition_point(|&known| before(known, at).is_lt());
        if place < k {
            order.pop();
            order.insert(place, at);
            least = logits[order[k - 1]];
        }
    }
    order
}

/// Candidates up to which the best are kept in order while logits are gone through once.
const MOST_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of choosing candidates choose the same, ties and what is no number included.
    #[test]
    fn the_largest_in_their_order() {
        let mut logits: Vec<f32> = (0..500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 25) as f32 - 60.0).collect();
        for with_nan in [false, true] {
            if with_nan {
                logits[33] = f32::NAN;
                logits[7] = -f32::NAN;
                logits[100] = f32::INFINITY;
                logits[3] = f32::NEG_INFINITY;
                logits[250] = -0.0;
            }
            let mut all: Vec<usize> = (0..logits.len()).collect();
            all.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            for k in [1, 2, 5, 64, 65, 300, 500, 9000] {
                assert_eq!(best(&logits, k), all[..k.min(500)], "{k}");
            }
        }
    }
}
