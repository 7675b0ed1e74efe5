//! A block of a decoder, forward and back, with weights that do not change.

use crate::attention::{Attended, Row, attend, attend_back};
use crate::dispatch::vectorised;
use crate::heads::Heads;
use crate::{Activation, Matrix, Norm, Packed, Rotation, Threads, activate, activate_back, product, product_packed};

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// `inputs × outputs`.
    pub weight: Matrix<'a>,
    /// The same weight as a copy that products read faster, where there is one.
    pub packed: Option<&'a Packed>,
    /// One for each output, where there are any.
    pub bias: Option<&'a [f32]>,
}

impl Projection<'_> {
    fn forward(&self, x: &[f32], threads: Threads) -> Vec<f32> {
        match self.packed {
            Some(packed) => product_packed(x, packed, self.bias, threads),
            None => product(x, self.weight, self.bias, threads),
        }
    }

    fn back(&self, slope: &[f32], threads: Threads) -> Vec<f32> {
        product(slope, self.weight.turned(), None, threads)
    }
}

/// How attention and feed-forward follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// The feed-forward reads what attention wrote, behind the second norm.
    Sequential,
    /// Both read the same normalised input, and both are added.
    Parallel,
    /// Both read the block's input, each behind a norm of its own, and both are added.
    ParallelTwoNorms,
}

/// One block's weights, where they lie, and what is done with them.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// How its parts follow each other.
    pub arrangement: Arrangement,
    /// Norm before attention.
    pub norm_1: Norm<'a>,
    /// Norm before the feed-forward; none in [`Arrangement::Parallel`].
    pub norm_2: Option<Norm<'a>>,
    /// Norm of each head's query, before it is rotated.
    pub query_norm: Option<Norm<'a>>,
    /// Norm of each head's key, before it is rotated.
    pub key_norm: Option<Norm<'a>>,
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
    /// What attention adds, of size `d`.
    pub attention: Vec<f32>,
    /// The down-projection's input (an edit's *key*), of size `f`.
    pub key: Vec<f32>,
    /// The feed-forward's output, of size `d`.
    pub mlp: Vec<f32>,
    /// Queries, keys (both rotated) and values side by side.
    pub qkv: Vec<f32>,
}

/// What the way back needs of the way there.
#[derive(Clone, Debug)]
pub struct Kept {
    x: Vec<f32>,
    /// What the feed-forward's norm read where that isn't `x`.
    middle: Option<Vec<f32>>,
    /// Queries and keys before their norms, where there are any, `[tokens, (heads + kv_heads)·dim]`.
    raw: Option<Vec<f32>>,
    qkv: Vec<f32>,
    attended: Attended,
    up: Vec<f32>,
    gate: Option<Vec<f32>>,
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

impl Block<'_> {
    /// Runs the block on the hidden state before it, `x` `[tokens, d]`.
    ///
    /// # Panics
    /// Where sizes do not fit each other.
    pub fn forward(&self, x: &[f32], batch: &Batch, threads: Threads) -> Passed {
        let normed = self.norm_1.forward(x);
        let (qkv, _) = self.queries_keys_values(&normed, batch, threads, false);
        let attended = attend(&self.heads, &batch.rows, &qkv, threads);
        let attention = self.attention_out.forward(&attended.out, threads);
        drop(attended);
        let residual = add(x.to_vec(), &attention);
        let input = self.feed_forward_input(x, normed, &residual);
        let mut key = self.up.forward(&input, threads);
        let gate = self.gate.map(|gate| gate.forward(&input, threads));
        drop(input);
        activate(self.activation, &mut key, gate.as_deref());
        drop(gate);
        let mlp = self.down.forward(&key, threads);
        Passed { hidden: add(residual, &mlp), attention, key, mlp, qkv }
    }

    /// As [`Block::forward`], for the hidden state alone and what [`Block::back`] needs.
    ///
    /// # Panics
    /// As [`Block::forward`].
    pub fn forward_kept(&self, x: Vec<f32>, batch: &Batch, threads: Threads) -> (Vec<f32>, Kept) {
        let normed = self.norm_1.forward(&x);
        let (qkv, raw) = self.queries_keys_values(&normed, batch, threads, true);
        let attended = attend(&self.heads, &batch.rows, &qkv, threads);
        let residual = add(self.attention_out.forward(&attended.out, threads), &x);
        let input = self.feed_forward_input(&x, normed, &residual);
        let up = self.up.forward(&input, threads);
        let gate = self.gate.map(|gate| gate.forward(&input, threads));
        let mut key = up.clone();
        activate(self.activation, &mut key, gate.as_deref());
        let mlp = self.down.forward(&key, threads);
        let (hidden, middle) = match self.arrangement {
            Arrangement::Sequential => (add(mlp, &residual), Some(residual)),
            _ => (add(residual, &mlp), None),
        };
        (hidden, Kept { x, middle, raw, qkv, attended, up, gate })
    }

    /// The way back: the gradient with respect to the hidden state before the block, given that with respect to the one after it. Keys
    /// and values of a past are constants, and so are weights.
    ///
    /// # Panics
    /// Where the batch is not the one that was run.
    pub fn back(&self, kept: Kept, slope: Vec<f32>, batch: &Batch, threads: Threads) -> Vec<f32> {
        let Kept { x, middle, raw, qkv, attended, up, mut gate } = kept;
        let mut at_up = self.down.back(&slope, threads);
        activate_back(self.activation, &mut at_up, &up, gate.as_deref_mut());
        drop(up);
        let mut at_input = self.up.back(&at_up, threads);
        drop(at_up);
        if let (Some(projection), Some(at_gate)) = (&self.gate, gate) {
            at_input = add(at_input, &projection.back(&at_gate, threads));
        }
        // What comes back to the block's input past attention, and to attention's own input.
        let mut into = slope;
        let mut at_normed = None;
        match (self.arrangement, &self.norm_2) {
            (Arrangement::Sequential, Some(norm)) => norm.back(middle.as_deref().unwrap_or(&x), &at_input, &mut into),
            (Arrangement::ParallelTwoNorms, Some(_)) => {}
            _ => at_normed = Some(std::mem::take(&mut at_input)),
        }
        let at_out = self.attention_out.back(&into, threads);
        if let (Arrangement::ParallelTwoNorms, Some(norm)) = (self.arrangement, &self.norm_2) {
            norm.back(&x, &at_input, &mut into);
        }
        let mut at_qkv = attend_back(&self.heads, &batch.rows, &qkv, &attended, &at_out, threads);
        self.queries_and_keys_back(&mut at_qkv, raw.as_deref(), batch);
        let back = self.qkv.back(&at_qkv, threads);
        let at_normed = match at_normed {
            Some(other) => add(back, &other),
            None => back,
        };
        self.norm_1.back(&x, &at_normed, &mut into);
        into
    }

    /// What the feed-forward reads.
    fn feed_forward_input(&self, x: &[f32], normed: Vec<f32>, residual: &[f32]) -> Vec<f32> {
        match (self.arrangement, &self.norm_2) {
            (Arrangement::Sequential, Some(norm)) => norm.forward(residual),
            (Arrangement::ParallelTwoNorms, Some(norm)) => norm.forward(x),
            _ => normed,
        }
    }

    /// Queries, keys and values, normed and rotated; and, to be kept, queries and keys before their norms.
    fn queries_keys_values(
        &self,
        normed: &[f32],
        batch: &Batch,
        threads: Threads,
        keep: bool,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let Heads { heads, kv_heads, dim, .. } = self.heads;
        let width = self.heads.width();
        let mut qkv = self.qkv.forward(normed, threads);
        let has_norm = self.query_norm.is_some() || self.key_norm.is_some();
        let raw = (keep && has_norm)
            .then(|| qkv.chunks_exact(width).flat_map(|row| &row[..(heads + kv_heads) * dim]).copied().collect());
        if let Some(norm) = &self.query_norm {
            norm.pieces(&mut qkv, width, 0, heads);
        }
        if let Some(norm) = &self.key_norm {
            norm.pieces(&mut qkv, width, heads * dim, kv_heads);
        }
        if let Some(rotation) = batch.rotation {
            rotation.forward(&mut qkv, width, dim, heads + kv_heads);
        }
        (qkv, raw)
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
            norm.pieces_back((raw, raw_width, 0), (slope, width, 0), heads);
        }
        if let Some(norm) = &self.key_norm {
            norm.pieces_back((raw, raw_width, heads * dim), (slope, width, heads * dim), kv_heads);
        }
    }
}
