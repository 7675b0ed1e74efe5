//! Attention over packed rows, without ever holding a matrix of queries by keys.
//!
//! Keys are taken in blocks, and each query keeps the largest score so far, the sum of exponentials relative to it, and the weighted sum of
//! values, which are put in proportion when a larger score comes (the online softmax of FlashAttention, arXiv 2205.14135). The way back
//! computes each block's weights again from the largest score and the sum.
//!
//! Blocks begin at fixed places of the *text*: what came before, then the row's own tokens. So a token's result is the same to the last bit
//! whether the tokens before it are computed with it, were kept as a [`Past`], or are the stem of several ways on.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::dispatch::{Shared, with_simd};
use crate::elementary::{exp, tanh};
use crate::tile::{ROWS, STRIP, add_weighted, with_strip};
use crate::{Heads, Past, Threads};

/// Keys in a block.
const BLOCK: usize = 64;
const STRIPS: usize = BLOCK / STRIP;

/// Scores from which on attention is worth several threads.
const WORTH_SHARING: usize = 1 << 16;

/// A row of a batch: which tokens attend to which.
#[derive(Clone, Debug, Default)]
pub struct Row<'a> {
    /// Tokens before the row's, which all of its tokens see.
    pub past: Option<&'a Past>,
    /// The row's first tokens, by their numbers in the batch; each sees those before it.
    pub stem: Range<usize>,
    /// Ways on from the stem, which do not see each other: each token sees past, stem, and those before it on its own way.
    pub ways: Vec<Range<usize>>,
}

impl Row<'_> {
    /// A row of tokens with nothing before it, and one way.
    pub fn of(tokens: Range<usize>) -> Self {
        Self { past: None, stem: tokens, ways: Vec::new() }
    }

    fn texts(&self) -> impl Iterator<Item = Text<'_>> {
        let past = self.past;
        let stem = Text { past, before: self.stem.start..self.stem.start, own: self.stem.clone() };
        let ways = self.ways.iter().map(move |way| Text { past, before: self.stem.clone(), own: way.clone() });
        std::iter::once(stem).chain(ways).filter(|text| !text.own.is_empty())
    }

    fn scores(&self) -> usize {
        self.texts().map(|text| text.own.len() * text.len()).sum()
    }
}

/// What attention yields.
#[derive(Clone, Debug)]
pub struct Attended {
    /// Weighted values, `[tokens, heads·dim]`.
    pub out: Vec<f32>,
    /// Of each token and head the largest score and the reciprocal of the sum of exponentials relative to it.
    measures: Vec<f32>,
}

/// Tokens that attend to themselves and to what is before them. Its *places* are numbered from the first token of the past on.
struct Text<'a> {
    past: Option<&'a Past>,
    before: Range<usize>,
    own: Range<usize>,
}

impl Text<'_> {
    fn past_len(&self) -> usize {
        self.past.map_or(0, Past::len)
    }

    /// Place of the first own token.
    fn first(&self) -> usize {
        self.past_len() + self.before.len()
    }

    fn len(&self) -> usize {
        self.first() + self.own.len()
    }

    /// The batch's token at a place behind the past, and how many places from there on have neighbouring tokens.
    #[inline(always)]
    fn token(&self, place: usize) -> (usize, usize) {
        let place = place - self.past_len();
        match place.checked_sub(self.before.len()) {
            None => (self.before.start + place, self.before.len() - place),
            Some(own) => (self.own.start + own, self.own.len() - own),
        }
    }
}

/// `softmax(q kᵀ/√dim) v`, scores as [`Heads`] has them changed, for each row and head, given queries, keys and values side by side, `qkv` `[tokens, (heads + 2·kv_heads)·dim]`.
///
/// # Panics
/// Where a row names a token that the batch does not have, or two name the same.
pub fn attend(heads: &Heads, rows: &[Row], qkv: &[f32], threads: Threads) -> Attended {
    let tokens = qkv.len() / heads.width();
    check(rows, tokens);
    let mut attended =
        Attended { out: vec![0.0; tokens * heads.queries()], measures: vec![0.0; 2 * tokens * heads.heads] };
    let work = Forward {
        heads: *heads,
        qkv,
        out: Shared::new(&mut attended.out),
        measures: Shared::new(&mut attended.measures),
    };
    for_each_head(heads, rows, threads, |row, head| one_head(OneHead { work: &work, row, head }));
    attended
}

/// The way back of [`attend`]: the gradient with respect to `qkv`, given that with respect to `out`. Keys and values of a past are
/// constants.
///
/// # Panics
/// As [`attend`].
pub fn attend_back(
    heads: &Heads,
    rows: &[Row],
    qkv: &[f32],
    attended: &Attended,
    slope: &[f32],
    threads: Threads,
) -> Vec<f32> {
    let tokens = qkv.len() / heads.width();
    check(rows, tokens);
    assert_eq!(slope.len(), tokens * heads.queries(), "a gradient for each number");
    let mut into = vec![0.0; qkv.len()];
    let work = Backward { heads: *heads, qkv, attended, slope, into: Shared::new(&mut into) };
    for_each_head(heads, rows, threads, |row, head| one_head(OneHead { work: &work, row, head }));
    into
}

/// Threads write to the tokens of their rows: no two rows may have the same.
fn check(rows: &[Row], tokens: usize) {
    let mut ranges: Vec<_> =
        rows.iter().flat_map(|row| row.ways.iter().chain([&row.stem])).filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "each token is in one row");
    assert!(ranges.last().is_none_or(|range| range.end <= tokens), "each token is in the batch");
}

/// Does `work` for each row and key head. What two of them write does not overlap.
fn for_each_head(heads: &Heads, rows: &[Row], threads: Threads, work: impl Fn(&Row, usize) + Sync) {
    let parts = rows.len() * heads.kv_heads;
    let one = |part: usize| work(&rows[part / heads.kv_heads], part % heads.kv_heads);
    let scores = rows.iter().map(Row::scores).sum::<usize>() * heads.heads;
    if threads.alone() || scores < WORTH_SHARING {
        (0..parts).for_each(one);
    } else {
        (0..parts).into_par_iter().for_each(one);
    }
}

/// What is done for a text and a key head.
trait OfText {
    fn text<S: Simd>(&self, simd: S, text: &Text, head: usize);
}

/// A row's texts and one key head.
struct OneHead<'a, W> {
    work: &'a W,
    row: &'a Row<'a>,
    head: usize,
}

/// By itself, so that a profile shows what it takes.
#[inline(never)]
fn one_head<W: OfText>(work: OneHead<W>) {
    with_simd(work);
}

impl<W: OfText> WithSimd for OneHead<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for text in self.row.texts() {
            self.work.text(simd, &text, self.head);
        }
    }
}

/// What a block of keys is for some queries.
struct Block {
    /// Its places in the text.
    start: usize,
    end: usize,
}

impl Block {
    fn all(places: usize) -> impl Iterator<Item = Self> {
        (0..places).step_by(BLOCK).map(move |start| Self { start, end: places.min(start + BLOCK) })
    }

    /// Columns of the block that the query at `place` sees.
    #[inline(always)]
    fn seen(&self, place: usize, window: Option<usize>) -> (usize, usize) {
        let from = window.map_or(0, |window| (place + 1).saturating_sub(window)).max(self.start);
        let to = (place + 1).min(self.end);
        (from - self.start, to.max(from) - self.start)
    }

    /// The text's own tokens, counted from its first, whose queries see any of the block.
    fn queries(&self, text: &Text, window: Option<usize>) -> Range<usize> {
        let first = text.first();
        let to = window.map_or(text.len(), |window| text.len().min(self.end + window - 1));
        self.start.max(first) - first..to.max(first) - first
    }
}

/// Fills `strips`, `[STRIPS, dim, 16]`, with vectors of the batch's tokens that are at the block's places: those that begin at column
/// `offset` of their rows.
#[inline(always)]
fn turn(text: &Text, block: &Block, (rows, width, offset): (&[f32], usize, usize), dim: usize, strips: &mut [f32]) {
    let mut place = block.start.max(text.past_len());
    while place < block.end {
        let (token, count) = text.token(place);
        for i in 0..count.min(block.end - place) {
            let at = place + i - block.start;
            let vector = &rows[(token + i) * width + offset..][..dim];
            let strip = &mut strips[at / STRIP * dim * STRIP..][..dim * STRIP];
            for (d, x) in vector.iter().enumerate() {
                strip[d * STRIP + at % STRIP] = *x;
            }
        }
        place += count;
    }
}

/// The strips of a block's keys. Those of the past are used where they lie; where one goes on behind the past, it is put together in
/// `made`.
#[inline(always)]
fn key_strips<'a>(
    heads: &Heads,
    text: &'a Text,
    block: &Block,
    head: usize,
    qkv: &[f32],
    made: &'a mut [f32],
) -> [&'a [f32]; STRIPS] {
    let past = text.past_len();
    let size = heads.dim * STRIP;
    if block.end > past {
        if let (Some(keys), true) = (text.past, past > block.start && !past.is_multiple_of(STRIP)) {
            let number = past / STRIP;
            made[(number - block.start / STRIP) * size..][..size].copy_from_slice(keys.strip(number, head, heads));
        }
        turn(text, block, (qkv, heads.width(), (heads.heads + head) * heads.dim), heads.dim, made);
    }
    let made: &[f32] = made;
    std::array::from_fn(|strip| {
        let place = block.start + strip * STRIP;
        match text.past {
            Some(keys) if (place + STRIP).min(block.end) <= past && place < past => {
                keys.strip(place / STRIP, head, heads)
            }
            _ => &made[strip * size..][..size],
        }
    })
}

/// Scores of `R` queries with a block's keys, those that a query does not see at −∞; and the columns that any of them sees.
#[inline(always)]
fn scores<S: Simd, const R: usize>(
    simd: S,
    heads: &Heads,
    block: &Block,
    strips: &[&[f32]; STRIPS],
    queries: [&[f32]; R],
    place: usize,
    query_head: usize,
) -> ([[f32; BLOCK]; R], (usize, usize)) {
    let scale = heads.factor();
    let mut scores = [[f32::NEG_INFINITY; BLOCK]; R];
    let seen: [(usize, usize); R] = std::array::from_fn(|r| block.seen(place + r, heads.window));
    let from = seen.iter().map(|seen| seen.0).min().unwrap_or(0);
    let to = seen.iter().map(|seen| seen.1).max().unwrap_or(0);
    for strip in from / STRIP..to.div_ceil(STRIP) {
        let tile = with_strip(simd, queries, strips[strip], heads.dim);
        for r in 0..R {
            for j in 0..STRIP {
                scores[r][strip * STRIP + j] = tile[r][j] * scale;
            }
        }
    }
    if let Some(cap) = heads.cap {
        for row in &mut scores {
            for score in &mut row[from / STRIP * STRIP..to.next_multiple_of(STRIP)] {
                *score = cap * tanh(*score / cap);
            }
        }
    }
    if let Some(alibi) = heads.alibi {
        let slope = alibi.slope(query_head, heads.heads);
        for (r, row) in scores.iter_mut().enumerate() {
            for (j, score) in row.iter_mut().enumerate().take(to).skip(from) {
                *score += alibi.bias(slope, place + r, block.start + j);
            }
        }
    }
    for r in 0..R {
        let (from, to) = seen[r];
        for j in (0..from).chain(to..BLOCK) {
            scores[r][j] = f32::NEG_INFINITY;
        }
    }
    (scores, (from, to))
}

/// Does `$work` for tokens `$range`, four at a time: `$n` becomes their number, `$at` the first.
macro_rules! by_fours {
    ($range:expr, |$at:ident, $n:ident| $work:expr) => {{
        let range = $range;
        let mut $at = range.start;
        while $at < range.end {
            match range.end - $at {
                1 => {
                    const $n: usize = 1;
                    $work;
                    $at += 1;
                }
                2 => {
                    const $n: usize = 2;
                    $work;
                    $at += 2;
                }
                3 => {
                    const $n: usize = 3;
                    $work;
                    $at += 3;
                }
                _ => {
                    const $n: usize = ROWS;
                    $work;
                    $at += ROWS;
                }
            }
        }
    }};
}

struct Forward<'a> {
    heads: Heads,
    qkv: &'a [f32],
    out: Shared,
    measures: Shared,
}

/// What a query knows so far.
#[derive(Clone, Copy)]
struct Sum {
    largest: f32,
    total: f64,
}

impl OfText for Forward<'_> {
    /// All queries of a text that share a key head.
    #[inline(always)]
    fn text<S: Simd>(&self, simd: S, text: &Text, head: usize) {
        let heads = &self.heads;
        let group = heads.heads / heads.kv_heads;
        let count = text.own.len();
        let mut made = vec![0.0; STRIPS * heads.dim * STRIP];
        let mut sums = vec![Sum { largest: f32::NEG_INFINITY, total: 0.0 }; group * count];
        for block in Block::all(text.len()) {
            let queries = block.queries(text, heads.window);
            if queries.is_empty() {
                continue;
            }
            let strips = key_strips(heads, text, &block, head, self.qkv, &mut made);
            for (g, sums) in sums.chunks_exact_mut(count).enumerate() {
                let query_head = head * group + g;
                by_fours!(queries.clone(), |at, N| self
                    .tile::<S, N>(simd, text, &block, &strips, head, query_head, at, sums));
            }
        }
        for (g, sums) in sums.chunks_exact(count).enumerate() {
            for (i, sum) in sums.iter().enumerate() {
                let token = text.own.start + i;
                let at = token * heads.heads + head * group + g;
                let factor = (1.0 / sum.total) as f32;
                // SAFETY: this thread's token and head.
                let (out, measures) =
                    unsafe { (self.out.part(at * heads.dim, heads.dim), self.measures.part(2 * at, 2)) };
                for x in out {
                    *x *= factor;
                }
                measures.copy_from_slice(&[sum.largest, factor]);
            }
        }
    }
}

impl Forward<'_> {
    /// `R` queries from the text's own token `at` on, of one head, with one block of keys.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &self,
        simd: S,
        text: &Text,
        block: &Block,
        strips: &[&[f32]; STRIPS],
        head: usize,
        query_head: usize,
        at: usize,
        sums: &mut [Sum],
    ) {
        let heads = &self.heads;
        let (width, dim) = (heads.width(), heads.dim);
        let token = text.own.start + at;
        let queries: [&[f32]; R] = std::array::from_fn(|r| &self.qkv[(token + r) * width + query_head * dim..][..dim]);
        let (mut weights, (from, to)) = scores(simd, heads, block, strips, queries, text.first() + at, query_head);
        // SAFETY: this thread's tokens and head; no two of them are the same.
        let mut out: [&mut [f32]; R] =
            std::array::from_fn(|r| unsafe { self.out.part(((token + r) * heads.heads + query_head) * dim, dim) });
        for r in 0..R {
            let sum = &mut sums[at + r];
            let (low, high) = block.seen(text.first() + at + r, heads.window);
            if low < high {
                let shrink = sum.add(&mut weights[r][from / STRIP * STRIP..to.next_multiple_of(STRIP)]);
                for x in out[r].iter_mut() {
                    *x *= shrink;
                }
            } else {
                weights[r].fill(0.0);
            }
        }
        let mut column = from;
        while column < to {
            let (vectors, stride, count) = self.values(text, head, block.start + column);
            let count = count.min(to - column);
            let out: [&mut [f32]; R] = out.each_mut().map(|row| &mut **row);
            add_weighted(simd, out, weights.each_ref().map(|row| &row[column..]), vectors, stride, count);
            column += count;
        }
    }

    /// Values from a place on, how far apart they begin, and how many there are.
    #[inline(always)]
    fn values<'b>(&'b self, text: &'b Text, head: usize, place: usize) -> (&'b [f32], usize, usize) {
        let heads = &self.heads;
        match text.past {
            Some(past) if place < past.len() => {
                (past.values(place, head, heads), heads.kv_heads * heads.dim, past.len() - place)
            }
            _ => {
                let (token, count) = text.token(place);
                let at = token * heads.width() + (heads.heads + heads.kv_heads + head) * heads.dim;
                (&self.qkv[at..], heads.width(), count)
            }
        }
    }
}

impl Sum {
    /// Takes in a block's scores, which become exponentials relative to the largest score so far. Returns what earlier sums are to be
    /// multiplied with.
    #[inline(always)]
    fn add(&mut self, scores: &mut [f32]) -> f32 {
        let mut each = [f32::NEG_INFINITY; STRIP];
        for strip in scores.chunks_exact(STRIP) {
            for j in 0..STRIP {
                each[j] = if strip[j] > each[j] { strip[j] } else { each[j] };
            }
        }
        let largest = each.iter().fold(self.largest, |a, b| if *b > a { *b } else { a });
        let mut each = [0f32; STRIP];
        for strip in scores.chunks_exact_mut(STRIP) {
            for j in 0..STRIP {
                strip[j] = exp(strip[j] - largest);
                each[j] += strip[j];
            }
        }
        let mut half = STRIP / 2;
        while half > 0 {
            for j in 0..half {
                each[j] += each[j + half];
            }
            half /= 2;
        }
        let shrink = exp(self.largest - largest);
        self.total = self.total * f64::from(shrink) + f64::from(each[0]);
        self.largest = largest;
        shrink
    }
}

struct Backward<'a> {
    heads: Heads,
    qkv: &'a [f32],
    attended: &'a Attended,
    slope: &'a [f32],
    into: Shared,
}

/// A block's keys and values as the way back needs them.
struct Turned<'a> {
    keys: [&'a [f32]; STRIPS],
    values: [&'a [f32]; STRIPS],
    /// Keys of the past, `[places, dim]`.
    past: &'a [f32],
}

impl OfText for Backward<'_> {
    #[inline(always)]
    fn text<S: Simd>(&self, simd: S, text: &Text, head: usize) {
        let heads = &self.heads;
        let (dim, past) = (heads.dim, text.past_len());
        let group = heads.heads / heads.kv_heads;
        let size = dim * STRIP;
        let (mut keys, mut values) = (vec![0.0; STRIPS * size], vec![0.0; STRIPS * size]);
        let mut rows = vec![0.0; BLOCK * dim];
        // Of each query, the scalar product of what came out and its gradient: what all scores together weigh.
        let mut along = Vec::with_capacity(group * text.own.len());
        for g in 0..group {
            for token in text.own.clone() {
                let at = (token * heads.heads + head * group + g) * dim;
                let pairs = self.attended.out[at..at + dim].iter().zip(&self.slope[at..at + dim]);
                along.push(pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32);
            }
        }
        for block in Block::all(text.len()) {
            let queries = block.queries(text, heads.window);
            if queries.is_empty() {
                continue;
            }
            if let Some(kept) = text.past {
                for place in block.start..block.end.min(past) {
                    let at = place - block.start;
                    let strip = kept.strip(place / STRIP, head, heads);
                    let value = &kept.values(place, head, heads)[..dim];
                    for d in 0..dim {
                        rows[at * dim + d] = strip[d * STRIP + place % STRIP];
                        values[at / STRIP * size + d * STRIP + at % STRIP] = value[d];
                    }
                }
            }
            let value_column = (heads.heads + heads.kv_heads + head) * dim;
            turn(text, &block, (self.qkv, heads.width(), value_column), dim, &mut values);
            let turned = Turned {
                keys: key_strips(heads, text, &block, head, self.qkv, &mut keys),
                values: std::array::from_fn(|strip| &values[strip * size..][..size]),
                past: &rows,
            };
            for (g, along) in along.chunks_exact(text.own.len()).enumerate() {
                let query_head = head * group + g;
                by_fours!(queries.clone(), |at, N| self
                    .tile::<S, N>(simd, text, &block, &turned, head, query_head, at, along));
            }
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &self,
        simd: S,
        text: &Text,
        block: &Block,
        turned: &Turned,
        head: usize,
        query_head: usize,
        at: usize,
        along: &[f32],
    ) {
        let heads = &self.heads;
        let (width, dim) = (heads.width(), heads.dim);
        let scale = heads.factor();
        let token = text.own.start + at;
        let of = |r: usize| (token + r) * heads.heads + query_head;
        let queries: [&[f32]; R] = std::array::from_fn(|r| &self.qkv[(token + r) * width + query_head * dim..][..dim]);
        let slopes: [&[f32]; R] = std::array::from_fn(|r| &self.slope[of(r) * dim..][..dim]);
        let place = text.first() + at;
        let (mut weights, (from, to)) = scores(simd, heads, block, &turned.keys, queries, place, query_head);
        let capped = heads.cap.map(|cap| (cap, weights));
        let mut changes = [[0f32; BLOCK]; R];
        for strip in from / STRIP..to.div_ceil(STRIP) {
            let tile = with_strip(simd, slopes, turned.values[strip], dim);
            for r in 0..R {
                let [largest, factor] = self.attended.measures[2 * of(r)..][..2] else { unreachable!() };
                for j in 0..STRIP {
                    let weight = &mut weights[r][strip * STRIP + j];
                    let seen = *weight > f32::NEG_INFINITY;
                    *weight = exp(*weight - largest) * factor;
                    // Columns that hold nothing may hold anything.
                    let change = *weight * (tile[r][j] - along[at + r]) * scale;
                    changes[r][strip * STRIP + j] = if seen { change } else { 0.0 };
                }
            }
        }
        if let Some((cap, scores)) = capped {
            let slope = heads.alibi.map(|alibi| (alibi, alibi.slope(query_head, heads.heads)));
            for (r, (changes, scores)) in changes.iter_mut().zip(&scores).enumerate() {
                for (j, (change, score)) in changes.iter_mut().zip(scores).enumerate().take(to).skip(from) {
                    // The slope of cap · tanh(s/cap) is 1 − tanh²; distance is added behind the cap.
                    let bias = slope.map_or(0.0, |(alibi, slope)| alibi.bias(slope, place + r, block.start + j));
                    let share = (score - bias) / cap;
                    *change *= if *score > f32::NEG_INFINITY { 1.0 - share * share } else { 0.0 };
                }
            }
        }
        // SAFETY: this thread's tokens and head; no two of them are the same, and none is a key or a value.
        let mut into: [&mut [f32]; R] =
            std::array::from_fn(|r| unsafe { self.into.part((token + r) * width + query_head * dim, dim) });
        let mut column = from;
        while column < to {
            let place = block.start + column;
            let (vectors, stride, count, token) = if place < text.past_len() {
                (&turned.past[column * dim..], dim, text.past_len() - place, None)
            } else {
                let (token, count) = text.token(place);
                (&self.qkv[token * width + (heads.heads + head) * dim..], width, count, Some(token))
            };
            let count = count.min(to - column);
            let rows: [&mut [f32]; R] = into.each_mut().map(|row| &mut **row);
            add_weighted(simd, rows, changes.each_ref().map(|row| &row[column..]), vectors, stride, count);
            if let Some(first) = token {
                self.keys_and_values::<S, R>(
                    simd,
                    text,
                    first,
                    column,
                    count,
                    (at, head, query_head),
                    &weights,
                    &changes,
                );
            }
            column += count;
        }
    }

    /// Adds to the gradients of `count` neighbouring tokens' keys and values, from `first` on, which the block has from `column` on.
    #[inline(always)]
    fn keys_and_values<S: Simd, const R: usize>(
        &self,
        simd: S,
        text: &Text,
        first: usize,
        column: usize,
        count: usize,
        (at, head, query_head): (usize, usize, usize),
        weights: &[[f32; BLOCK]; R],
        changes: &[[f32; BLOCK]; R],
    ) {
        let heads = &self.heads;
        let (width, dim) = (heads.width(), heads.dim);
        let token = text.own.start + at;
        let queries = &self.qkv[token * width + query_head * dim..];
        let slopes = &self.slope[(token * heads.heads + query_head) * dim..];
        by_fours!(0..count, |i, N| {
            let part = |side: usize| -> [&mut [f32]; N] {
                std::array::from_fn(|j| {
                    let at = (first + i + j) * width + (heads.heads + side * heads.kv_heads + head) * dim;
                    // SAFETY: keys and values of this thread's row and head, each once.
                    unsafe { self.into.part(at, dim) }
                })
            };
            let turned = |of: &[[f32; BLOCK]; R]| -> [[f32; R]; N] {
                std::array::from_fn(|j| std::array::from_fn(|r| of[r][column + i + j]))
            };
            let (of_keys, of_values) = (turned(changes), turned(weights));
            add_weighted(simd, part(0), of_keys.each_ref().map(<[f32; R]>::as_slice), queries, width, R);
            add_weighted(simd, part(1), of_values.each_ref().map(<[f32; R]>::as_slice), slopes, heads.queries(), R);
        });
    }
}
