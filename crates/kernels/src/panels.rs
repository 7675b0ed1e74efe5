//! Products in which a weight is copied together, panel by panel, just before all rows use it.
//!
//! A panel is 48 neighbouring outputs of one chain of inputs, `[inputs, 48]`: 96 KiB at most, which stay close to the CPU while row after
//! row is multiplied with them. The inner loop holds the sums of eight rows and 48 outputs in registers. How a weight lies matters to the
//! copying alone, and a weight that is used by many batches can be copied once, as [`Packed`].
//!
//! Where factors are rounded to bf16, panels and rows have cells in the place of numbers: see `crate::bf16`.
//!
//! `gemm` 0.19 is as fast where it chooses well. It reads a weight number by number where its outputs are not neighbours, which took 28 % of the
//! time of a target search: the way back through the head is such a product, and each of its chains is one more.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::amx::{TILE_ROWS, Tiles};
use crate::bf16::{BLOCK, Form, HALF, pair_chains};
use crate::copies::PANEL;
use crate::dispatch::{Shared, with_simd};
use crate::matrix::Matrix;
use crate::tile::{STRIP, chains, holds_strip};
use crate::{Compute, Threads};

/// Rows of which sums are held in registers.
const ROWS: usize = 8;

/// Numbers in a line of memory.
const LINE: usize = 16;

/// Rows that a thread takes at a time: copying a panel takes as long as multiplying a few rows with it.
const SHARE: usize = 256;

/// A weight, copied together for products: panel after panel of each chain.
#[derive(Clone, Debug)]
pub struct Packed {
    inputs: usize,
    outputs: usize,
    chain: usize,
    form: Form,
    /// Chain after chain, `[panels, cells of the chain, 48]` each; from `start` on, where a line of memory begins.
    values: Vec<f32>,
    start: usize,
}

impl Packed {
    /// Copies a weight, of which chains have `chain` inputs.
    pub(crate) fn new(weight: Matrix, chain: usize) -> Self {
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        let (panels, form) = (outputs.div_ceil(PANEL), Form::of(weight.compute));
        let mut values = vec![0.0; panels * PANEL * form.cells(inputs) + LINE];
        let start = values.as_ptr().align_offset(64).min(LINE);
        let mut rest = &mut values[start..];
        for from in (0..inputs).step_by(chain) {
            let part = weight.from(from, chain.min(inputs - from));
            for panel in 0..panels {
                let (place, behind) = rest.split_at_mut(form.cells(part.inputs()) * PANEL);
                form.pack(part, panel * PANEL, place);
                rest = behind;
            }
        }
        Self { inputs, outputs, chain, form, values, start }
    }

    /// Numbers of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs of a chain; the last may have fewer.
    pub(crate) fn chain(&self) -> usize {
        self.chain
    }

    /// Bytes of memory that a packed weight of this shape takes.
    pub fn bytes(inputs: usize, outputs: usize, compute: Compute) -> usize {
        size_of::<f32>() * (outputs.div_ceil(PANEL) * PANEL * Form::of(compute).cells(inputs) + LINE)
    }

    /// A panel of the chain that begins at an input.
    fn panel(&self, from: usize, number: usize) -> &[f32] {
        let count = self.form.cells(self.chain.min(self.inputs - from));
        let at = self.start + self.form.cells(from) * self.outputs.div_ceil(PANEL) * PANEL + number * count * PANEL;
        &self.values[at..][..count * PANEL]
    }
}

/// Where the weight of a product comes from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Plain(Matrix<'a>, Form),
    Packed(&'a Packed),
}

impl Source<'_> {
    /// How factors lie.
    pub fn form(self) -> Form {
        match self {
            Self::Plain(_, form) => form,
            Self::Packed(packed) => packed.form,
        }
    }
}

/// What a chain's sums are added to.
#[derive(Clone, Copy)]
pub(crate) enum Begin<'a> {
    /// Nothing: results were not written yet.
    Nothing,
    /// One number for each output; results were not written yet.
    Bias(&'a [f32]),
    /// The results so far.
    Sums,
}

thread_local! {
    /// Room for a panel.
    static ROOM: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Adds `x · weight` to what `begin` says, for the inputs of one chain: `count` of them from `from` on, which is where `x`, rows of `stride`
/// cells, begins. Every number of `out` `[rows, outputs]` is written.
pub(crate) fn by_panels(
    out: Shared,
    (x, stride, rows): (&[f32], usize, usize),
    source: Source,
    (from, count): (usize, usize),
    begin: Begin,
    threads: Threads,
) {
    let (form, outputs) = match source {
        Source::Plain(weight, form) => (form, weight.outputs()),
        Source::Packed(packed) => (packed.form, packed.outputs),
    };
    let inputs = count;
    let count = form.cells(inputs);
    assert!(rows == 0 || x.len() >= (rows - 1) * stride + count, "rows of as many numbers as the weight has inputs");
    let panels = outputs.div_ceil(PANEL);
    let one = |panel: usize, first: usize, rows: usize| {
        let width = PANEL.min(outputs - panel * PANEL);
        let x = &x[first * stride..];
        let begin = match begin {
            Begin::Bias(bias) => Begin::Bias(&bias[panel * PANEL..][..width]),
            other => other,
        };
        let out = Places { out, at: first * outputs + panel * PANEL, outputs, width, begin };
        match source {
            Source::Packed(packed) => {
                with_simd(Stripe { x, stride, rows, count, panel: packed.panel(from, panel), form, out });
            }
            Source::Plain(weight, _) => ROOM.with_borrow_mut(|room| {
                room.resize(count.max(512) * PANEL + LINE, 0.0);
                let start = room.as_ptr().align_offset(64).min(LINE);
                let place = &mut room[start..][..count * PANEL];
                form.pack(weight.from(from, inputs), panel * PANEL, place);
                with_simd(Stripe { x, stride, rows, count, panel: place, form, out });
            }),
        }
    };
    if threads.alone() {
        (0..panels).for_each(|panel| one(panel, 0, rows));
    } else {
        // Every number is a thread's own, whoever shares what.
        let shares = rows.div_ceil(SHARE).max(1);
        (0..panels * shares).into_par_iter().for_each(|part| {
            let (panel, first) = (part / shares, part % shares * SHARE);
            one(panel, first, SHARE.min(rows - first));
        });
    }
}

/// Where the sums of a panel go.
#[derive(Clone, Copy)]
struct Places<'a> {
    out: Shared,
    /// The first row's first output.
    at: usize,
    outputs: usize,
    width: usize,
    begin: Begin<'a>,
}

/// Some rows and one panel.
struct Stripe<'a> {
    x: &'a [f32],
    stride: usize,
    rows: usize,
    count: usize,
    panel: &'a [f32],
    form: Form,
    out: Places<'a>,
}

impl WithSimd for Stripe<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.form == Form::Tile {
            return self.by_tiles();
        }
        let mut row = 0;
        while row < self.rows {
            row += match self.rows - row {
                1 => self.some::<S, 1>(simd, row),
                2 => self.some::<S, 2>(simd, row),
                3 => self.some::<S, 3>(simd, row),
                4 => self.some::<S, 4>(simd, row),
                5 => self.some::<S, 5>(simd, row),
                6 => self.some::<S, 6>(simd, row),
                7 => self.some::<S, 7>(simd, row),
                _ => self.some::<S, ROWS>(simd, row),
            };
        }
    }
}

impl Stripe<'_> {
    /// Sixteen rows at a time, then what is left.
    #[inline(always)]
    fn by_tiles(&self) {
        let mut sums = [[0f32; PANEL]; TILE_ROWS];
        let whole = self.rows / TILE_ROWS * TILE_ROWS;
        for (from, until, step) in [(0, whole, TILE_ROWS), (whole, self.rows, self.rows - whole)] {
            if from == until {
                continue;
            }
            let tiles = Tiles::new(step);
            for row in (from..until).step_by(step) {
                let x = &self.x[row * self.stride..][..(step - 1) * self.stride + self.count];
                assert!(self.count.is_multiple_of(HALF) && self.panel.len() >= self.count * PANEL);
                // SAFETY: all of it lies within the slices, as was just asserted.
                unsafe { tiles.chains(&mut sums, (x.as_ptr(), self.stride), self.panel.as_ptr(), self.count / HALF) };
                self.put(&mut sums[..step], row);
            }
        }
    }

    /// Adds sums of the rows from one on to what they begin with, and writes them where they belong.
    #[inline(always)]
    fn put(&self, sums: &mut [[f32; PANEL]], row: usize) {
        let Places { out, at, outputs, width, begin } = self.out;
        for (r, sums) in sums.iter_mut().enumerate() {
            let at = at + (row + r) * outputs;
            let so_far: &[f32] = match begin {
                Begin::Nothing => &[],
                Begin::Bias(bias) => bias,
                // SAFETY: rows and outputs of this part alone, which an earlier chain has written.
                Begin::Sums => unsafe { out.part(at, width) },
            };
            for (sum, so_far) in sums.iter_mut().zip(so_far) {
                *sum += so_far;
            }
            // SAFETY: rows and outputs of this part alone.
            unsafe {
                let to = out.place(at, width);
                if width == PANEL {
                    to.cast::<[f32; PANEL]>().write_unaligned(*sums);
                } else {
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), to, width);
                }
            }
        }
    }

    #[inline(always)]
    fn some<S: Simd, const R: usize>(&self, simd: S, row: usize) -> usize {
        let x: [&[f32]; R] = std::array::from_fn(|r| &self.x[(row + r) * self.stride..][..self.count]);
        let Places { out, at, outputs, width, begin } = self.out;
        let mut sums = [[0f32; PANEL]; R];
        if self.form == Form::Pair {
            pair_chains(&mut sums, x, self.panel, self.count);
        } else if self.form == Form::Plain && holds_strip::<S>() && width == PANEL {
            let starts = x.map(<[f32]>::as_ptr);
            assert!(self.panel.len() >= self.count * PANEL);
            // SAFETY: all of it lies within the slices, as was just asserted.
            let held = unsafe { registers::<S, R>(simd, |r, j| starts[r].add(j), self.panel.as_ptr(), self.count) };
            for (r, held) in held.iter().enumerate() {
                // SAFETY: rows and outputs of this part alone.
                let to = unsafe { out.place(at + (row + r) * outputs, PANEL) }.cast::<S::f32s>();
                for (p, held) in held.iter().enumerate() {
                    // SAFETY: within the part, and of sums an earlier chain has written all.
                    unsafe {
                        let to = to.add(p);
                        let sum = match begin {
                            Begin::Nothing => *held,
                            Begin::Bias(bias) => {
                                let bias = bias.as_ptr().cast::<S::f32s>().add(p).read_unaligned();
                                simd.add_f32s(bias, *held)
                            }
                            Begin::Sums => simd.add_f32s(to.read_unaligned(), *held),
                        };
                        to.write_unaligned(sum);
                    }
                }
            }
            return R;
        } else if self.form == Form::Rounded {
            rounded_chains(simd, &mut sums, x, self.panel, self.count);
        } else {
            panel_chains(simd, &mut sums, x, self.panel, self.count);
        }
        self.put(&mut sums, row);
        R
    }
}

/// As [`panel_chains`], of rounded numbers: half a block at a time.
#[inline(always)]
fn rounded_chains<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f32; PANEL]; R],
    rows: [&[f32]; R],
    panel: &[f32],
    count: usize,
) {
    for from in (0..count).step_by(BLOCK) {
        // No closure: it would be compiled by itself, without the vector instructions.
        let mut halves = [[[0f32; PANEL]; R]; 2];
        for (number, sums) in halves.iter_mut().enumerate() {
            let from = from + number * HALF;
            if from < count {
                let rows = rows.map(|row| &row[from..]);
                panel_chains(simd, sums, rows, &panel[from * PANEL..], HALF.min(count - from));
            }
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            for (o, sum) in sums.iter_mut().enumerate() {
                *sum += halves[0][r][o] + halves[1][r][o];
            }
        }
    }
}

/// Chains of `R` rows and 48 outputs, `sumsᵣₒ = Σᵢ rowsᵣᵢ · panelᵢₒ`, begun at 0.
#[inline(always)]
fn panel_chains<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f32; PANEL]; R],
    rows: [&[f32]; R],
    panel: &[f32],
    count: usize,
) {
    assert!(panel.len() >= count * PANEL);
    assert!(rows.iter().all(|row| row.len() >= count));
    if holds_strip::<S>() {
        let starts: [*const f32; R] = std::array::from_fn(|r| rows[r].as_ptr());
        // SAFETY: all of it lies within the slices, as was just asserted.
        let held = unsafe { registers::<S, R>(simd, |r, j| starts[r].add(j), panel.as_ptr(), count) };
        keep::<S, R>(sums, &held);
        return;
    }
    // Of fewer numbers in a register: a strip at a time, and four rows.
    for strip in 0..PANEL / STRIP {
        let vectors = &panel[strip * STRIP..];
        let mut first = 0;
        while first < R {
            let some = (R - first).min(4);
            let mut tile = [[0f32; STRIP]; 4];
            // Rows beyond the last are the last one again.
            let of: [&[f32]; 4] = std::array::from_fn(|r| rows[first + r.min(some - 1)]);
            chains(simd, &mut tile, of, vectors, PANEL, count);
            for r in 0..some {
                sums[first + r][strip * STRIP..][..STRIP].copy_from_slice(&tile[r]);
            }
            first += some;
        }
    }
}

/// The same where rows lie turned, in a panel of their own: `sumsᵣₒ = Σᵢ turnedᵢᵣ · panelᵢₒ`, the `turnedᵢ` 48 numbers apart.
#[inline(always)]
pub(crate) fn turned_chains<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f32; PANEL]; R],
    turned: &[f32],
    panel: &[f32],
    count: usize,
) {
    assert!(panel.len() >= count * PANEL && (count == 0 || turned.len() >= (count - 1) * PANEL + R));
    if holds_strip::<S>() {
        let start = turned.as_ptr();
        // SAFETY: all of it lies within the slices, as was just asserted.
        let held = unsafe { registers::<S, R>(simd, |r, j| start.add(j * PANEL + r), panel.as_ptr(), count) };
        keep::<S, R>(sums, &held);
        return;
    }
    let rows: [Vec<f32>; R] = std::array::from_fn(|r| (0..count).map(|j| turned[j * PANEL + r]).collect());
    panel_chains(simd, sums, rows.each_ref().map(Vec::as_slice), panel, count);
}

/// Chains of which all sums are held in registers of 16 numbers; `at` has the place of a row's number.
///
/// # Safety
/// Places and the panel's `count` vectors of 48 numbers can be read.
#[inline(always)]
unsafe fn registers<S: Simd, const R: usize>(
    simd: S,
    at: impl Fn(usize, usize) -> *const f32,
    panel: *const f32,
    count: usize,
) -> [[S::f32s; 3]; R] {
    let mut held = [[simd.splat_f32s(0.0); 3]; R];
    for j in 0..count {
        // SAFETY: as the caller promises.
        let vector: [S::f32s; 3] =
            std::array::from_fn(|p| unsafe { panel.add(j * PANEL + p * STRIP).cast::<S::f32s>().read_unaligned() });
        for (r, held) in held.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            let x = simd.splat_f32s(unsafe { *at(r, j) });
            for (held, vector) in held.iter_mut().zip(vector) {
                *held = simd.mul_add_f32s(x, vector, *held);
            }
        }
    }
    held
}

/// Writes registers down.
#[inline(always)]
fn keep<S: Simd, const R: usize>(sums: &mut [[f32; PANEL]; R], held: &[[S::f32s; 3]; R]) {
    for (sums, held) in sums.iter_mut().zip(held) {
        let (registers, _) = S::as_mut_simd_f32s(sums);
        registers.copy_from_slice(held);
    }
}
