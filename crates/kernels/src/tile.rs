//! Small products that attention and products of few rows are made of. Every number is one chain of multiply-adds, whatever tile it is
//! computed in.

use pulp::Simd;

/// Columns of a tile: numbers that lie side by side in a strip.
pub(crate) const STRIP: usize = 16;

/// Whether a register holds a strip.
#[inline(always)]
pub(crate) fn holds_strip<S: Simd>() -> bool {
    S::F32_LANES == STRIP
}

/// Rows of a tile that attention takes at a time.
pub(crate) const ROWS: usize = 4;

/// Adds `Σⱼ rowsᵣⱼ · vⱼ` to each of `R` rows of sums, for `count` vectors `vⱼ` of 16 numbers, which begin `stride` numbers apart in `vectors`.
#[inline(always)]
pub(crate) fn chains<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f32; STRIP]; R],
    rows: [&[f32]; R],
    vectors: &[f32],
    stride: usize,
    count: usize,
) {
    // Sums must stay in registers, whose number the compiler has to see.
    match S::F32_LANES {
        16 => registers::<S, R, 1>(simd, sums, rows, vectors, stride, count),
        8 => registers::<S, R, 2>(simd, sums, rows, vectors, stride, count),
        4 => registers::<S, R, 4>(simd, sums, rows, vectors, stride, count),
        _ => {
            for j in 0..count {
                for r in 0..R {
                    for i in 0..STRIP {
                        sums[r][i] = rows[r][j].mul_add(vectors[j * stride + i], sums[r][i]);
                    }
                }
            }
        }
    }
}

/// As [`chains`], where a vector is `P` registers.
#[inline(always)]
fn registers<S: Simd, const R: usize, const P: usize>(
    simd: S,
    sums: &mut [[f32; STRIP]; R],
    rows: [&[f32]; R],
    vectors: &[f32],
    stride: usize,
    count: usize,
) {
    if count == 0 {
        return;
    }
    assert!(P * S::F32_LANES == STRIP);
    assert!(vectors.len() >= (count - 1) * stride + STRIP);
    assert!(rows.iter().all(|row| row.len() >= count));
    let starts: [*const f32; R] = std::array::from_fn(|r| rows[r].as_ptr());
    let start = vectors.as_ptr();
    let mut held: [[S::f32s; P]; R] = std::array::from_fn(|r| {
        let (registers, _) = S::as_simd_f32s(&sums[r]);
        std::array::from_fn(|p| registers[p])
    });
    for j in 0..count {
        // SAFETY: all of it lies within the slices, as was just asserted.
        let vector: [S::f32s; P] = std::array::from_fn(|p| unsafe {
            start.add(j * stride + p * S::F32_LANES).cast::<S::f32s>().read_unaligned()
        });
        for r in 0..R {
            // SAFETY: as above.
            let x = simd.splat_f32s(unsafe { *starts[r].add(j) });
            for p in 0..P {
                held[r][p] = simd.mul_add_f32s(x, vector[p], held[r][p]);
            }
        }
    }
    for r in 0..R {
        let (registers, _) = S::as_mut_simd_f32s(&mut sums[r]);
        registers.copy_from_slice(&held[r]);
    }
}

/// Scalar products of `R` rows `[size]` with the 16 columns of `strip` `[size, 16]`.
#[inline(always)]
pub(crate) fn with_strip<S: Simd, const R: usize>(
    simd: S,
    rows: [&[f32]; R],
    strip: &[f32],
    size: usize,
) -> [[f32; STRIP]; R] {
    let mut sums = [[0f32; STRIP]; R];
    chains(simd, &mut sums, rows, strip, STRIP, size);
    sums
}

/// Adds `Σⱼ weightsᵣⱼ · vⱼ` to each of `R` rows, for `count` vectors `vⱼ` that begin `stride` numbers apart in `vectors`.
#[inline(always)]
pub(crate) fn add_weighted<S: Simd, const R: usize>(
    simd: S,
    out: [&mut [f32]; R],
    weights: [&[f32]; R],
    vectors: &[f32],
    stride: usize,
    count: usize,
) {
    let size = out[0].len();
    let whole = size / STRIP * STRIP;
    for from in (0..whole).step_by(STRIP) {
        let mut sums = [[0f32; STRIP]; R];
        for r in 0..R {
            sums[r].copy_from_slice(&out[r][from..from + STRIP]);
        }
        chains(simd, &mut sums, weights, &vectors[from..], stride, count);
        for r in 0..R {
            out[r][from..from + STRIP].copy_from_slice(&sums[r]);
        }
    }
    for r in 0..R {
        for i in whole..size {
            let mut sum = out[r][i];
            for j in 0..count {
                sum = weights[r][j].mul_add(vectors[j * stride + i], sum);
            }
            out[r][i] = sum;
        }
    }
}
