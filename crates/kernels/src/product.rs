//! Products of rows with weights.
//!
//! `gemm` is fast because it chooses how it sums by the shape of a product. Here that choice must not show: what a row comes to may not
//! depend on how many others there are. What `gemm` 0.19 promises, as it is written, is this: in its general way each number is one
//! chain of multiply-adds over at most 512 inputs, begun at 0, whatever tile it falls into, and however many threads share the tiles; the
//! chains of longer sums are added one behind the other. So products are handed over in blocks of at most 512 inputs, which fixes where a
//! chain ends. It has other ways for products with a single row or column and for very small ones; those are computed here, by the same
//! chains. Tests compare the two to the last bit.

use gemm::Parallelism;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::Threads;
use crate::dispatch::{Shared, vectorised, with_simd};
use crate::tile::{STRIP, chains};

/// Inputs in a chain of multiply-adds at most.
const CHAIN: usize = 512;

/// Multiplications from which on a product is worth several threads.
const WORTH_SHARING: usize = 192 * 192 * 192;

/// Rows up to which weights are read straight through, once, instead of tile by tile: there is too little to do with each.
const FEW: usize = 4;

/// Rows up to which weights are copied together piece by piece, each used for all rows: `gemm` is made for more.
const SOME: usize = 56;

/// Outputs that a thread sums at the same time where weights are read straight through.
const COLUMNS: usize = 1024;

/// A weight matrix where it lies: `inputs × outputs` numbers, whichever of them are neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    inputs: usize,
    outputs: usize,
    input_stride: usize,
    output_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Of numbers that lie as `[inputs, outputs]`.
    ///
    /// # Panics
    /// Where there are more or fewer.
    pub fn new(values: &'a [f32], inputs: usize, outputs: usize) -> Self {
        assert_eq!(values.len(), inputs * outputs, "a matrix has as many numbers as its shape says");
        Self { values, inputs, outputs, input_stride: outputs, output_stride: 1 }
    }

    /// The transposed matrix: the same numbers.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            inputs: self.outputs,
            outputs: self.inputs,
            input_stride: self.output_stride,
            output_stride: self.input_stride,
            ..self
        }
    }

    /// Numbers of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The inputs from one on, and the same of what they are multiplied with.
    fn from(self, input: usize, count: usize) -> Self {
        Self { values: &self.values[input * self.input_stride..], inputs: count, ..self }
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
    assert!(inputs > 0 && x.len().is_multiple_of(inputs), "rows of {inputs} numbers, not {} in all", x.len());
    let rows = x.len() / inputs;
    let mut out = match bias {
        None => vec![0.0; rows * outputs],
        Some(bias) => {
            assert_eq!(bias.len(), outputs, "a bias for each output");
            bias.repeat(rows)
        }
    };
    let threads = if rows * inputs * outputs < WORTH_SHARING { Threads::One } else { threads };
    let chains = inputs.div_ceil(CHAIN);
    let each = inputs.div_ceil(chains);
    // A weight whose outputs are neighbours can be read straight through.
    let straight = weight.output_stride == 1 && rows <= FEW;
    let fused = fused();
    let tiny = outputs * rows <= 256 || outputs < 2 || inputs <= 2;
    for (number, from) in (0..inputs).step_by(each).enumerate() {
        let part = weight.from(from, each.min(inputs - from));
        let begun = number > 0 || bias.is_some();
        if straight {
            straight_through(&mut out, &x[from..], inputs, rows, part, threads);
        } else if tiny {
            one_by_one(&mut out, &x[from..], inputs, rows, part);
        } else if weight.output_stride == 1 && rows <= SOME && fused {
            by_pieces(&mut out, &x[from..], inputs, rows, part, threads);
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

/// By `gemm`: `out = x · weight`, or added to it where it is `begun`.
fn tiles(out: &mut [f32], x: &[f32], stride: usize, rows: usize, weight: Matrix, begun: bool, threads: Threads) {
    let Matrix { values, inputs, outputs, input_stride, output_stride } = weight;
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
    let outputs = weight.outputs;
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
                        columns::<true>(out, x, weight, outputs);
                    } else {
                        columns::<false>(out, x, weight, outputs);
                    }
                },
            );
        }
    };
    if threads == Threads::All {
        (0..outputs.div_ceil(COLUMNS)).into_par_iter().for_each(|part| some(part * COLUMNS));
    } else {
        (0..outputs).step_by(COLUMNS).for_each(some);
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
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum);
}

/// Outputs in a piece, and inputs: 64 KiB, which stay close to the CPU while all rows use them.
const PIECE: [usize; 2] = [64, 256];

/// Adds a chain to each number of some rows, copying weights together in pieces.
fn by_pieces(out: &mut [f32], x: &[f32], stride: usize, rows: usize, weight: Matrix, threads: Threads) {
    let outputs = weight.outputs;
    let out = Shared::new(out);
    let some = |from: usize| {
        let width = PIECE[0].min(outputs - from);
        with_simd(Piece { out, x, stride, rows, weight, from, width });
    };
    if threads == Threads::All {
        (0..outputs.div_ceil(PIECE[0])).into_par_iter().for_each(|part| some(part * PIECE[0]));
    } else {
        (0..outputs).step_by(PIECE[0]).for_each(some);
    }
}

/// `width` outputs from one on, of all rows.
struct Piece<'a> {
    out: Shared,
    x: &'a [f32],
    stride: usize,
    rows: usize,
    weight: Matrix<'a>,
    from: usize,
    width: usize,
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, x, stride, rows, weight, from, width } = self;
        let strips = width.div_ceil(STRIP);
        let mut copied = vec![0f32; strips * STRIP * PIECE[1].min(weight.inputs)];
        let mut sums = vec![[0f32; STRIP]; strips * rows];
        for first in (0..weight.inputs).step_by(PIECE[1]) {
            let count = PIECE[1].min(weight.inputs - first);
            for i in 0..count {
                let line = &weight.values[(first + i) * weight.input_stride + from..][..width];
                for (strip, part) in line.chunks(STRIP).enumerate() {
                    let place = &mut copied[(strip * count + i) * STRIP..][..STRIP];
                    match <[f32; STRIP]>::try_from(part) {
                        Ok(part) => place.copy_from_slice(&part),
                        Err(_) => place[..part.len()].copy_from_slice(part),
                    }
                }
            }
            for (strip, sums) in sums.chunks_exact_mut(rows).enumerate() {
                let copied = &copied[strip * count * STRIP..][..count * STRIP];
                let mut row = 0;
                while row < rows {
                    let x = &x[row * stride + first..];
                    row += match rows - row {
                        1 => go_on::<S, 1>(simd, &mut sums[row..], x, stride, copied, count),
                        2 => go_on::<S, 2>(simd, &mut sums[row..], x, stride, copied, count),
                        3 => go_on::<S, 3>(simd, &mut sums[row..], x, stride, copied, count),
                        4 => go_on::<S, 4>(simd, &mut sums[row..], x, stride, copied, count),
                        5 => go_on::<S, 5>(simd, &mut sums[row..], x, stride, copied, count),
                        _ => go_on::<S, 6>(simd, &mut sums[row..], x, stride, copied, count),
                    };
                }
            }
        }
        for row in 0..rows {
            // SAFETY: each thread has outputs of its own.
            let out = unsafe { out.part(row * weight.outputs + from, width) };
            for (strip, part) in out.chunks_mut(STRIP).enumerate() {
                for (out, sum) in part.iter_mut().zip(&sums[strip * rows + row]) {
                    *out += sum;
                }
            }
        }
    }
}

/// Goes on with the chains of `R` rows and 16 outputs; returns `R`.
#[inline(always)]
fn go_on<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f32; STRIP]],
    x: &[f32],
    stride: usize,
    weight: &[f32],
    count: usize,
) -> usize {
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * stride..][..count]);
    let sums: &mut [[f32; STRIP]; R] = sums.first_chunk_mut().expect("sums of these rows");
    chains(simd, sums, rows, weight, STRIP, count);
    R
}
