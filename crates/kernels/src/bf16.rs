//! Factors of products that are rounded to bf16 before they are multiplied. Sums stay in f32.
//!
//! A number is rounded to the nearest of the 8 bits that bf16 keeps, ties to even; what is smaller than 2⁻¹²⁶ becomes 0. Products of two
//! such numbers are exact in f32, so that the order of additions is all that CPUs must agree on. It is this. A chain of inputs is cut into
//! blocks of 32. The first sixteen of a block are added one after another, beginning at 0, the two of each pair in turned order: 1, 0, 3, 2
//! and so on to 14. So are the last sixteen. Both sums are added, and what comes of it is added to the chain's. Every addition rounds to the
//! nearest f32.
//!
//! Three kinds of instructions compute that:
//!
//! * `tdpbf16ps` (AMX) multiplies tiles of 16 rows and 16 outputs with a block of inputs: see [`crate::amx`];
//! * `vdpbf16ps` (AVX-512 BF16) adds both products of a pair of neighbouring inputs to a sum, that of the second one first;
//! * multiply-adds in f32 of rounded numbers, of which the two of a pair have changed places, do on any CPU.
//!
//! Tests compare all that a CPU has, to the last bit. They differ in two ways. The instructions for bf16 take sums and products below 2⁻¹²⁶ as
//! 0, whatever the program has asked of its floating-point unit, and other code does not. And what Intel and AMD say of them leaves them free
//! to keep other bits of what is no number.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::amx::has_tiles;
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
    /// An input of a block's first half in the lower half of the bits, and the one of its second half that is 16 further on in the upper. The
    /// two of a pair of neighbours have changed places, and blocks are whole: what is missing is 0.
    Tile,
    /// A number in f32, rounded. The two of a pair have changed places.
    Rounded,
}

impl Form {
    /// What this CPU is fastest with.
    pub fn of(compute: Compute) -> Self {
        match compute {
            Compute::F32 => Self::Plain,
            Compute::Bf16 if has_tiles() => Self::Tile,
            Compute::Bf16 if has_pairs() => Self::Pair,
            Compute::Bf16 => Self::Rounded,
        }
    }

    /// Those of rounded factors.
    #[cfg(test)]
    pub fn all() -> [Self; 3] {
        [Self::Pair, Self::Tile, Self::Rounded]
    }

    /// Whether this CPU computes with it.
    #[cfg(test)]
    pub fn is_here(self) -> bool {
        match self {
            Self::Plain | Self::Rounded => true,
            Self::Pair => has_pairs(),
            Self::Tile => has_tiles(),
        }
    }

    /// Cells that so many inputs take.
    pub fn cells(self, inputs: usize) -> usize {
        match self {
            Self::Plain => inputs,
            Self::Pair => inputs.div_ceil(2),
            Self::Tile => inputs.div_ceil(BLOCK) * HALF,
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
                    Self::Pair | Self::Tile => self.in_cells(x, to),
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
            Self::Pair | Self::Tile => self.pack_cells(weight, from, place),
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

/// Inputs that a panel has at most where a cell holds two.
pub(crate) const MOST: usize = 1024;

/// Inputs of a block.
pub(crate) const BLOCK: usize = 32;

/// Inputs of half a block: so many are added one after another.
pub(crate) const HALF: usize = BLOCK / 2;

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
        __m512, __m512bh, __m512i, __mmask16, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    };
    use std::mem::transmute;

    use crate::bf16::{BLOCK, HALF};
    use crate::copies::PANEL;
    use crate::tile::STRIP;

    /// The first `count` of 16 numbers.
    fn mask(count: usize) -> __mmask16 {
        if count >= STRIP { __mmask16::MAX } else { (1 << count) - 1 }
    }

    /// Turns numbers into pairs: as many cells as half of them, rounded up.
    ///
    /// # Safety
    /// [`crate::compute::has_pairs`]; `to` has room for them.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn pairs(x: &[f32], to: *mut f32) {
        for (i, some) in x.chunks(BLOCK).enumerate() {
            // SAFETY: as the caller promises.
            unsafe {
                let cells = transmute::<__m512bh, __m512i>(block(some));
                _mm512_mask_storeu_epi32(to.add(i * HALF).cast(), mask(some.len().div_ceil(2)), cells);
            }
        }
    }

    /// Turns numbers into cells of tiles: sixteen for each block.
    ///
    /// # Safety
    /// As [`pairs`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn tiles(x: &[f32], to: *mut f32) {
        // SAFETY: as the caller promises; and there are 32 words of the order.
        unsafe {
            let order = _mm512_loadu_si512(TURNED.as_ptr().cast());
            for (i, some) in x.chunks(BLOCK).enumerate() {
                let cells = _mm512_permutexvar_epi16(order, transmute::<__m512bh, __m512i>(block(some)));
                _mm512_storeu_si512(to.add(i * HALF).cast(), cells);
            }
        }
    }

    /// Up to 32 numbers in bf16, one behind the other. What is missing is 0.
    ///
    /// # Safety
    /// [`crate::compute::has_pairs`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn block(x: &[f32]) -> __m512bh {
        let second = x.get(HALF..).unwrap_or_default();
        // SAFETY: what is beyond the last number is not read.
        unsafe {
            let first = _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr());
            _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(mask(second.len()), second.as_ptr()), first)
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

    /// Which words of a block's numbers make cells of tiles.
    static TURNED: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = (i as u16) ^ 1;
            order[2 * i + 1] = ((i as u16) ^ 1) + 16;
            i += 1;
        }
        order
    };

    /// Cells of 16 neighbouring outputs and two inputs, of which any may be missing. Of fewer outputs, the others are 0.
    ///
    /// # Safety
    /// [`crate::compute::has_pairs`]; `count` numbers can be read of both.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn zipped(inputs: [Option<*const f32>; 2], count: usize) -> __m512bh {
        let there = mask(count);
        // SAFETY: as the caller promises; and there are 32 words of the order.
        unsafe {
            // No closures here and below: they would be calls in the inner loop.
            let first = match inputs[0] {
                Some(input) => _mm512_maskz_loadu_ps(there, input),
                None => _mm512_setzero_ps(),
            };
            let second = match inputs[1] {
                Some(input) => _mm512_maskz_loadu_ps(there, input),
                None => _mm512_setzero_ps(),
            };
            let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            let order = _mm512_loadu_si512(ZIP.as_ptr().cast());
            transmute::<__m512i, __m512bh>(_mm512_permutexvar_epi16(order, both))
        }
    }

    /// Copies `width` outputs, which are neighbours, of `inputs` inputs that lie `stride` apart, to `place` `[cells, 48]`; `of` says which two
    /// inputs a cell holds.
    ///
    /// # Safety
    /// [`crate::compute::has_pairs`]; all of it lies within what `weight` and `place` point to.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn pack_lines(
        (weight, stride): (*const f32, usize),
        (inputs, width): (usize, usize),
        (place, cells): (*mut f32, usize),
        of: impl Fn(usize) -> [usize; 2],
    ) {
        for cell in 0..cells {
            for strip in 0..width.div_ceil(STRIP) {
                // SAFETY: as the caller promises.
                unsafe {
                    let ([first, second], from) = (of(cell), weight.wrapping_add(strip * STRIP));
                    let first = if first < inputs { Some(from.wrapping_add(first * stride)) } else { None };
                    let second = if second < inputs { Some(from.wrapping_add(second * stride)) } else { None };
                    let made = zipped([first, second], width - strip * STRIP);
                    place.add(cell * PANEL + strip * STRIP).cast::<__m512bh>().write_unaligned(made);
                }
            }
        }
    }

    /// The sums of `R` rows of `count` pairs with a panel's 48 outputs, begun at 0.
    ///
    /// # Safety
    /// [`crate::compute::has_pairs`]; `count` cells can be read of every row, and 48 times as many of the panel.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn chains<const R: usize>(
        sums: &mut [[f32; PANEL]; R],
        rows: [*const f32; R],
        panel: *const f32,
        count: usize,
    ) {
        const CELLS: usize = HALF / 2;
        for from in (0..count).step_by(2 * CELLS) {
            // SAFETY: as the caller promises; and sums are three strips of 16 numbers.
            unsafe {
                let mut held = [[_mm512_setzero_ps(); 3]; R];
                // So that the compiler sees how many there are, as a rule.
                if from + CELLS <= count {
                    in_a_row(&mut held, rows, panel, from, CELLS);
                } else {
                    in_a_row(&mut held, rows, panel, from, count - from);
                }
                let first = held;
                held = [[_mm512_setzero_ps(); 3]; R];
                if from + 2 * CELLS <= count {
                    in_a_row(&mut held, rows, panel, from + CELLS, CELLS);
                } else if from + CELLS < count {
                    in_a_row(&mut held, rows, panel, from + CELLS, count - from - CELLS);
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (p, to) in sums.chunks_exact_mut(STRIP).enumerate() {
                        let both = _mm512_add_ps(first[r][p], held[r][p]);
                        _mm512_storeu_ps(to.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(to.as_ptr()), both));
                    }
                }
            }
        }
    }

    /// Adds the products of `count` pairs from one on, one after another.
    ///
    /// # Safety
    /// As [`chains`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn in_a_row<const R: usize>(
        held: &mut [[__m512; 3]; R],
        rows: [*const f32; R],
        panel: *const f32,
        from: usize,
        count: usize,
    ) {
        for j in from..from + count {
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
    }
}

#[cfg(not(target_arch = "x86_64"))]
const NONE: &str = "two numbers share a cell where a CPU multiplies them so";

impl Form {
    /// Numbers as cells that hold two; missing ones are 0.
    fn in_cells(self, x: &[f32], to: &mut [f32]) {
        assert!(has_pairs() && to.len() >= self.cells(x.len()), "a cell for each two");
        // SAFETY: as was just asserted.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            if self == Self::Tile {
                native::tiles(x, to.as_mut_ptr());
            } else {
                native::pairs(x, to.as_mut_ptr());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{NONE}");
    }

    /// As [`Form::pack`], where a cell holds two numbers.
    // By itself, so that a profile shows what it takes.
    #[inline(never)]
    fn pack_cells(self, weight: Matrix, from: usize, place: &mut [f32]) {
        let (values, [input_stride, output_stride]) = weight.parts();
        let (inputs, width) = (weight.inputs(), PANEL.min(weight.outputs() - from));
        let cells = self.cells(inputs);
        assert!(has_pairs() && inputs <= MOST && place.len() >= cells * PANEL, "a panel of such cells");
        if output_stride == 1 {
            assert!(values.len() >= (inputs - 1) * input_stride + from + width, "outputs that are there");
            // SAFETY: as was just asserted.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                let weight = (values.as_ptr().add(from), input_stride);
                let place = (place.as_mut_ptr(), cells);
                if self == Self::Tile {
                    native::pack_lines(weight, (inputs, width), place, |cell| {
                        let first = cell / HALF * BLOCK + ((cell % HALF) ^ 1);
                        [first, first + HALF]
                    });
                } else {
                    native::pack_lines(weight, (inputs, width), place, |cell| [2 * cell, 2 * cell + 1]);
                }
            }
            return;
        }
        assert_eq!(input_stride, 1, "either inputs or outputs are neighbours");
        // Eight outputs at a time become lines of cells, and those are turned.
        let mut lines = [0f32; EIGHT * MOST / 2];
        for first in (0..width).step_by(EIGHT) {
            let count = EIGHT.min(width - first);
            for output in 0..count {
                let line = &values[(from + first + output) * output_stride..][..inputs];
                self.in_cells(line, &mut lines[output * cells..][..cells]);
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
    unreachable!("{NONE}: {} sums", sums.len());
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
            Form::Pair.in_cells(&x, &mut made);
            for (pair, cell) in cases.chunks(2).zip(made) {
                let second = pair.get(1).map_or(0, |(_, right)| right.to_bits());
                assert_eq!(cell.to_bits(), second | pair[0].1.to_bits() >> 16, "{pair:?}");
            }
            let mut made = vec![f32::NAN; HALF];
            Form::Tile.in_cells(&x, &mut made);
            for (i, cell) in made.iter().enumerate() {
                let right = cases.get(i ^ 1).map_or(0, |(_, right)| right.to_bits() >> 16);
                assert_eq!(cell.to_bits(), right, "{i}");
            }
        }
    }
}
