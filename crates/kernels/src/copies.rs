//! Copies of a weight's numbers as panels have them, whichever way the weight lies.

use crate::matrix::Matrix;
use crate::tile::STRIP;

/// Outputs in a panel.
pub(crate) const PANEL: usize = 3 * STRIP;

/// Copies the outputs from one on, `[inputs, 48]`. Those that the weight lacks are left as they are.
// By itself, so that a profile shows what it takes.
#[inline(never)]
pub(crate) fn pack(weight: Matrix, from: usize, place: &mut [f32]) {
    let (values, [input_stride, output_stride]) = weight.parts();
    let (count, width) = (weight.inputs(), PANEL.min(weight.outputs() - from));
    if output_stride == 1 {
        for (i, to) in place.chunks_exact_mut(PANEL).take(count).enumerate() {
            let line = &values[i * input_stride + from..][..width];
            match <&[f32; PANEL]>::try_from(line) {
                Ok(line) => to.copy_from_slice(line),
                Err(_) => to[..width].copy_from_slice(line),
            }
        }
        return;
    }
    assert_eq!(input_stride, 1, "either inputs or outputs are neighbours");
    // Eight outputs at a time, each read from its first input to its last.
    let mut output = 0;
    while output + EIGHT <= width {
        let rows = &values[(from + output) * output_stride..][..(EIGHT - 1) * output_stride + count];
        turn_eight(rows, output_stride, count, &mut place[output..]);
        output += EIGHT;
    }
    for output in output..width {
        let line = &values[(from + output) * output_stride..][..count];
        for (i, x) in line.iter().enumerate() {
            place[i * PANEL + output] = *x;
        }
    }
}

/// Outputs that are turned at a time.
pub(crate) const EIGHT: usize = 8;

/// Eight outputs' `count` numbers, which begin `stride` apart, become eight neighbours of each of `count` lines of a panel.
pub(crate) fn turn_eight(rows: &[f32], stride: usize, count: usize, place: &mut [f32]) {
    assert!(count > 0 && rows.len() >= (EIGHT - 1) * stride + count && place.len() >= (count - 1) * PANEL + EIGHT);
    let done = match () {
        #[cfg(target_arch = "x86_64")]
        () if std::arch::is_x86_feature_detected!("avx") => {
            // SAFETY: the CPU has these instructions, and all of it lies within the slices, as was just asserted.
            unsafe { turn_squares(rows, stride, count, place) }
        }
        () => 0,
    };
    for i in done..count {
        for output in 0..EIGHT {
            place[i * PANEL + output] = rows[output * stride + i];
        }
    }
}

/// As [`turn_eight`], eight by eight numbers at a time, in registers; how many of each output were turned. The compiler makes 64 single moves of
/// the plain loops.
///
/// # Safety
/// What [`turn_eight`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn turn_squares(rows: &[f32], stride: usize, count: usize, place: &mut [f32]) -> usize {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };
    let whole = count / EIGHT * EIGHT;
    for done in (0..whole).step_by(EIGHT) {
        // SAFETY: eight numbers of each of eight rows, which the caller says are there.
        let [a, b, c, d, e, f, g, h] = unsafe {
            let from = rows.as_ptr().add(done);
            [
                _mm256_loadu_ps(from),
                _mm256_loadu_ps(from.add(stride)),
                _mm256_loadu_ps(from.add(2 * stride)),
                _mm256_loadu_ps(from.add(3 * stride)),
                _mm256_loadu_ps(from.add(4 * stride)),
                _mm256_loadu_ps(from.add(5 * stride)),
                _mm256_loadu_ps(from.add(6 * stride)),
                _mm256_loadu_ps(from.add(7 * stride)),
            ]
        };
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        let (ef, gh) = (_mm256_unpacklo_ps(e, f), _mm256_unpacklo_ps(g, h));
        let (ef_high, gh_high) = (_mm256_unpackhi_ps(e, f), _mm256_unpackhi_ps(g, h));
        let first = [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xee>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
        ];
        let second = [
            _mm256_shuffle_ps::<0x44>(ef, gh),
            _mm256_shuffle_ps::<0xee>(ef, gh),
            _mm256_shuffle_ps::<0x44>(ef_high, gh_high),
            _mm256_shuffle_ps::<0xee>(ef_high, gh_high),
        ];
        for i in 0..4 {
            // SAFETY: eight numbers of each of eight lines, which the caller says are there.
            unsafe {
                let to = place.as_mut_ptr().add((done + i) * PANEL);
                _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(first[i], second[i]));
                _mm256_storeu_ps(to.add(4 * PANEL), _mm256_permute2f128_ps::<0x31>(first[i], second[i]));
            }
        }
    }
    whole
}
