//! Factors of products that are rounded to bf16 before they are multiplied. Sums stay in f32.
//!
//! A number is rounded to the nearest of the 8 bits that bf16 keeps, ties to even; what is smaller than 2⁻¹²⁶ becomes 0. Two neighbouring
//! inputs are a pair, and `vdpbf16ps` (AVX-512 BF16) adds both of their products to a sum: that of the second input, then that of the
//! first, each with one rounding to the nearest f32. Products of two numbers in bf16 are exact in f32. So on a CPU without that instruction
//! the same sums come from multiply-adds in f32 of rounded numbers, of which the two of a pair change places. Tests compare both to the last bit.
//!
//! They differ in two ways. `vdpbf16ps` takes sums and products below 2⁻¹²⁶ as 0, whatever the program has asked of its floating-point unit,
//! and other code does not. And what Intel and AMD say of the instruction leaves them free to keep other bits of what is no number.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::compute::{Compute, has_pairs};
use crate::copies::{EIGHT, PANEL, pack, turn_eight};
use crate::{Matrix, Threads};

/// How factors lie in rows and panels, of which a cell has 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A number in f32.
    Plain,
    /// A pair of neighbouring inputs in bf16, the first in the lower half. These bits are moved as if they were a number, and never
    /// computed with.
    Pair,
    /// A number in f32, rounded. The two of a pair have changed places.
    Rounded,
}

impl Form {
    /// What this CPU is fastest with.
    pub fn of(compute: Compute) -> Self {
        match compute {
            Compute::F32 => Self::Plain,
            Compute::Bf16 if has_pairs() => Self::Pair,
            Compute::Bf16 => Self::Rounded,
        }
    }

    /// Cells that so many inputs take.
    pub fn cells(self, inputs: usize) -> usize {
        match self {
            Self::Plain => inputs,
            Self::Pair => inputs.div_ceil(2),
            Self::Rounded => inputs.next_multiple_of(2),
        }
    }

    /// Rows `[rows, inputs]` as cells, `[rows, cells]`.
    pub fn rows(self, x: &[f32], inputs: usize, threads: Threads) -> Cow<'_, [f32]> {
        if self == Self::Plain {
            return Cow::Borrowed(x);
        }
        let cells = self.cells(inputs);
        let mut made = vec![0.0; x.len() / inputs * cells];
        let some = |(x, to): (&[f32], &mut [f32])| {
            for (x, to) in x.chunks_exact(inputs).zip(to.chunks_exact_mut(cells)) {
                match self {
                    Self::Pair => pairs(x, to),
                    _ => x.iter().enumerate().for_each(|(i, x)| to[i ^ 1] = rounded(*x)),
                }
            }
        };
        if threads.alone() {
            some((x, &mut made));
        } else {
            x.par_chunks(inputs * SHARE).zip(made.par_chunks_mut(cells * SHARE)).for_each(some);
        }
        Cow::Owned(made)
    }

    /// Copies the outputs from one on to `place` `[cells, 48]`. What is there of outputs that the weight lacks says nothing.
    pub fn pack(self, weight: Matrix, from: usize, place: &mut [f32]) {
        match self {
            Self::Plain => pack(weight, from, place),
            Self::Pair => pack_pairs(weight, from, place),
            Self::Rounded => {
                pack(weight, from, place);
                let inputs = weight.inputs();
                if inputs % 2 == 1 {
                    place[inputs * PANEL..][..PANEL].fill(0.0);
                }
                for pair in place[..self.cells(inputs) * PANEL].chunks_exact_mut(2 * PANEL) {
                    let (first, second) = pair.split_at_mut(PANEL);
                    first.iter_mut().zip(second).for_each(|(a, b)| (*a, *b) = (rounded(*b), rounded(*a)));
                }
            }
        }
    }
}

/// Rows that a thread rounds at a time.
const SHARE: usize = 32;

/// Inputs that a panel of pairs has at most.
pub(crate) const MOST: usize = 1024;

/// The nearest number in bf16, as f32.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    let kept = match bits & 0x7f80_0000 {
        0 => bits & 0x8000_0000,
        0x7f80_0000 if x.is_nan() => bits & 0xffff_0000 | 0x0040_0000,
        // Half of what the last kept bit says, or just less than that where it is 0: ties go to even.
        _ => (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000,
    };
    f32::from_bits(kept)
}

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::{
        __m512bh, __m512i, __mmask16, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    };
    use std::mem::transmute;

    use crate::copies::PANEL;
    use crate::tile::STRIP;

    /// The first `count` of 16 numbers.
    fn mask(count: usize) -> __mmask16 {
        if count >= STRIP { __mmask16::MAX } else { (1 << count) - 1 }
    }

    /// Turns numbers into pairs: as many cells as half of them, rounded up.
    ///
    /// # Safety
    /// [`has_pairs`]; `to` has room for them.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn pairs(x: &[f32], to: *mut f32) {
        let whole = x.len() / (2 * STRIP);
        for i in 0..whole {
            // SAFETY: 32 numbers, and 16 cells.
            unsafe {
                let from = x.as_ptr().add(i * 2 * STRIP);
                let pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(STRIP)), _mm512_loadu_ps(from));
                _mm512_storeu_si512(to.add(i * STRIP).cast(), transmute::<__m512bh, __m512i>(pairs));
            }
        }
        let left = x.len() - whole * 2 * STRIP;
        if left > 0 {
            // SAFETY: what is beyond the last number is neither read nor written.
            unsafe {
                let from = x.as_ptr().add(whole * 2 * STRIP);
                let first = _mm512_maskz_loadu_ps(mask(left), from);
                let second = _mm512_maskz_loadu_ps(mask(left.saturating_sub(STRIP)), from.wrapping_add(STRIP));
                let pairs = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                _mm512_mask_storeu_epi32(to.add(whole * STRIP).cast(), mask(left.div_ceil(2)), pairs);
            }
        }
    }

    /// Which words of two strips one behind the other make pairs of their numbers.
    static ZIP: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = i as u16 + 16;
            i += 1;
        }
        order
    };

    /// Pairs of 16 neighbouring outputs of two inputs, the second of which may be missing. Of fewer outputs, the others are 0.
    ///
    /// # Safety
    /// [`has_pairs`]; `count` numbers can be read of both.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn zipped(first: *const f32, second: Option<*const f32>, count: usize) -> __m512bh {
        let there = mask(count);
        // SAFETY: as the caller promises; and there are 32 words of the order.
        unsafe {
            let first = _mm512_maskz_loadu_ps(there, first);
            let second = match second {
                Some(second) => _mm512_maskz_loadu_ps(there, second),
                None => _mm512_setzero_ps(),
            };
            let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            let order = _mm512_loadu_si512(ZIP.as_ptr().cast());
            transmute::<__m512i, __m512bh>(_mm512_permutexvar_epi16(order, both))
        }
    }

    /// Copies `width` outputs, which are neighbours, of `inputs` inputs that lie `stride` apart, to `place` `[pairs, 48]`.
    ///
    /// # Safety
    /// [`has_pairs`]; all of it lies within what `weight` and `place` point to.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn pack_lines(weight: *const f32, stride: usize, inputs: usize, width: usize, place: *mut f32) {
        for pair in 0..inputs.div_ceil(2) {
            for strip in 0..width.div_ceil(STRIP) {
                // SAFETY: as the caller promises.
                unsafe {
                    let first = weight.add(2 * pair * stride + strip * STRIP);
                    let second = (2 * pair + 1 < inputs).then(|| first.wrapping_add(stride));
                    let cells = zipped(first, second, width - strip * STRIP);
                    place.add(pair * PANEL + strip * STRIP).cast::<__m512bh>().write_unaligned(cells);
                }
            }
        }
    }

    /// The sums of `R` rows of `count` pairs with a panel's 48 outputs, begun at 0.
    ///
    /// # Safety
    /// [`has_pairs`]; `count` cells can be read of every row, and 48 times as many of the panel.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn chains<const R: usize>(
        sums: &mut [[f32; PANEL]; R],
        rows: [*const f32; R],
        panel: *const f32,
        count: usize,
    ) {
        let mut held = [[_mm512_setzero_ps(); 3]; R];
        for j in 0..count {
            // SAFETY: as the caller promises.
            let vectors = [0, 1, 2].map(|p| unsafe {
                let cells = _mm512_loadu_si512(panel.add(j * PANEL + p * STRIP).cast());
                transmute::<__m512i, __m512bh>(cells)
            });
            for (held, row) in held.iter_mut().zip(rows) {
                // SAFETY: as the caller promises; and 512 bits are 512 bits.
                let x = unsafe {
                    transmute::<__m512i, __m512bh>(_mm512_set1_epi32(row.add(j).cast::<i32>().read_unaligned()))
                };
                for (held, cells) in held.iter_mut().zip(vectors) {
                    *held = _mm512_dpbf16_ps(*held, x, cells);
                }
            }
        }
        for (sums, held) in sums.iter_mut().zip(held) {
            for (to, held) in sums.chunks_exact_mut(STRIP).zip(held) {
                // SAFETY: 16 numbers.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), held) };
            }
        }
    }

    /// The sums of a row's cells with neighbouring outputs of a weight, whose `inputs` lie `stride` apart: those of as many outputs as there
    /// are sums, which begin at 0. Those of up to four rows, `rows`, of which each has sums.
    ///
    /// # Safety
    /// [`has_pairs`]; rows have as many cells as `inputs` have pairs, and `width` outputs can be read of every input. Sums have a multiple
    /// of 16 numbers, and no fewer than `width`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn columns(
        sums: &mut [&mut [f32]],
        rows: &[*const f32],
        weight: *const f32,
        stride: usize,
        inputs: usize,
        width: usize,
    ) {
        for pair in 0..inputs.div_ceil(2) {
            for strip in 0..width.div_ceil(STRIP) {
                // SAFETY: as the caller promises.
                unsafe {
                    let first = weight.add(2 * pair * stride + strip * STRIP);
                    let second = (2 * pair + 1 < inputs).then(|| first.wrapping_add(stride));
                    let cells = zipped(first, second, width - strip * STRIP);
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let x = _mm512_set1_epi32(row.add(pair).cast::<i32>().read_unaligned());
                        let at = sums.as_mut_ptr().add(strip * STRIP);
                        let sum = _mm512_dpbf16_ps(_mm512_loadu_ps(at), transmute::<__m512i, __m512bh>(x), cells);
                        _mm512_storeu_ps(at, sum);
                    }
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
const NONE: &str = "pairs are made where a CPU multiplies them";

/// Numbers as pairs; the second of the last one may be missing.
fn pairs(x: &[f32], to: &mut [f32]) {
    assert!(has_pairs() && to.len() >= x.len().div_ceil(2), "a cell for each pair");
    // SAFETY: as was just asserted.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        native::pairs(x, to.as_mut_ptr());
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{NONE}");
}

/// As [`Form::pack`].
// By itself, so that a profile shows what it takes.
#[inline(never)]
fn pack_pairs(weight: Matrix, from: usize, place: &mut [f32]) {
    let (values, [input_stride, output_stride]) = weight.parts();
    let (inputs, width) = (weight.inputs(), PANEL.min(weight.outputs() - from));
    let cells = inputs.div_ceil(2);
    assert!(has_pairs() && inputs <= MOST && place.len() >= cells * PANEL, "a panel of pairs");
    if output_stride == 1 {
        assert!(values.len() >= (inputs - 1) * input_stride + from + width, "outputs that are there");
        // SAFETY: as was just asserted.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            native::pack_lines(values.as_ptr().add(from), input_stride, inputs, width, place.as_mut_ptr());
        }
        return;
    }
    assert_eq!(input_stride, 1, "either inputs or outputs are neighbours");
    // Eight outputs at a time become lines of pairs, and those are turned.
    let mut lines = [0f32; EIGHT * MOST / 2];
    for first in (0..width).step_by(EIGHT) {
        let count = EIGHT.min(width - first);
        for output in 0..count {
            let line = &values[(from + first + output) * output_stride..][..inputs];
            pairs(line, &mut lines[output * cells..][..cells]);
        }
        if count == EIGHT {
            turn_eight(&lines[..EIGHT * cells], cells, cells, &mut place[first..]);
        } else {
            for output in 0..count {
                for cell in 0..cells {
                    place[cell * PANEL + first + output] = lines[output * cells + cell];
                }
            }
        }
    }
}

/// Sums of `R` rows of `count` pairs with a panel's 48 outputs, begun at 0.
#[inline(always)]
pub(crate) fn pair_chains<const R: usize>(
    sums: &mut [[f32; PANEL]; R],
    rows: [&[f32]; R],
    panel: &[f32],
    count: usize,
) {
    assert!(panel.len() >= count * PANEL && rows.iter().all(|row| row.len() >= count));
    debug_assert!(has_pairs(), "pairs are made where a CPU multiplies them");
    // SAFETY: as was just asserted; pairs are made where there is an instruction for them.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        native::chains(sums, rows.map(<[f32]>::as_ptr), panel.as_ptr(), count);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{NONE}");
}

/// Sums of a few rows of pairs with the outputs of a weight, which are neighbours, from `from` on: as many as each of `sums` has numbers. They begin
/// at 0. The weight is read once, in the order in which it lies.
pub(crate) fn pair_columns(sums: &mut [&mut [f32]], rows: &[&[f32]], weight: Matrix, from: usize, width: usize) {
    let (values, [stride, output_stride]) = weight.parts();
    let inputs = weight.inputs();
    assert!(has_pairs() && output_stride == 1 && sums.len() == rows.len());
    assert!(rows.iter().all(|row| row.len() >= inputs.div_ceil(2)));
    assert!(sums.iter().all(|sums| sums.len() >= width.next_multiple_of(crate::tile::STRIP)));
    assert!(values.len() >= (inputs - 1) * stride + from + width);
    let rows: Vec<*const f32> = rows.iter().map(|row| row.as_ptr()).collect();
    // SAFETY: as was just asserted.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        native::columns(sums, &rows, values.as_ptr().add(from), stride, inputs, width);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{NONE}, not for {} rows", rows.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers at which rounding decides, and what is no number.
    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        let cases = [
            (1.0, 1.0),
            (-1.0, -1.0),
            // Ties, to even; and what is next to them.
            (f32::from_bits(0x3f80_8000), 1.0),
            (f32::from_bits(0x3f80_8001), f32::from_bits(0x3f81_0000)),
            (f32::from_bits(0x3f81_8000), f32::from_bits(0x3f82_0000)),
            (f32::from_bits(0x3f81_7fff), f32::from_bits(0x3f81_0000)),
            (f32::MAX, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
            (f32::from_bits(0x007f_ffff), 0.0),
            (f32::from_bits(0x8000_0001), -0.0),
        ];
        let x: Vec<f32> = cases.iter().map(|(x, _)| *x).collect();
        for (x, right) in cases {
            assert_eq!(rounded(x).to_bits(), right.to_bits(), "{x}");
        }
        assert!(rounded(f32::NAN).is_nan() && rounded(f32::from_bits(0xff80_0001)).is_nan());
        if has_pairs() {
            let mut made = vec![0.0; x.len().div_ceil(2)];
            pairs(&x, &mut made);
            for (pair, cell) in cases.chunks(2).zip(made) {
                let second = pair.get(1).map_or(0, |(_, right)| right.to_bits());
                assert_eq!(cell.to_bits(), second | pair[0].1.to_bits() >> 16, "{pair:?}");
            }
        }
    }
}
