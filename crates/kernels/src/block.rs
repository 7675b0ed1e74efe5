//! A block of a decoder, forward and back, with weights that do not change.

use std::borrow::Cow;

use crate::attention::{Attended, Row, attend, attend_back};
use crate::dispatch::vectorised;
use crate::experts::{Experts, FeedForward, Inside, KeptInside, Route};
use crate::heads::Heads;
use crate::{Activation, HeadNorm, Norm, Projection, Rotation, Threads};

/// How attention and feed-forward follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// The feed-forward reads what attention wrote, behind the second norm where there is one.
    Sequential,
    /// Both read the same normalised input, and both are added.
    Parallel,
    /// Both read the block's input, each behind a norm of its own, and both are added.
    ParallelTwoNorms,
}

/// One block's weights, where they lie, and what is done with them.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// How its parts follow each other.
    pub arrangement: Arrangement,
    /// Norm before attention.
    pub norm_1: Option<Norm<'a>>,
    /// Norm before the feed-forward; none in [`Arrangement::Parallel`].
    pub norm_2: Option<Norm<'a>>,
    /// Norm of what attention adds.
    pub attention_norm: Option<Norm<'a>>,
    /// Norm of what the feed-forward adds.
    pub mlp_norm: Option<Norm<'a>>,
    /// What attention and feed-forward add is multiplied with it, behind their norms.
    pub multiplier: f32,
    /// Norm of queries, before they are rotated.
    pub query_norm: Option<HeadNorm<'a>>,
    /// Norm of keys, before they are rotated.
    pub key_norm: Option<HeadNorm<'a>>,
    /// Queries, keys and values are cut off at this size, before their norms.
    pub clip: Option<f32>,
    /// Query, key and value projections side by side, `d × (heads + 2·kv_heads)·dim`.
    pub qkv: Projection<'a>,
    /// The heads.
    pub heads: Heads,
    /// `heads·dim × d`.
    pub attention_out: Projection<'a>,
    /// `d × f`.
    pub up: Projection<'a>,
    /// `d × f`.
    pub gate: Option<Projection<'a>>,
    /// The feed-forward's nonlinearity.
    pub activation: Activation,
    /// `f × d`.
    pub down: Projection<'a>,
    /// Where `up`, `gate` and `down` are those of several experts side by side, which of them a token uses.
    pub experts: Option<Experts<'a>>,
}

/// What a block has to know of the batch that it computes.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Which tokens attend to which; each token is in one row.
    pub rows: Vec<Row<'a>>,
    /// Rotation at every token; none where positions enter otherwise.
    pub rotation: Option<&'a Rotation>,
}

/// What a block computes, with the places that editing looks at. All are `[tokens, size]`.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The hidden state after the block, of size `d`.
    pub hidden: Vec<f32>,
    /// What attention adds, of size `d`: behind its norm, and multiplied.
    pub attention: Vec<f32>,
    /// The down-projection's input (an edit's *key*), of size `f`. Of a mixture of experts, those of the parts in `routes`, one part after
    /// the other: `[tokens of the part, f of the part]`, multiplied with the tokens' gates.
    pub key: Vec<f32>,
    /// Of a mixture of experts, the parts that have tokens.
    pub routes: Option<Vec<Route>>,
    /// The down-projection's output, of size `d`: before its norm, and not multiplied.
    pub mlp: Vec<f32>,
    /// Queries, keys (both rotated) and values side by side.
    pub qkv: Vec<f32>,
}

/// What is put in the place of what a block computes, at some tokens of its batch: pairs of a token and `d` numbers.
#[derive(Clone, Debug, Default)]
pub struct Pins<'a> {
    /// In the place of what attention adds.
    pub attention: Vec<(usize, &'a [f32])>,
    /// In the place of the feed-forward's output.
    pub mlp: Vec<(usize, &'a [f32])>,
}

/// Puts numbers in the place of rows of `x` `[tokens, size]`.
fn put(x: &mut [f32], size: usize, pins: &[(usize, &[f32])]) {
    for (token, values) in pins {
        x[token * size..][..size].copy_from_slice(values);
    }
}

/// Some rows of `x` `[tokens, size]`.
fn rows_of(x: &[f32], size: usize, tokens: &[usize]) -> Vec<f32> {
    tokens.iter().flat_map(|token| &x[token * size..][..size]).copied().collect()
}

/// What the way back needs of the way there.
#[derive(Clone, Debug)]
pub struct Kept {
    x: Vec<f32>,
    /// What the feed-forward's norm read where that isn't `x`.
    middle: Option<Vec<f32>>,
    /// Queries and keys before their norms, where there are any, `[tokens, (heads + kv_heads)·dim]`.
    raw: Option<Vec<f32>>,
    /// Queries, keys and values before they are cut off, where they are.
    whole: Option<Vec<f32>>,
    qkv: Vec<f32>,
    attended: Attended,
    /// Outputs of attention and feed-forward before their norms, where there are any.
    attention: Option<Vec<f32>>,
    mlp: Option<Vec<f32>>,
    inside: KeptInside,
}

/// `a + b`, in the place of `a`.
fn add(mut a: Vec<f32>, b: &[f32]) -> Vec<f32> {
    vectorised(
        #[inline(always)]
        || {
            // A loop and no `for_each`, which the compiler may leave outside of what has vectors.
            for (a, b) in a.iter_mut().zip(b) {
                *a += b;
            }
        },
    );
    a
}

/// What queries, keys and values were before something was done to them: as [`Kept`] has it.
type Before = (Option<Vec<f32>>, Option<Vec<f32>>);

impl Block<'_> {
    /// Runs the block on the hidden state before it, `x` `[tokens, d]`.
    ///
    /// # Panics
    /// Where sizes do not fit each other.
    pub fn forward(&self, x: &[f32], batch: &Batch, threads: Threads) -> Passed {
        self.forward_pinned(x, batch, &Pins::default(), threads)
    }

    /// As [`Block::forward`], with what stands in the place of outputs of its parts at some tokens: what follows from them is computed from
    /// what is put there.
    ///
    /// # Panics
    /// As [`Block::forward`], and for a pin of another size.
    pub fn forward_pinned(&self, x: &[f32], batch: &Batch, pins: &Pins, threads: Threads) -> Passed {
        let d = self.down.weight.outputs();
        let normed = self.attention_input(x);
        let (qkv, _) = self.queries_keys_values(&normed, batch, threads, false);
        let attended = attend(&self.heads, &batch.rows, &qkv, threads);
        let out = self.attention_out.forward(&attended.out, threads);
        let mut attention = self.added(self.attention_norm.as_ref(), out);
        drop(attended);
        put(&mut attention, d, &pins.attention);
        let residual = add(x.to_vec(), &attention);
        let input = self.feed_forward_input(x, normed, &residual);
        let Inside { key, mut mlp, routes } = self.inside().forward(&input, threads);
        drop(input);
        put(&mut mlp, d, &pins.mlp);
        let hidden = self.with_mlp(residual, &mlp);
        Passed { hidden, attention, key, routes, mlp, qkv }
    }

    /// As [`Block::forward_pinned`], at some of the tokens alone: the hidden state after the block, `[tokens, d]`. The others are computed as
    /// far as these see them, to their keys and values. Pins name tokens by their place among these. Bits are those of the whole.
    ///
    /// # Panics
    /// As [`Block::forward_pinned`].
    pub fn forward_at(&self, x: &[f32], batch: &Batch, tokens: &[usize], pins: &Pins, threads: Threads) -> Vec<f32> {
        let d = self.down.weight.outputs();
        let normed = self.attention_input(x);
        let (qkv, _) = self.queries_keys_values(&normed, batch, threads, false);
        let attended = attend(&self.heads, &batch.rows, &qkv, threads);
        let out = rows_of(&attended.out, self.heads.queries(), tokens);
        drop((qkv, attended));
        let mut attention = self.added(self.attention_norm.as_ref(), self.attention_out.forward(&out, threads));
        put(&mut attention, d, &pins.attention);
        let (x, normed) = (rows_of(x, d, tokens), rows_of(&normed, d, tokens));
        let residual = add(x.clone(), &attention);
        let input = self.feed_forward_input(&x, Cow::Owned(normed), &residual);
        let mut mlp = self.inside().forward(&input, threads).mlp;
        put(&mut mlp, d, &pins.mlp);
        drop(input);
        self.with_mlp(residual, &mlp)
    }

    /// As [`Block::forward`], for the hidden state alone and what [`Block::back`] needs.
    ///
    /// # Panics
    /// As [`Block::forward`].
    pub fn forward_kept(&self, x: Vec<f32>, batch: &Batch, threads: Threads) -> (Vec<f32>, Kept) {
        let normed = self.attention_input(&x);
        let (qkv, (raw, whole)) = self.queries_keys_values(&normed, batch, threads, true);
        let attended = attend(&self.heads, &batch.rows, &qkv, threads);
        let out = self.attention_out.forward(&attended.out, threads);
        let attention = self.attention_norm.is_some().then(|| out.clone());
        let residual = add(self.added(self.attention_norm.as_ref(), out), &x);
        let input = self.feed_forward_input(&x, normed, &residual);
        let (out, inside) = self.inside().forward_kept(&input, threads);
        drop(input);
        let mlp = self.mlp_norm.is_some().then(|| out.clone());
        let out = self.added(self.mlp_norm.as_ref(), out);
        let (hidden, middle) = match self.arrangement {
            Arrangement::Sequential => (add(out, &residual), Some(residual)),
            _ => (add(residual, &out), None),
        };
        (hidden, Kept { x, middle, raw, whole, qkv, attended, attention, mlp, inside })
    }

    /// The way back: the gradient with respect to the hidden state before the block, given that with respect to the one after it. Keys
    /// and values of a past are constants, and so are weights.
    ///
    /// # Panics
    /// Where the batch is not the one that was run.
    pub fn back(&self, kept: Kept, slope: Vec<f32>, batch: &Batch, threads: Threads) -> Vec<f32> {
        let Kept { x, middle, raw, whole, qkv, attended, attention, mlp, inside } = kept;
        let at_mlp = self.added_back(self.mlp_norm.as_ref(), mlp.as_deref(), &slope);
        let mut at_input = self.inside().back(inside, &at_mlp, threads);
        drop((at_mlp, mlp));
        // What comes back to the block's input past attention, and to attention's own input.
        let mut into = slope;
        let mut at_normed = None;
        match (self.arrangement, &self.norm_2) {
            (Arrangement::Sequential, Some(norm)) => norm.back(middle.as_deref().unwrap_or(&x), &at_input, &mut into),
            (Arrangement::Sequential, None) => into = add(into, &at_input),
            (Arrangement::ParallelTwoNorms, Some(_)) => {}
            _ => at_normed = Some(std::mem::take(&mut at_input)),
        }
        let at_attention = self.added_back(self.attention_norm.as_ref(), attention.as_deref(), &into);
        let at_out = self.attention_out.back(&at_attention, threads);
        drop(at_attention);
        if let (Arrangement::ParallelTwoNorms, Some(norm)) = (self.arrangement, &self.norm_2) {
            norm.back(&x, &at_input, &mut into);
        }
        let mut at_qkv = attend_back(&self.heads, &batch.rows, &qkv, &attended, &at_out, threads);
        self.queries_and_keys_back(&mut at_qkv, raw.as_deref(), batch);
        if let (Some(clip), Some(whole)) = (self.clip, whole) {
            for (slope, x) in at_qkv.iter_mut().zip(whole) {
                *slope = if x.abs() > clip { 0.0 } else { *slope };
            }
        }
        let back = self.qkv.back(&at_qkv, threads);
        let at_normed = match at_normed {
            Some(other) => add(back, &other),
            None => back,
        };
        match &self.norm_1 {
            Some(norm) => norm.back(&x, &at_normed, &mut into),
            None => into = add(into, &at_normed),
        }
        into
    }

    /// The feed-forward.
    fn inside(&self) -> FeedForward<'_, '_> {
        FeedForward {
            up: &self.up,
            gate: self.gate.as_ref(),
            activation: self.activation,
            down: &self.down,
            experts: self.experts.as_ref(),
        }
    }

    /// What attention reads.
    fn attention_input<'x>(&self, x: &'x [f32]) -> Cow<'x, [f32]> {
        match &self.norm_1 {
            Some(norm) => Cow::Owned(norm.forward(x)),
            None => Cow::Borrowed(x),
        }
    }

    /// What the feed-forward reads.
    fn feed_forward_input<'x>(&self, x: &'x [f32], normed: Cow<'x, [f32]>, residual: &'x [f32]) -> Cow<'x, [f32]> {
        match (self.arrangement, &self.norm_2) {
            (Arrangement::Sequential, Some(norm)) => Cow::Owned(norm.forward(residual)),
            (Arrangement::Sequential, None) => Cow::Borrowed(residual),
            (Arrangement::ParallelTwoNorms, Some(norm)) => Cow::Owned(norm.forward(x)),
            _ => normed,
        }
    }

    /// Whether the feed-forward's output is what it adds.
    fn adds_as_is(&self) -> bool {
        self.mlp_norm.is_none() && self.multiplier == 1.0
    }

    /// The hidden state after the block, for the residual that the down-projection's output `mlp` joins.
    fn with_mlp(&self, residual: Vec<f32>, mlp: &[f32]) -> Vec<f32> {
        if self.adds_as_is() {
            add(residual, mlp)
        } else {
            add(residual, &self.added(self.mlp_norm.as_ref(), mlp.to_vec()))
        }
    }

    /// What an output of attention or feed-forward adds to the hidden state.
    fn added(&self, norm: Option<&Norm>, out: Vec<f32>) -> Vec<f32> {
        let mut out = match norm {
            Some(norm) => norm.forward(&out),
            None => out,
        };
        if self.multiplier != 1.0 {
            for x in &mut out {
                *x *= self.multiplier;
            }
        }
        out
    }

    /// The way back of [`Block::added`], given the output where it has a norm.
    fn added_back<'x>(&self, norm: Option<&Norm>, out: Option<&[f32]>, slope: &'x [f32]) -> Cow<'x, [f32]> {
        let slope = if self.multiplier == 1.0 {
            Cow::Borrowed(slope)
        } else {
            Cow::Owned(slope.iter().map(|x| x * self.multiplier).collect())
        };
        match (norm, out) {
            (Some(norm), Some(out)) => {
                let mut into = vec![0.0; out.len()];
                norm.back(out, &slope, &mut into);
                Cow::Owned(into)
            }
            _ => slope,
        }
    }

    /// Queries, keys and values, normed and rotated; and, to be kept, what they were before.
    fn queries_keys_values(&self, normed: &[f32], batch: &Batch, threads: Threads, keep: bool) -> (Vec<f32>, Before) {
        let Heads { heads, kv_heads, dim, .. } = self.heads;
        let width = self.heads.width();
        let mut qkv = self.qkv.forward(normed, threads);
        let whole = (keep && self.clip.is_some()).then(|| qkv.clone());
        if let Some(clip) = self.clip {
            // Not `clamp`: what is not a number must not become one.
            for x in qkv.iter_mut().filter(|x| x.abs() > clip) {
                *x = clip.copysign(*x);
            }
        }
        let has_norm = self.query_norm.is_some() || self.key_norm.is_some();
        let raw = (keep && has_norm)
            .then(|| qkv.chunks_exact(width).flat_map(|row| &row[..(heads + kv_heads) * dim]).copied().collect());
        if let Some(norm) = &self.query_norm {
            norm.forward(&mut qkv, width, 0, heads * dim);
        }
        if let Some(norm) = &self.key_norm {
            norm.forward(&mut qkv, width, heads * dim, kv_heads * dim);
        }
        if let Some(rotation) = batch.rotation {
            rotation.forward(&mut qkv, width, dim, heads + kv_heads);
        }
        (qkv, (raw, whole))
    }

    /// The way back through rotation and head norms, in place.
    fn queries_and_keys_back(&self, slope: &mut [f32], raw: Option<&[f32]>, batch: &Batch) {
        let Heads { heads, kv_heads, dim, .. } = self.heads;
        let width = self.heads.width();
        if let Some(rotation) = batch.rotation {
            rotation.back(slope, width, dim, heads + kv_heads);
        }
        let Some(raw) = raw else { return };
        let raw_width = (heads + kv_heads) * dim;
        if let Some(norm) = &self.query_norm {
            norm.back((raw, raw_width, 0), (slope, width, 0), heads * dim);
        }
        if let Some(norm) = &self.key_norm {
            norm.back((raw, raw_width, heads * dim), (slope, width, heads * dim), kv_heads * dim);
        }
    }
}
