//! Rotary positions.

use burn::tensor::{Device, Tensor, TensorData};

use crate::device::cat::cat;
use crate::{Positions, RotaryScaling};

/// Rotation angles' cosine and sine for the tokens of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// `[rows, 1, seq, dim]`; one row where all batch rows stand at the same positions.
    pub cos: Tensor<4>,
    /// Same shape.
    pub sin: Tensor<4>,
}

impl Rotation {
    /// At each row's positions, all of one number, for the `frequencies` of the rotated pairs.
    pub fn new(frequencies: &[f64], positions: &[Vec<usize>], device: &Device) -> Self {
        let mut cos = Vec::new();
        let mut sin = Vec::new();
        for &position in positions.iter().flatten() {
            for half in [frequencies, frequencies] {
                for f in half {
                    let angle = position as f64 * f;
                    cos.push(angle.cos() as f32);
                    sin.push(angle.sin() as f32);
                }
            }
        }
        let seq = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), 1, seq, 2 * frequencies.len()];
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), device);
        Self { cos: tensor(cos), sin: tensor(sin) }
    }

    /// Rotates the leading dimensions of each head, pairing dimension `i` with `i + dim/2`.
    ///
    /// GPT-J pairs neighbours instead; its query and key weights are permuted when they are loaded, which leaves every
    /// query-key product as it was, so that one formula serves both.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let dim = self.cos.dims()[3];
        let head = x.dims()[3];
        let turned = x.clone().narrow(3, 0, dim);
        let swapped =
            cat(vec![turned.clone().narrow(3, dim / 2, dim / 2).neg(), turned.clone().narrow(3, 0, dim / 2)], 3);
        let turned = turned * self.cos.clone() + swapped * self.sin.clone();
        if dim == head { turned } else { cat(vec![turned, x.narrow(3, dim, head - dim)], 3) }
    }
}

/// Radians per position of each rotated pair; none for learned positions.
pub(crate) fn frequencies(positions: &Positions) -> Vec<f64> {
    let Positions::Rotary { dim, theta, scaling, .. } = positions else { return Vec::new() };
    (0..dim / 2)
        .map(|i| theta.powf(-2.0 * i as f64 / *dim as f64))
        .map(|f| match scaling {
            None => f,
            Some(RotaryScaling::Linear { factor }) => f / factor,
            Some(RotaryScaling::Llama3 { factor, low, high, original }) => {
                let wavelength = std::f64::consts::TAU / f;
                if wavelength < original / high {
                    f
                } else if wavelength > original / low {
                    f / factor
                } else {
                    let share = (original / wavelength - low) / (high - low);
                    (1.0 - share) * f / factor + share * f
                }
            }
        })
        .collect()
}
