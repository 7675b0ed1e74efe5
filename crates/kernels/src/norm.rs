//! Normalisation of rows.

use crate::dispatch::vectorised;

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation.
    Layer,
    /// Divide by the root mean square.
    Rms,
}

/// A normalisation with its weights: `(x − m)/s · weight + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// What `m` and `s` are.
    pub kind: NormKind,
    /// One for each number of a row.
    pub weight: &'a [f32],
    /// As many, where there are any.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance before its root is taken.
    pub epsilon: f64,
}

/// Partial sums: their number is fixed, so that a row's sum has one order on every CPU.
const PARTS: usize = 8;

#[inline(always)]
fn sum(values: impl Fn(usize) -> f64, count: usize) -> f64 {
    let mut each = [0f64; PARTS];
    let whole = count / PARTS * PARTS;
    for from in (0..whole).step_by(PARTS) {
        for (part, total) in each.iter_mut().enumerate() {
            *total += values(from + part);
        }
    }
    for (part, at) in (whole..count).enumerate() {
        each[part] += values(at);
    }
    ((each[0] + each[4]) + (each[2] + each[6])) + ((each[1] + each[5]) + (each[3] + each[7]))
}

impl Norm<'_> {
    /// Mean (0 where it is not subtracted) and the reciprocal of what is divided by.
    #[inline(always)]
    fn measures(&self, x: &[f32]) -> (f64, f64) {
        let n = x.len() as f64;
        let mean = match self.kind {
            NormKind::Layer => {
                sum(
                    #[inline(always)]
                    |i| f64::from(x[i]),
                    x.len(),
                ) / n
            }
            NormKind::Rms => 0.0,
        };
        let square = sum(
            #[inline(always)]
            |i| (f64::from(x[i]) - mean) * (f64::from(x[i]) - mean),
            x.len(),
        ) / n;
        (mean, 1.0 / (square + self.epsilon).sqrt())
    }

    /// Normalises one row into `out`.
    #[inline(always)]
    fn row(&self, x: &[f32], out: &mut [f32]) {
        let (mean, factor) = self.measures(x);
        let (weight, out) = (&self.weight[..x.len()], &mut out[..x.len()]);
        match self.bias {
            None => {
                for i in 0..x.len() {
                    out[i] = ((f64::from(x[i]) - mean) * factor) as f32 * weight[i];
                }
            }
            Some(bias) => {
                let bias = &bias[..x.len()];
                for i in 0..x.len() {
                    out[i] = (((f64::from(x[i]) - mean) * factor) as f32).mul_add(weight[i], bias[i]);
                }
            }
        }
    }

    /// Normalises rows `x` `[n, size]`; the size is that of the weight.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        vectorised(
            #[inline(always)]
            || {
                let size = self.weight.len();
                for (x, out) in x.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
                    self.row(x, out);
                }
            },
        );
        out
    }

    /// The way back: adds to `into` what gradients `slope` with respect to the result are with respect to `x`. All are `[n, size]`.
    ///
    /// With `x̂ = (x − m)/s` and `g = slope · weight`: `∂x = (g − ⟨g⟩ − x̂·⟨g·x̂⟩)/s`, means over the row; `⟨g⟩` only where the mean is subtracted.
    pub fn back(&self, x: &[f32], slope: &[f32], into: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                let size = self.weight.len();
                let rows = x.chunks_exact(size).zip(slope.chunks_exact(size)).zip(into.chunks_exact_mut(size));
                for ((x, slope), into) in rows {
                    self.row_back(x, slope, into, true);
                }
            },
        );
    }

    #[inline(always)]
    fn row_back(&self, x: &[f32], slope: &[f32], into: &mut [f32], add: bool) {
        let n = x.len();
        let (mean, factor) = self.measures(x);
        let (weight, slope, into) = (&self.weight[..n], &slope[..n], &mut into[..n]);
        let g = |i: usize| f64::from(slope[i]) * f64::from(weight[i]);
        let hat = |i: usize| (f64::from(x[i]) - mean) * factor;
        let straight = match self.kind {
            NormKind::Layer => sum(g, n) / n as f64,
            NormKind::Rms => 0.0,
        };
        let along = sum(
            #[inline(always)]
            |i| g(i) * hat(i),
            n,
        ) / n as f64;
        for (i, into) in into.iter_mut().enumerate() {
            let change = (factor * (g(i) - straight - hat(i) * along)) as f32;
            *into = if add { *into + change } else { change };
        }
    }
}

/// A normalisation of the heads of queries, or of keys, before they are rotated.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm<'a> {
    /// What is done with a piece. It has as many weights as a piece has numbers, or as all pieces of a row have together.
    pub norm: Norm<'a>,
    /// Numbers that are normalised together: those of a head, or of all heads.
    pub size: usize,
}

impl HeadNorm<'_> {
    /// The norm of the piece that begins so many numbers behind the first piece's start.
    #[inline(always)]
    fn at(&self, offset: usize) -> Norm<'_> {
        let from = offset % self.norm.weight.len();
        Norm {
            weight: &self.norm.weight[from..][..self.size],
            bias: self.norm.bias.map(|bias| &bias[from..][..self.size]),
            ..self.norm
        }
    }

    /// Normalises, in place, the pieces of each row of `x` `[n, width]`: `count` neighbouring numbers from column `from` on.
    pub(crate) fn forward(&self, x: &mut [f32], width: usize, from: usize, count: usize) {
        vectorised(
            #[inline(always)]
            || {
                let mut piece = vec![0.0; self.size];
                for row in x.chunks_exact_mut(width) {
                    for (i, part) in row[from..from + count].chunks_exact_mut(self.size).enumerate() {
                        piece.copy_from_slice(part);
                        self.at(i * self.size).row(&piece, part);
                    }
                }
            },
        );
    }

    /// The way back of [`HeadNorm::forward`], in place of `slope`; `x` is what went in, `[n, x_width]`, its pieces from column `x_from` on.
    pub(crate) fn back(
        &self,
        (x, x_width, x_from): (&[f32], usize, usize),
        (slope, width, from): (&mut [f32], usize, usize),
        count: usize,
    ) {
        vectorised(
            #[inline(always)]
            || {
                let mut piece = vec![0.0; self.size];
                for (x, row) in x.chunks_exact(x_width).zip(slope.chunks_exact_mut(width)) {
                    let x = x[x_from..x_from + count].chunks_exact(self.size);
                    let parts = row[from..from + count].chunks_exact_mut(self.size);
                    for (i, (x, part)) in x.zip(parts).enumerate() {
                        piece.copy_from_slice(part);
                        self.at(i * self.size).row_back(x, &piece, part, false);
                    }
                }
            },
        );
    }
}
