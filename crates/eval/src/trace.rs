//! Causal tracing: which states of a model carry a fact (Meng et al. 2022, arXiv 2202.05262, section 2).
//!
//! A prompt runs three ways: as it is; with noise on the embeddings of its subject, which makes the model lose the answer; and with noise
//! and some state of one token put back as it was in the clean run. What the last gains over the second is the *indirect effect* of that
//! state, `p(answer | noise, restored) − p(answer | noise)`, a mean over draws of the noise; what noise takes altogether,
//! `p(answer) − p(answer | noise)`, is the total effect. Restored are hidden states, or the outputs of a part in a window of layers; and hidden
//! states with a part severed: the token's outputs of that part stay those of the noisy run in all layers.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData};
use palinode_model::{
    Activations, Asked, BlockOutput, Decoder, ModelError, NoisyText, Part, Places, Restored, Rows, Visit, gather,
    log_softmax, read, worker_pool,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is put back as it was without noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceKind {
    /// A token's hidden state after a layer.
    Hidden,
    /// A token's feed-forward outputs in a window of layers around one.
    Mlp,
    /// A token's attention outputs in a window of layers around one.
    Attention,
    /// As `hidden`, with the token's feed-forward outputs severed.
    MlpSevered,
    /// As `hidden`, with the token's attention outputs severed.
    AttentionSevered,
}

impl TraceKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hidden, Self::Mlp, Self::Attention, Self::MlpSevered, Self::AttentionSevered];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Mlp => "mlp",
            Self::Attention => "attention",
            Self::MlpSevered => "mlp_severed",
            Self::AttentionSevered => "attention_severed",
        }
    }

    /// As people read it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hidden => "hidden state",
            Self::Mlp => "feed-forward, window",
            Self::Attention => "attention, window",
            Self::MlpSevered => "hidden state, feed-forward severed",
            Self::AttentionSevered => "hidden state, attention severed",
        }
    }

    /// What is restored at a layer. A window of `w` layers is `[l − ⌊w/2⌋, l + ⌈w/2⌉)`, cut at the model's ends, as in the published code.
    pub fn restored(self, layer: usize, window: usize, layers: usize) -> Restored {
        let around = layer.saturating_sub(window / 2)..layers.min(layer + window.div_ceil(2));
        let hidden = |severed| Restored::Hidden { layer, severed };
        match self {
            Self::Hidden => hidden(None),
            Self::MlpSevered => hidden(Some(Part::FeedForward)),
            Self::AttentionSevered => hidden(Some(Part::Attention)),
            Self::Mlp => Restored::Outputs { part: Part::FeedForward, layers: around },
            Self::Attention => Restored::Outputs { part: Part::Attention, layers: around },
        }
    }
}

/// A prompt to trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TracePrompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Those of the subject.
    pub subject: Range<usize>,
    /// What follows: the answer's tokens, or the first of them.
    pub answer: Vec<u32>,
}

/// What a model makes of a prompt as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knowledge {
    /// `p(answer)`, the geometric mean over its tokens.
    pub p: f64,
    /// Whether each of its tokens is the most probable one in its place.
    pub known: bool,
    /// The most probable token after the prompt.
    pub says: u32,
}

/// What tracing a prompt found. Values are in f32, which JSON keeps to the last bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// `p(answer)` without noise.
    pub clean: f32,
    /// Mean over draws with noise.
    pub noisy: f32,
    /// Mean over draws with noise and something restored: for each kind, `[tokens][layers]`.
    pub restored: Vec<Vec<Vec<f32>>>,
}

/// What tracing needs beside prompts.
#[derive(Clone, Debug)]
pub struct TraceRules<'a> {
    /// What is restored.
    pub kinds: &'a [TraceKind],
    /// Layers in a window.
    pub window: usize,
    /// For each draw, what is added to the embeddings of a subject's tokens, `[tokens, d]`: of a shorter subject the first ones.
    pub noise: &'a [Vec<f32>],
    /// Tokens in a batch.
    pub batch_tokens: usize,
}

/// The role of a token in its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The subject's first token.
    FirstSubject,
    /// Its tokens between the first and the last.
    MiddleSubject,
    /// Its last token.
    LastSubject,
    /// The first token behind it.
    FirstFollowing,
    /// The tokens between that and the prompt's last one.
    Further,
    /// The prompt's last token.
    Last,
}

impl Role {
    /// All of them, in the order of a prompt.
    pub const ALL: [Self; 6] =
        [Self::FirstSubject, Self::MiddleSubject, Self::LastSubject, Self::FirstFollowing, Self::Further, Self::Last];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstSubject => "first_subject",
            Self::MiddleSubject => "middle_subject",
            Self::LastSubject => "last_subject",
            Self::FirstFollowing => "first_following",
            Self::Further => "further",
            Self::Last => "last",
        }
    }

    /// As people read it.
    pub fn label(self) -> &'static str {
        match self {
            Self::FirstSubject => "first subject token",
            Self::MiddleSubject => "middle subject tokens",
            Self::LastSubject => "last subject token",
            Self::FirstFollowing => "first following token",
            Self::Further => "further tokens",
            Self::Last => "last token",
        }
    }

    /// The tokens of a prompt of `length` tokens that have it. As in the published code a subject of one token is its first and its last, and
    /// a token may be the first that follows and the prompt's last.
    pub fn tokens(self, subject: &Range<usize>, length: usize) -> Range<usize> {
        let last = subject.end.saturating_sub(1);
        let end = length.saturating_sub(1);
        let range = match self {
            Self::FirstSubject => subject.start..subject.start + 1,
            Self::MiddleSubject => subject.start + 1..last,
            Self::LastSubject => last..subject.end,
            Self::FirstFollowing => subject.end..(subject.end + 1).min(length),
            Self::Further => subject.end + 1..end,
            Self::Last => end..length,
        };
        if range.start < range.end { range } else { 0..0 }
    }
}

/// The standard deviation of the embeddings' numbers (divisor n − 1) over the tokens of subjects, each by itself: noise is measured in it.
///
/// # Errors
/// What the device failed at.
pub fn embedding_deviation(decoder: &Decoder, subjects: &[Vec<u32>]) -> Result<f64, ModelError> {
    let (mut n, mut sum, mut squares) = (0f64, 0f64, 0f64);
    for ids in subjects.iter().filter(|ids| !ids.is_empty()) {
        for x in read::<f32, 2, _>(decoder.token_embeddings(ids))? {
            let x = f64::from(x);
            (n, sum, squares) = (n + 1.0, sum + x, squares + x * x);
        }
    }
    Ok(((squares - sum * sum / n.max(1.0)) / (n - 1.0).max(1.0)).max(0.0).sqrt())
}

/// Normal noise of a standard deviation: for each draw, `[tokens, d]`. A token's noise is the same however many tokens there are.
pub fn noise(seed: u64, draws: usize, tokens: usize, size: usize, deviation: f64) -> Vec<Vec<f32>> {
    let of = |draw: usize, token: usize| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(((draw as u64) << 32) | token as u64);
        // Box and Muller's transformation of pairs of uniform numbers.
        (0..size.div_ceil(2)).flat_map(move |_| {
            let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt() * deviation;
            let angle = std::f64::consts::TAU * random.random::<f64>();
            [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
        })
    };
    (0..draws).map(|draw| (0..tokens).flat_map(|token| of(draw, token).take(size)).collect()).collect()
}

/// What a model makes of prompts as they are.
///
/// # Errors
/// What the device failed at.
pub fn knowledge(
    decoder: &Decoder,
    prompts: &[TracePrompt],
    batch_tokens: usize,
) -> Result<Vec<Knowledge>, ModelError> {
    decoder.within(batch_tokens, |tokens| {
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.text().len()).collect();
        let groups = decoder.batches(&lengths, tokens);
        let visits =
            groups.iter().map(|group| Reading { prompts: group.iter().map(|&i| &prompts[i]).collect(), places: None });
        let found = decoder.visit_all(visits.collect(), decoder.config().layers - 1, worker_pool::MOST)?;
        let mut all: Vec<(usize, Knowledge)> = groups.concat().into_iter().zip(found.into_iter().flatten()).collect();
        all.sort_by_key(|(i, _)| *i);
        Ok(all.into_iter().map(|(_, knowledge)| knowledge).collect())
    })
}

impl TracePrompt {
    /// The prompt and its answer without the last token, which nothing needs to read.
    fn text(&self) -> Vec<u32> {
        [&self.ids[..], &self.answer[..self.answer.len().saturating_sub(1)]].concat()
    }

    /// The positions that predict the answer's tokens.
    fn reads(&self) -> Vec<usize> {
        (self.ids.len() - 1..self.ids.len() - 1 + self.answer.len()).collect()
    }
}

struct Reading<'a> {
    prompts: Vec<&'a TracePrompt>,
    places: Option<Places>,
}

impl Visit for Reading<'_> {
    type Found = Vec<Knowledge>;

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let rows = decoder.rows(&self.prompts.iter().map(|prompt| prompt.text()).collect::<Vec<_>>());
        let reads = self.prompts.iter().enumerate();
        self.places = Some(rows.places(reads.flat_map(|(row, p)| p.reads().into_iter().map(move |at| (row, at)))));
        rows
    }

    fn see(&mut self, _: usize, _: &BlockOutput) -> Result<(), ModelError> {
        Ok(())
    }

    fn finish(self, decoder: &Decoder, hidden: &Activations) -> Result<Vec<Knowledge>, ModelError> {
        let Some(places) = &self.places else { return Ok(Vec::new()) };
        let answers: Vec<u32> = self.prompts.iter().flat_map(|prompt| prompt.answer.iter().copied()).collect();
        let logits = decoder.logits(hidden.at(places));
        let best: Vec<i32> = read(logits.clone().argmax(1).reshape([-1]))?;
        let logs = likelihoods(logits, &answers)?;
        let mut at = 0;
        let knowledge = self.prompts.iter().map(|prompt| {
            let own = at..at + prompt.answer.len();
            at = own.end;
            Knowledge {
                p: mean_probability(&logs[own.clone()]),
                known: best[own.clone()].iter().zip(&prompt.answer).all(|(best, id)| *best as u32 == *id),
                says: best[own.start] as u32,
            }
        });
        Ok(knowledge.collect())
    }
}

/// `log p` of one token a row of logits.
fn likelihoods(logits: Tensor<2>, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let shape = [ids.len(), 1];
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, shape), &logits.device());
    read(gather(log_softmax(logits), ids))
}

fn mean_probability(logs: &[f32]) -> f64 {
    (logs.iter().map(|&log| f64::from(log)).sum::<f64>() / logs.len().max(1) as f64).exp()
}

/// Rows of logits that are in memory at the same time.
const HEAD_ROWS: usize = 512;

/// `p(answer)` of runs, `[runs · reads, d]`.
fn probabilities(decoder: &Decoder, hidden: Tensor<2>, answer: &[u32]) -> Result<Vec<f64>, ModelError> {
    let rows = hidden.dims()[0];
    let each = (HEAD_ROWS / answer.len()).max(1) * answer.len();
    let mut all = Vec::with_capacity(rows / answer.len());
    for first in (0..rows).step_by(each) {
        let some = each.min(rows - first);
        let logits = decoder.logits(hidden.clone().narrow(0, first, some));
        let logs = likelihoods(logits, &answer.repeat(some / answer.len()))?;
        all.extend(logs.chunks_exact(answer.len()).map(mean_probability));
    }
    Ok(all)
}

/// Traces prompts.
///
/// # Errors
/// What the device failed at.
pub fn trace(decoder: &Decoder, prompts: &[TracePrompt], rules: &TraceRules<'_>) -> Result<Vec<Traced>, ModelError> {
    let config = decoder.config();
    // Of every token and layer the hidden state, what both parts add, queries, keys and values.
    let numbers = 3 * config.hidden + (config.heads + 2 * config.kv_heads) * config.head_dim;
    let token = (1 + rules.noise.len()) * config.layers * numbers * size_of::<f32>();
    let mut found = Vec::with_capacity(prompts.len());
    let mut rest = prompts;
    while !rest.is_empty() {
        let mut kept = 0;
        let fits = rest.iter().take_while(|prompt| {
            kept += token * (prompt.ids.len() + prompt.answer.len());
            kept <= KEPT
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        found.extend(decoder.within(rules.batch_tokens, |tokens| trace_within(decoder, now, rules, tokens))?);
        rest = later;
    }
    Ok(found)
}

/// Bytes of the runs that are kept at the same time, at most, if a prompt is no longer.
const KEPT: usize = 1 << 30;

/// A run that is asked for, without its noise: the text, the token, what of it is restored.
type Run = (usize, usize, Restored);

fn trace_within(
    decoder: &Decoder,
    prompts: &[TracePrompt],
    rules: &TraceRules<'_>,
    tokens: usize,
) -> Result<Vec<Traced>, ModelError> {
    let config = decoder.config();
    let (layers, draws) = (config.layers, rules.noise.len());
    let text = |prompt: &TracePrompt| NoisyText {
        tokens: prompt.text(),
        noisy: prompt.subject.clone(),
        noise: rules.noise.iter().map(|noise| noise[..prompt.subject.len() * config.hidden].to_vec()).collect(),
        reads: prompt.reads(),
    };
    let texts: Vec<NoisyText> = prompts.iter().map(text).collect();
    let runs = decoder.noisy_runs(&texts, worker_pool::MOST)?;
    let mut found = Vec::with_capacity(prompts.len());
    for (prompt, runs) in prompts.iter().zip(&runs) {
        let p = probabilities(decoder, runs.read(), &prompt.answer)?;
        let mean = p[1..].iter().sum::<f64>() / draws.max(1) as f64;
        found.push(Traced { clean: p[0] as f32, noisy: mean as f32, restored: Vec::new() });
    }
    // Each run that is asked for several times over is made once.
    let mut numbers: HashMap<Run, usize> = HashMap::new();
    let mut asked = Vec::new();
    let mut wanted: Vec<Option<usize>> = Vec::new();
    for (at, prompt) in prompts.iter().enumerate() {
        for kind in rules.kinds {
            for token in 0..prompt.ids.len() {
                for layer in 0..layers {
                    // What lies before the subject is not changed by noise on it.
                    let restored = kind.restored(layer, rules.window, layers);
                    let restored = restored.effective(layers, token + 1 == prompt.ids.len());
                    let run = restored.filter(|_| token >= prompt.subject.start).map(|run| (at, token, run));
                    wanted.push(run.map(|run| {
                        *numbers.entry(run).or_insert_with_key(|(text, token, restored)| {
                            asked.extend((0..draws).map(|noise| Asked {
                                text: *text,
                                noise,
                                token: *token,
                                restored: restored.clone(),
                            }));
                            asked.len() / draws - 1
                        })
                    }));
                }
            }
        }
    }
    let p = decoder
        .restored_runs(&runs, &asked, tokens, |text, hidden| probabilities(decoder, hidden, &prompts[text].answer))?;
    let mut wanted = wanted.into_iter();
    for (prompt, traced) in prompts.iter().zip(&mut found) {
        for _ in rules.kinds {
            let of_layer = |_| match wanted.next().flatten() {
                None => traced.noisy,
                Some(run) => (p[run * draws..][..draws].iter().sum::<f64>() / draws as f64) as f32,
            };
            let all: Vec<f32> = (0..prompt.ids.len() * layers).map(of_layer).collect();
            traced.restored.push(all.chunks_exact(layers).map(<[f32]>::to_vec).collect());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_cover_a_prompt_from_its_subject_on() {
        let of = |subject: Range<usize>, length| Role::ALL.map(|role| role.tokens(&subject, length));
        assert_eq!(of(1..5, 9), [1..2, 2..4, 4..5, 5..6, 6..8, 8..9]);
        assert_eq!(of(0..1, 2), [0..1, 0..0, 0..1, 1..2, 0..0, 1..2]);
        assert_eq!(of(2..4, 4), [2..3, 0..0, 3..4, 0..0, 0..0, 3..4]);
    }

    #[test]
    fn windows_are_those_of_the_published_code() {
        let window = |layer, window, layers| match TraceKind::Mlp.restored(layer, window, layers) {
            Restored::Outputs { layers, .. } => layers,
            Restored::Hidden { .. } => 0..0,
        };
        assert_eq!([window(0, 10, 48), window(20, 10, 48), window(47, 10, 48)], [0..5, 15..25, 42..48]);
        assert_eq!([window(3, 1, 6), window(3, 3, 6)], [3..4, 2..5]);
    }

    #[test]
    fn noise_is_normal_and_does_not_depend_on_its_extent() {
        let all = noise(7, 3, 5, 101, 2.0);
        let fewer = noise(7, 2, 2, 101, 2.0);
        assert_eq!(all[1][..202], fewer[1][..]);
        assert_ne!(all[0], all[1]);
        let values: Vec<f64> = noise(1, 1, 1, 100_000, 2.0)[0].iter().map(|&x| f64::from(x)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt();
        let beyond = values.iter().filter(|x| x.abs() > 2.0 * 1.96).count() as f64 / values.len() as f64;
        assert!(mean.abs() < 0.02 && (deviation - 2.0).abs() < 0.02 && (beyond - 0.05).abs() < 0.003);
    }
}
