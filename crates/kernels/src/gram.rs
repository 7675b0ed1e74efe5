//! Sums of products of keys, `Σ k kᵀ`, taken in f32 and summed in f64.
//!
//! A second moment is a sum over millions of tokens. Its products need not be exact, since the keys are not: they come out of f32. Its sum
//! must not lose what is added late. So products are summed in f32 over at most 128 tokens, one multiply-add after another, and those
//! sums are added in f64. Tokens are counted from the first of what is added: where a block begins depends on nothing else.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::Threads;
use crate::copies::PANEL;
use crate::dispatch::with_simd;
use crate::panels::turned_chains;

/// Tokens in a block.
const BLOCK: usize = 128;

/// Columns of which sums are held in registers.
const COLUMNS: usize = 8;

/// Adds `Σ k kᵀ` of keys `[tokens, f]` to the lower triangle of a matrix, given as its `f` columns of `f` numbers each. What is
/// above the diagonal stays as it is.
///
/// Relative to `√(Σ kᵢ² · Σ kⱼ²)`, an entry is off by at most 128 · 2⁻²⁴ = 8·10⁻⁶, were all roundings of a block to go one way, and as a rule by
/// less than 10⁻⁶, however many tokens there are.
///
/// # Panics
/// Where sizes do not fit each other.
pub fn add_gram(columns: &mut [&mut [f64]], keys: &[f32], threads: Threads) {
    let f = columns.len();
    assert!(f > 0 && keys.len().is_multiple_of(f), "rows of {f} keys, not {} numbers in all", keys.len());
    assert!(columns.iter().all(|column| column.len() == f), "a square matrix");
    let tokens = keys.len() / f;
    let panels = f.div_ceil(PANEL);
    // `[panels, tokens, 48]`: each panel is used with all others.
    let mut packed = vec![0f32; panels * tokens * PANEL];
    for (number, panel) in packed.chunks_exact_mut((tokens * PANEL).max(1)).enumerate() {
        let (from, width) = (number * PANEL, PANEL.min(f - number * PANEL));
        for (token, to) in panel.chunks_exact_mut(PANEL).enumerate() {
            to[..width].copy_from_slice(&keys[token * f + from..][..width]);
        }
    }
    let packed = &packed[..];
    let part = |(number, columns): (usize, &mut [&mut [f64]])| one_part(Part { packed, tokens, number, columns });
    let parts = columns.chunks_mut(PANEL).enumerate();
    if threads.alone() {
        parts.for_each(part);
    } else {
        parts.collect::<Vec<_>>().into_par_iter().for_each(part);
    }
}

/// By itself, so that a profile shows what it takes.
#[inline(never)]
fn one_part(part: Part) {
    with_simd(part);
}

/// 48 columns, and the rows from their first on.
struct Part<'a, 'b, 'c> {
    packed: &'a [f32],
    tokens: usize,
    number: usize,
    columns: &'b mut [&'c mut [f64]],
}

impl WithSimd for Part<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { packed, tokens, number, columns } = self;
        let size = tokens * PANEL;
        if size == 0 {
            return;
        }
        let own = &packed[number * size..][..size];
        for (other, rows) in packed.chunks_exact(size).enumerate().skip(number) {
            for (group, some) in columns.chunks_mut(COLUMNS).enumerate() {
                let mut total = [[0f64; PANEL]; COLUMNS];
                for first in (0..tokens).step_by(BLOCK) {
                    let count = BLOCK.min(tokens - first);
                    let mut sums = [[0f32; PANEL]; COLUMNS];
                    let of = &own[first * PANEL + group * COLUMNS..];
                    turned_chains::<S, COLUMNS>(simd, &mut sums, of, &rows[first * PANEL..], count);
                    for (total, sums) in total.iter_mut().zip(&sums) {
                        for (total, sum) in total.iter_mut().zip(sums) {
                            *total += f64::from(*sum);
                        }
                    }
                }
                for (place, (column, total)) in some.iter_mut().zip(&total).enumerate() {
                    let from = other * PANEL;
                    let to = column.len().min(from + PANEL);
                    // Of the panel that the diagonal goes through, what is above it is someone else's.
                    let above = if other == number { group * COLUMNS + place } else { 0 };
                    for (sum, total) in column[from..to].iter_mut().zip(total).skip(above) {
                        *sum += total;
                    }
                }
            }
        }
    }
}
