//! Products of rows with weights.
//!
//! `gemm` is fast because it chooses how it sums by the shape of a product. Here that choice must not show: what a row comes to may not
//! depend on how many others there are. What `gemm` 0.19 promises, as it is written, is this: in its general way each number is one
//! chain of multiply-adds over at most 512 inputs, begun at 0, whatever tile it falls into, and however many threads share the tiles; the
//! chains of longer sums are added one behind the other. So products are handed over in blocks of at most 512 inputs, which fixes where a
//! chain ends. It has other ways for products with a single row or column and for very small ones; those are computed here, by the same
//! chains. Where a CPU multiplies and adds with one rounding, `crate::panels` computes the same chains faster, and `gemm` is left to
//! others. Tests compare all ways to the last bit.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::bf16::{BLOCK, Form, MOST};
use crate::dispatch::{Shared, vectorised};
use crate::matrix::Matrix;
use crate::panels::{Begin, Packed, Source, by_panels};
use crate::{Compute, Threads};

/// Inputs in a chain of multiply-adds at most.
const CHAIN: usize = 512;

/// Multiplications from which on a product is worth several threads.
const WORTH_SHARING: usize = 192 * 192 * 192;

/// Rows up to which weights are read straight through, once, instead of tile by tile: there is too little to do with each.
const FEW: usize = 4;

/// Outputs that a thread sums at the same time where weights are read straight through.
const COLUMNS: usize = 1024;

impl Matrix<'_> {
    /// A copy that products read faster. Results are the same.
    pub fn packed(self) -> Packed {
        Packed::new(self, chain(self.inputs, self.compute))
    }
}

/// `x · weight (+ bias)`, `[rows, outputs]`, for rows `x` `[rows, inputs]`.
///
/// Each number is a sum in the order of the inputs: see the crate's description. The way back with respect to `x` is the product of the
/// gradient with [`Matrix::turned`].
///
/// # Panics
/// Where the sizes do not fit each other.
pub fn product(x: &[f32], weight: Matrix, bias: Option<&[f32]>, threads: Threads) -> Vec<f32> {
    let Matrix { inputs, outputs, .. } = weight;
    let rows = rows_of(x, inputs, outputs, bias);
    // A weight whose outputs are neighbours can be read straight through.
    let straight = weight.output_stride == 1 && rows <= FEW;
    let form = Form::of(weight.compute);
    match form {
        Form::Plain => {}
        Form::Pair | Form::Tile | Form::Rounded => {
            return panels(x, rows, (inputs, outputs), Source::Plain(weight, form), bias, threads);
        }
    }
    let fused = fused();
    let tiny = outputs * rows <= 256 || outputs < 2 || inputs <= 2;
    if fused && !tiny && !straight {
        return panels(x, rows, (inputs, outputs), Source::Plain(weight, form), bias, threads);
    }
    let mut out = match bias {
        None => vec![0.0; rows * outputs],
        Some(bias) => bias.repeat(rows),
    };
    let threads = if rows * inputs * outputs < WORTH_SHARING { Threads::One } else { threads };
    let each = chain(inputs, weight.compute);
    for (number, from) in (0..inputs).step_by(each).enumerate() {
        let part = weight.from(from, each.min(inputs - from));
        let begun = number > 0 || bias.is_some();
        if straight {
            straight_through(&mut out, &x[from..], inputs, rows, part, threads);
        } else if tiny {
            one_by_one(&mut out, &x[from..], inputs, rows, part);
        } else if rows == 1 {
            // Alone, a row would take another way: it is given a companion.
            let pair = [&x[from..from + part.inputs], &x[from..from + part.inputs]].concat();
            let mut both = out.repeat(2);
            tiles(&mut both, &pair, part.inputs, 2, part, begun, threads);
            out.copy_from_slice(&both[..outputs]);
        } else {
            tiles(&mut out, &x[from..], inputs, rows, part, begun, threads);
        }
    }
    out
}

/// As [`product()`], with a weight that was copied before: the same numbers to the last bit.
///
/// # Panics
/// As [`product()`].
pub fn product_packed(x: &[f32], weight: &Packed, bias: Option<&[f32]>, threads: Threads) -> Vec<f32> {
    let shape = (weight.inputs(), weight.outputs());
    panels(x, rows_of(x, shape.0, shape.1, bias), shape, Source::Packed(weight), bias, threads)
}

/// Inputs of each chain of a sum over so many: as many in each, but for the last. Where factors are rounded, whole
/// blocks, and twice as many inputs at most: a panel has as many bytes then.
fn chain(inputs: usize, compute: Compute) -> usize {
    let of = |most: usize| inputs.div_ceil(inputs.div_ceil(most).max(1)).max(1);
    match compute {
        Compute::F32 => of(CHAIN),
        Compute::Bf16 => of(MOST).next_multiple_of(BLOCK),
    }
}

/// How many rows there are.
fn rows_of(x: &[f32], inputs: usize, outputs: usize, bias: Option<&[f32]>) -> usize {
    assert!(inputs > 0 && x.len().is_multiple_of(inputs), "rows of {inputs} numbers, not {} in all", x.len());
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "a bias for each output");
    x.len() / inputs
}

/// Chain after chain, panel by panel.
fn panels(
    x: &[f32],
    rows: usize,
    (inputs, outputs): (usize, usize),
    source: Source,
    bias: Option<&[f32]>,
    threads: Threads,
) -> Vec<f32> {
    let threads = if rows * inputs * outputs < WORTH_SHARING { Threads::One } else { threads };
    let each = match source {
        Source::Plain(weight, _) => chain(inputs, weight.compute),
        Source::Packed(packed) => packed.chain(),
    };
    let form = source.form();
    let stride = form.cells(inputs);
    let x = form.rows(x, inputs, threads);
    let mut out = Vec::with_capacity(rows * outputs);
    for from in (0..inputs).step_by(each) {
        let begin = match bias {
            _ if from > 0 => Begin::Sums,
            Some(bias) => Begin::Bias(bias),
            None => Begin::Nothing,
        };
        let x = x.get(form.cells(from)..).unwrap_or_default();
        by_panels(Shared::room(&mut out), (x, stride, rows), source, (from, each.min(inputs - from)), begin, threads);
    }
    // SAFETY: the first chain has written all of them.
    unsafe { out.set_len(rows * outputs) };
    out
}

/// By `gemm`: `out = x · weight`, or added to it where it is `begun`.
fn tiles(out: &mut [f32], x: &[f32], stride: usize, rows: usize, weight: Matrix, begun: bool, threads: Threads) {
    let Matrix { values, inputs, outputs, input_stride, output_stride, .. } = weight;
    assert!(out.len() >= rows * outputs && x.len() >= (rows - 1) * stride + inputs);
    assert!(values.len() > (inputs - 1) * input_stride + (outputs - 1) * output_stride);
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: all three matrices lie within their slices, as was just asserted, and `out` is borrowed for writing.
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            out.as_mut_ptr(),
            1,
            outputs as isize,
            begun,
            x.as_ptr(),
            1,
            stride as isize,
            values.as_ptr(),
            output_stride as isize,
            input_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Whether `gemm` multiplies and adds with one rounding on this machine.
fn fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("neon");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[inline(always)]
fn step<const FUSED: bool>(a: f32, b: f32, sum: f32) -> f32 {
    if FUSED { a.mul_add(b, sum) } else { a * b + sum }
}

/// Adds a chain to each number, one number after another.
fn one_by_one(out: &mut [f32], x: &[f32], stride: usize, rows: usize, weight: Matrix) {
    let by = if fused() { step::<true> } else { step::<false> };
    for row in 0..rows {
        let x = &x[row * stride..][..weight.inputs];
        for (output, value) in out[row * weight.outputs..][..weight.outputs].iter_mut().enumerate() {
            let column = weight.values[output * weight.output_stride..].iter().step_by(weight.input_stride);
            *value += x.iter().zip(column).fold(0.0, |sum, (&x, &w)| by(x, w, sum));
        }
    }
}

/// Adds a chain to each number of a few rows, reading weights in the order in which they lie.
fn straight_through(out: &mut [f32], x: &[f32], stride: usize, rows: usize, weight: Matrix, threads: Threads) {
    let fused = fused();
    let (outputs, apart) = (weight.outputs, weight.input_stride);
    let shared = Shared::new(out);
    let some = |from: usize| {
        let width = COLUMNS.min(outputs - from);
        for row in 0..rows {
            // SAFETY: each thread has columns of its own, and takes one row of them at a time.
            let out = unsafe { shared.part(row * outputs + from, width) };
            let x = &x[row * stride..][..weight.inputs];
            let weight = &weight.values[from..];
            vectorised(
                #[inline(always)]
                || {
                    if fused {
                        columns::<true>(out, x, weight, apart);
                    } else {
                        columns::<false>(out, x, weight, apart);
                    }
                },
            );
        }
    };
    if threads.alone() {
        (0..outputs).step_by(COLUMNS).for_each(some);
    } else {
        (0..outputs.div_ceil(COLUMNS)).into_par_iter().for_each(|part| some(part * COLUMNS));
    }
}

#[inline(always)]
fn columns<const FUSED: bool>(out: &mut [f32], x: &[f32], weight: &[f32], stride: usize) {
    let width = out.len();
    let mut sums = [0f32; COLUMNS];
    let sums = &mut sums[..width];
    let row = |i: usize| &weight[i * stride..][..width];
    let whole = x.len() / 4 * 4;
    for i in (0..whole).step_by(4) {
        let (x0, x1, x2, x3) = (x[i], x[i + 1], x[i + 2], x[i + 3]);
        let (w0, w1, w2, w3) = (row(i), row(i + 1), row(i + 2), row(i + 3));
        for j in 0..width {
            let sum = step::<FUSED>(x1, w1[j], step::<FUSED>(x0, w0[j], sums[j]));
            sums[j] = step::<FUSED>(x3, w3[j], step::<FUSED>(x2, w2[j], sum));
        }
    }
    for i in whole..x.len() {
        let (x, w) = (x[i], row(i));
        for j in 0..width {
            sums[j] = step::<FUSED>(x, w[j], sums[j]);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out += *sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, from 2⁻³⁰ to 2³⁰ and of either sign.
    fn noise(state: &mut u64, count: usize) -> Vec<f32> {
        let mut next = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            let exponent = 97 + (*state >> 20) as u32 % 61;
            f32::from_bits((*state >> 32) as u32 & 0x807f_ffff | exponent << 23)
        };
        (0..count).map(|_| next()).collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    /// All CPUs compute the same: each way that this one has is compared with the plainest one, to the last bit.
    #[test]
    fn tiles_pairs_and_rounded_numbers_have_the_same_sums() {
        let mut state = 7;
        for (rows, inputs, outputs) in
            [(1, 1, 1), (1, 2, 300), (3, 7, 5), (16, 64, 48), (11, 333, 100), (4, 1025, 49), (37, 2050, 96), (0, 6, 4)]
        {
            let (x, w) = (noise(&mut state, rows * inputs), noise(&mut state, inputs * outputs));
            let b = noise(&mut state, outputs);
            for weight in [Matrix::new(&w, inputs, outputs), Matrix::new(&w, outputs, inputs).turned()] {
                let weight = weight.computed_in(Compute::Bf16);
                let by =
                    |form| panels(&x, rows, (inputs, outputs), Source::Plain(weight, form), Some(&b), Threads::One);
                let plain = one_after_the_other(&x, weight, &b);
                for form in Form::all().into_iter().filter(|form| form.is_here()) {
                    assert_eq!(bits(&by(form)), bits(&plain), "{form:?}: {rows} × {inputs} × {outputs}");
                }
                assert_eq!(bits(&product(&x, weight, Some(&b), Threads::All)), bits(&plain), "{rows} × {inputs}");
            }
        }
    }

    /// What the module says, number by number.
    fn one_after_the_other(x: &[f32], weight: Matrix, bias: &[f32]) -> Vec<f32> {
        let each = chain(weight.inputs, Compute::Bf16);
        let round = |x: f32| half(f64::from(x));
        let mut out = Vec::new();
        for row in x.chunks_exact(weight.inputs) {
            for (output, bias) in bias.iter().enumerate() {
                let at = |i: usize| weight.values[i * weight.input_stride + output * weight.output_stride];
                let mut total = *bias;
                for from in (0..weight.inputs).step_by(each) {
                    let until = weight.inputs.min(from + each);
                    let half = |from: usize| {
                        let mut sum = 0f32;
                        for first in (from..until.min(from + 16)).step_by(2) {
                            for i in [first + 1, first].into_iter().filter(|i| *i < until) {
                                sum = round(row[i]).mul_add(round(at(i)), sum);
                            }
                        }
                        sum
                    };
                    total += (from..until).step_by(32).fold(0.0, |sum, from| sum + (half(from) + half(from + 16)));
                }
                out.push(total);
            }
        }
        out
    }

    /// The nearest number of 8 bits, ties to even, by arithmetic in f64.
    fn half(x: f64) -> f32 {
        if x == 0.0 {
            return x as f32;
        }
        let unit = 2f64.powi(x.abs().log2().floor() as i32 - 7);
        ((x / unit).round_ties_even() * unit) as f32
    }
}
