//! The same mathematics as plainly as it can be written, in f64: what kernels are compared with.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::ops::Range;

use palinode_kernels::{
    Activation, Arrangement, Batch, Block, Experts, HeadNorm, Heads, Matrix, Norm, NormKind, Passed, Past, Projection,
    Rotation, Row,
};

/// Numbers without a pattern, in (−1, 1).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn take(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| scale * self.next()).collect()
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// The largest difference, relative to the largest number.
pub fn far(found: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let largest = exact.iter().fold(0f64, |a, b| a.max(b.abs()));
    let far = found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).abs());
    far.fold(0f64, |a, b| if b > a || b.is_nan() { b } else { a }) / largest
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `x · w (+ b)`, `w` as `[inputs, outputs]`.
pub fn product(x: &[f64], w: &[f32], b: Option<&[f32]>, inputs: usize, outputs: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks_exact(inputs) {
        for o in 0..outputs {
            let sum: f64 = row.iter().enumerate().map(|(i, x)| x * f64::from(w[i * outputs + o])).sum();
            out.push(sum + b.map_or(0.0, |b| f64::from(b[o])));
        }
    }
    out
}

pub fn norm(norm: &Norm, x: &[f64]) -> Vec<f64> {
    let size = norm.weight.len();
    let mut out = Vec::new();
    for row in x.chunks_exact(size) {
        let n = size as f64;
        let mean = if norm.kind == NormKind::Layer { row.iter().sum::<f64>() / n } else { 0.0 };
        let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let root = (square + norm.epsilon).sqrt();
        for (i, x) in row.iter().enumerate() {
            let bias = norm.bias.map_or(0.0, |b| f64::from(b[i]));
            out.push((x - mean) / root * f64::from(norm.weight[i]) + bias);
        }
    }
    out
}

/// A row's queries or keys, piece by piece.
fn head_norm(head: &HeadNorm, x: &[f64]) -> Vec<f64> {
    let pieces = x.chunks_exact(head.size).enumerate();
    pieces
        .flat_map(|(i, piece)| {
            let from = i * head.size % head.norm.weight.len();
            norm(&Norm { weight: &head.norm.weight[from..from + head.size], ..head.norm }, piece)
        })
        .collect()
}

/// `erf` by its series, or by the continued fraction of `erfc`.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    x.signum() * (1.0 - erfc(x.abs()))
}

/// `erfc` for `x ≥ 1`.
fn erfc(x: f64) -> f64 {
    let mut tail = x;
    for k in (1..200).rev() {
        tail = x + f64::from(k) / 2.0 / tail;
    }
    (-x * x).exp() / std::f64::consts::PI.sqrt() / tail
}

pub fn activation(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::GeluNew => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            // 1 + tanh u = 2/(1 + e^(−2u))
            x / (1.0 + (-2.0 * u).exp())
        }
        Activation::Gelu if x < -2.0 => x / 2.0 * erfc(-x / std::f64::consts::SQRT_2),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// A row's tokens before it: their keys and values, `[kv_heads·dim]` each.
#[derive(Clone, Default)]
pub struct PlainPast {
    pub keys: Vec<Vec<f64>>,
    pub values: Vec<Vec<f64>>,
}

/// Which tokens a token sees: pasts first. `rows` and `pasts` go together.
pub fn attention(heads: &Heads, rows: &[Row], pasts: &[PlainPast], qkv: &[f64]) -> Vec<f64> {
    let (dim, width) = (heads.dim, heads.width());
    let mut out = vec![0.0; qkv.len() / width * heads.queries()];
    for (row, past) in rows.iter().zip(pasts) {
        let stem: Vec<usize> = row.stem.clone().collect();
        let mut texts = vec![(stem.clone(), 0)];
        for way in &row.ways {
            texts.push((stem.iter().copied().chain(way.clone()).collect(), stem.len()));
        }
        for (tokens, first) in texts {
            for query in first..tokens.len() {
                for head in 0..heads.heads {
                    let kv = head / (heads.heads / heads.kv_heads);
                    let side = |token: usize, side: usize| {
                        &qkv[token * width + (heads.heads + side * heads.kv_heads + kv) * dim..][..dim]
                    };
                    let before = past.keys.iter().zip(&past.values);
                    let mut seen: Vec<(&[f64], &[f64])> =
                        before.map(|(k, v)| (&k[kv * dim..][..dim], &v[kv * dim..][..dim])).collect();
                    seen.extend(tokens[..=query].iter().map(|&t| (side(t, 0), side(t, 1))));
                    let from = heads.window.map_or(0, |window| seen.len().saturating_sub(window));
                    let seen = &seen[from..];
                    let q = &qkv[tokens[query] * width + head * dim..][..dim];
                    let scores: Vec<f64> = seen
                        .iter()
                        .enumerate()
                        .map(|(i, (k, _))| {
                            let product: f64 = q.iter().zip(*k).map(|(a, b)| a * b).sum();
                            let score = product * heads.scale.map_or(1.0 / (dim as f64).sqrt(), f64::from);
                            let score = heads.cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
                            score + distance(heads, head, from + i, from + seen.len() - 1)
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..dim {
                        let sum: f64 = weights.iter().zip(seen).map(|(w, (_, v))| w * v[d]).sum();
                        out[tokens[query] * heads.queries() + head * dim + d] = sum / total;
                    }
                }
            }
        }
    }
    out
}

/// What the distance of a key from the query adds.
fn distance(heads: &Heads, head: usize, key: usize, query: usize) -> f64 {
    let Some(alibi) = heads.alibi else { return 0.0 };
    // Slopes as the paper has them, of 2, 3, 4 and 6 heads.
    let powers: &[f64] = match heads.heads {
        1 => &[8.0],
        2 => &[4.0, 8.0],
        3 => &[4.0, 8.0, 2.0],
        4 => &[2.0, 4.0, 6.0, 8.0],
        6 => &[2.0, 4.0, 6.0, 8.0, 1.0, 3.0],
        _ => unreachable!(),
    };
    let slope = (-powers[head]).exp2();
    let round = |x: f64| if alibi.rounded { f64::from(half_bits(x as f32)) } else { x };
    (round(slope * key as f64) - round(slope * query as f64)) * f64::from(alibi.scale)
}

/// The nearest number with 8 bits, by way of its size.
fn half_bits(x: f32) -> f32 {
    if x == 0.0 {
        return 0.0;
    }
    let unit = (x.abs().log2().floor() - 7.0).exp2();
    (x / unit).round_ties_even() * unit
}

pub fn rotate(frequencies: &[f64], positions: &[usize], x: &mut [f64], width: usize, dim: usize, count: usize) {
    let pairs = frequencies.len();
    for (row, position) in x.chunks_exact_mut(width).zip(positions) {
        for piece in row[..count * dim].chunks_exact_mut(dim) {
            for (i, f) in frequencies.iter().enumerate() {
                let (sin, cos) = (*position as f64 * f).sin_cos();
                let (a, b) = (piece[i], piece[i + pairs]);
                (piece[i], piece[i + pairs]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
}

/// How tokens find their experts.
#[derive(Clone, Copy)]
pub struct Mixture {
    pub top: usize,
    pub normalised: bool,
    /// One more expert that all tokens use.
    pub shared: bool,
}

/// Experts that tokens choose from.
const EXPERTS: usize = 4;

/// The numbers of a block, made up.
pub struct Weights {
    pub d: usize,
    pub f: usize,
    pub heads: Heads,
    pub arrangement: Arrangement,
    pub activation: Activation,
    pub kind: NormKind,
    pub gated: bool,
    pub bias: bool,
    /// Numbers of a query or a key that are normed together.
    pub head_norm: Option<usize>,
    /// Every head has weights of its own.
    pub each_head: bool,
    pub norms_before: bool,
    pub norms_behind: bool,
    pub multiplier: f32,
    pub clip: Option<f32>,
    /// The feed-forward's `f` are those of four experts and one that all tokens use.
    pub experts: Option<Mixture>,
    numbers: Vec<Vec<f32>>,
}

impl Weights {
    pub fn new(d: usize, f: usize, heads: Heads, arrangement: Arrangement, activation: Activation) -> Self {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let (width, queries, dim) = (heads.width(), heads.queries(), heads.dim);
        let around_one = |n: usize, noise: &mut Noise| noise.take(n, 0.3).iter().map(|x| 1.0 + x).collect();
        let mut numbers: Vec<Vec<f32>> = Vec::new();
        for n in [d, d, dim, dim] {
            numbers.push(around_one(n, &mut noise));
        }
        for n in [d, d, width, queries.min(d).max(d), f, f, d] {
            numbers.push(noise.take(n, 0.2));
        }
        for (inputs, outputs) in [(d, width), (queries, d), (d, f), (d, f), (f, d)] {
            numbers.push(noise.take(inputs * outputs, 1.5 / (inputs as f32).sqrt()));
        }
        // Norms behind attention and feed-forward, and norms of all heads' queries and keys.
        for n in [d, d, queries, heads.kv_heads * dim] {
            numbers.push(around_one(n, &mut noise));
        }
        for n in [EXPERTS, 1] {
            numbers.push(noise.take(d * n, 1.5 / (d as f32).sqrt()));
        }
        Self {
            d,
            f,
            heads,
            arrangement,
            activation,
            kind: NormKind::Layer,
            gated: false,
            bias: true,
            head_norm: None,
            each_head: false,
            norms_before: true,
            norms_behind: false,
            multiplier: 1.0,
            clip: None,
            experts: None,
            numbers,
        }
    }

    pub fn block(&self) -> Block<'_> {
        let Self { d, f, heads, numbers, .. } = self;
        let norm = |weight: usize, bias: Option<usize>| Norm {
            kind: self.kind,
            weight: &numbers[weight],
            bias: bias.filter(|_| self.kind == NormKind::Layer).map(|bias| numbers[bias].as_slice()),
            epsilon: 1e-5,
        };
        let projection = |weight: usize, inputs: usize, outputs: usize, bias: usize| Projection {
            weight: Matrix::new(&numbers[weight], inputs, outputs),
            packed: None,
            packed_back: None,
            bias: self.bias.then(|| numbers[bias].as_slice()),
        };
        let head_norm = |shared: usize, of_all: usize, all: usize| {
            let size = self.head_norm?.min(all);
            let whole = self.each_head || size > heads.dim;
            Some(HeadNorm { norm: norm(if whole { of_all } else { shared }, None), size })
        };
        Block {
            arrangement: self.arrangement,
            norm_1: self.norms_before.then(|| norm(0, Some(4))),
            norm_2: (self.norms_before && self.arrangement != Arrangement::Parallel).then(|| norm(1, Some(5))),
            attention_norm: self.norms_behind.then(|| norm(16, None)),
            mlp_norm: self.norms_behind.then(|| norm(17, None)),
            multiplier: self.multiplier,
            query_norm: head_norm(2, 18, heads.queries()),
            key_norm: head_norm(3, 19, heads.kv_heads * heads.dim),
            clip: self.clip,
            qkv: projection(11, *d, heads.width(), 6),
            heads: *heads,
            attention_out: projection(12, heads.queries(), *d, 7),
            up: projection(13, *d, *f, 8),
            gate: self.gated.then(|| projection(14, *d, *f, 9)),
            activation: self.activation,
            down: projection(15, *f, *d, 10),
            experts: self.experts.map(|mixture| {
                let score = |weight: usize, outputs: usize| Projection {
                    weight: Matrix::new(&numbers[weight], *d, outputs),
                    packed: None,
                    packed_back: None,
                    bias: None,
                };
                Experts {
                    router: score(20, EXPERTS),
                    top: mixture.top,
                    normalised: mixture.normalised,
                    shared: mixture.shared.then(|| score(21, 1)),
                    parts: self.parts(mixture),
                }
            }),
        }
    }

    fn parts(&self, mixture: Mixture) -> Vec<Range<usize>> {
        let count = EXPERTS + usize::from(mixture.shared);
        (0..count).map(|part| part * self.f / count..(part + 1) * self.f / count).collect()
    }

    /// The gate of every number of a key, `[tokens, f]`.
    fn gates(&self, mixture: Mixture, input: &[f64]) -> Vec<f64> {
        let scores = product(input, &self.numbers[20], None, self.d, EXPERTS);
        let own = product(input, &self.numbers[21], None, self.d, 1);
        let mut gates = vec![0.0; scores.len() / EXPERTS * self.f];
        for ((scores, own), gates) in scores.chunks_exact(EXPERTS).zip(own).zip(gates.chunks_exact_mut(self.f)) {
            let sum: f64 = scores.iter().map(|s| s.exp()).sum();
            let shares: Vec<f64> = scores.iter().map(|s| s.exp() / sum).collect();
            let mut order: Vec<usize> = (0..EXPERTS).collect();
            order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
            let used = &order[..mixture.top];
            let whole: f64 = if mixture.normalised { used.iter().map(|&e| shares[e]).sum() } else { 1.0 };
            for (part, range) in self.parts(mixture).into_iter().enumerate() {
                let gate = match part {
                    EXPERTS => 1.0 / (1.0 + (-own).exp()),
                    _ if used.contains(&part) => shares[part] / whole,
                    _ => 0.0,
                };
                gates[range].fill(gate);
            }
        }
        gates
    }

    /// What was found of keys, `[tokens, f]`.
    pub fn wide_key(&self, found: &Passed) -> Vec<f32> {
        let (Some(mixture), Some(routes)) = (self.experts, &found.routes) else { return found.key.clone() };
        let mut wide = vec![0.0; found.mlp.len() / self.d * self.f];
        let mut rest = found.key.as_slice();
        for route in routes {
            let range = self.parts(mixture)[route.part].clone();
            for token in &route.tokens {
                let (row, behind) = rest.split_at(range.len());
                wide[token * self.f..][range.clone()].copy_from_slice(row);
                rest = behind;
            }
        }
        assert!(rest.is_empty());
        wide
    }

    /// The hidden state after the block, and what else it yields, in f64.
    pub fn plain(
        &self,
        x: &[f64],
        rows: &[Row],
        pasts: &[PlainPast],
        rotation: Option<(&[f64], &[usize])>,
    ) -> PlainPassed {
        let block = self.block();
        let Heads { heads, kv_heads, dim, .. } = self.heads;
        let width = self.heads.width();
        let (d, f, queries) = (self.d, self.f, self.heads.queries());
        let project = |x: &[f64], number: usize, bias: usize, inputs: usize, outputs: usize| {
            let bias = self.bias.then(|| self.numbers[bias].as_slice());
            product(x, &self.numbers[number], bias, inputs, outputs)
        };
        let plus = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
        let normed = block.norm_1.map_or_else(|| x.to_vec(), |n| norm(&n, x));
        let mut qkv = project(&normed, 11, 6, d, width);
        for row in qkv.chunks_exact_mut(width) {
            if let Some(clip) = self.clip {
                for x in row.iter_mut() {
                    *x = x.clamp(-f64::from(clip), f64::from(clip));
                }
            }
            if let (Some(q), Some(k)) = (&block.query_norm, &block.key_norm) {
                let queries = head_norm(q, &row[..heads * dim]);
                let keys = head_norm(k, &row[heads * dim..(heads + kv_heads) * dim]);
                row[..heads * dim].copy_from_slice(&queries);
                row[heads * dim..(heads + kv_heads) * dim].copy_from_slice(&keys);
            }
        }
        if let Some((frequencies, positions)) = rotation {
            rotate(frequencies, positions, &mut qkv, width, dim, heads + kv_heads);
        }
        let attended = attention(&self.heads, rows, pasts, &qkv);
        let added = |n: Option<Norm>, x: &[f64]| -> Vec<f64> {
            let x = n.map_or_else(|| x.to_vec(), |n| norm(&n, x));
            x.iter().map(|x| x * f64::from(self.multiplier)).collect()
        };
        let attention = added(block.attention_norm, &project(&attended, 12, 7, queries, d));
        let residual = plus(x, &attention);
        let input = match (self.arrangement, &block.norm_2) {
            (Arrangement::Sequential, Some(n)) => norm(n, &residual),
            (Arrangement::Sequential, None) => residual.clone(),
            (Arrangement::ParallelTwoNorms, Some(n)) => norm(n, x),
            _ => normed,
        };
        let up = project(&input, 13, 8, d, f);
        let mut key: Vec<f64> = if self.gated {
            let gate = project(&input, 14, 9, d, f);
            gate.iter().zip(&up).map(|(g, u)| activation(self.activation, *g) * u).collect()
        } else {
            up.iter().map(|u| activation(self.activation, *u)).collect()
        };
        if let Some(mixture) = self.experts {
            key.iter_mut().zip(self.gates(mixture, &input)).for_each(|(key, gate)| *key *= gate);
        }
        let mlp = project(&key, 15, 10, f, d);
        PlainPassed { hidden: plus(&residual, &added(block.mlp_norm, &mlp)), attention, key, mlp, qkv }
    }
}

pub struct PlainPassed {
    pub hidden: Vec<f64>,
    pub attention: Vec<f64>,
    pub key: Vec<f64>,
    pub mlp: Vec<f64>,
    pub qkv: Vec<f64>,
}

/// A past of made-up keys and values, in both forms.
pub fn past(heads: &Heads, tokens: usize, noise: &mut Noise) -> (Past, PlainPast) {
    let rows = noise.take(tokens * heads.width(), 1.0);
    let mut past = Past::new();
    past.append(&rows, heads);
    (past, plain_past(heads, &wide(&rows)))
}

pub fn plain_past(heads: &Heads, rows: &[f64]) -> PlainPast {
    let mut plain = PlainPast::default();
    let kv = heads.kv_heads * heads.dim;
    for row in rows.chunks_exact(heads.width()) {
        let keys = &row[heads.queries()..];
        plain.keys.push(keys[..kv].to_vec());
        plain.values.push(keys[kv..].to_vec());
    }
    plain
}

pub fn batch<'a>(rows: Vec<Row<'a>>, rotation: Option<&'a Rotation>) -> Batch<'a> {
    Batch { rows, rotation }
}
