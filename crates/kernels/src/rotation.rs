//! Rotary positions.

use crate::dispatch::vectorised;

/// Cosine and sine of the angles at each token of a batch, `[tokens, pairs]`.
#[derive(Clone, Debug)]
pub struct Rotation {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// At these positions, with these frequencies of the pairs in radians per position.
    pub fn new(frequencies: &[f64], positions: impl IntoIterator<Item = usize>) -> Self {
        Self::scaled(frequencies, 1.0, positions)
    }

    /// As [`Rotation::new`], where what is rotated is also multiplied with `factor`.
    pub fn scaled(frequencies: &[f64], factor: f64, positions: impl IntoIterator<Item = usize>) -> Self {
        let angles = positions.into_iter().flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let (cos, sin) = angles.map(|angle| ((angle.cos() * factor) as f32, (angle.sin() * factor) as f32)).unzip();
        Self { pairs: frequencies.len(), cos, sin }
    }

    /// The rotation at some of the tokens.
    #[must_use]
    pub fn keep(&self, tokens: impl Iterator<Item = usize> + Clone) -> Self {
        let part = |of: &[f32]| {
            tokens.clone().flat_map(|token| of[token * self.pairs..][..self.pairs].iter().copied()).collect()
        };
        Self { pairs: self.pairs, cos: part(&self.cos), sin: part(&self.sin) }
    }

    /// Rotates, in place, the first `count` pieces of size `dim` of each row of `x` `[tokens, width]`: the leading `2·pairs` numbers of each
    /// piece, where number `i` goes with number `i + pairs`.
    pub fn forward(&self, x: &mut [f32], width: usize, dim: usize, count: usize) {
        self.turn(x, width, dim, count, 1.0);
    }

    /// The way back of [`Rotation::forward`]: the same by the opposite angles, with the same factor.
    pub fn back(&self, slope: &mut [f32], width: usize, dim: usize, count: usize) {
        self.turn(slope, width, dim, count, -1.0);
    }

    fn turn(&self, x: &mut [f32], width: usize, dim: usize, count: usize, sign: f32) {
        let pairs = self.pairs;
        if pairs == 0 {
            return;
        }
        vectorised(
            #[inline(always)]
            || {
                let angles = self.cos.chunks_exact(pairs).zip(self.sin.chunks_exact(pairs));
                for (row, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
                    for piece in row[..count * dim].chunks_exact_mut(dim) {
                        let (first, second) = piece[..2 * pairs].split_at_mut(pairs);
                        for i in 0..pairs {
                            let (a, b, s) = (first[i], second[i], sign * sin[i]);
                            first[i] = a.mul_add(cos[i], -(b * s));
                            second[i] = b.mul_add(cos[i], a * s);
                        }
                    }
                }
            },
        );
    }
}
