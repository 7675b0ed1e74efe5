//! Positions that enter attention.

use burn::tensor::{Device, Tensor, TensorData};

use crate::device::cat::cat;
use crate::{DecoderConfig, LayerRotary, Positions, Rotary, RotaryScaling};

/// Rotation angles' cosine and sine for the tokens of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// `[rows, 1, seq, dim]`; one row where all batch rows stand at the same positions.
    pub cos: Tensor<4>,
    /// Same shape.
    pub sin: Tensor<4>,
}

impl Rotation {
    /// At each row's positions, all of one number.
    pub fn new(turns: &Turns, positions: &[Vec<usize>], device: &Device) -> Self {
        let Turns { frequencies, factor } = turns;
        let mut cos = Vec::new();
        let mut sin = Vec::new();
        for &position in positions.iter().flatten() {
            for half in [frequencies, frequencies] {
                for f in half {
                    let angle = position as f64 * f;
                    cos.push((angle.cos() * factor) as f32);
                    sin.push((angle.sin() * factor) as f32);
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

/// What a rotation is made of.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    /// Radians per position of each rotated pair.
    pub frequencies: Vec<f64>,
    /// What rotated numbers are multiplied with.
    pub factor: f64,
}

/// A model's rotations, or what is made of each: the one of its positions, and the second one.
pub(crate) type Both<T> = [Option<T>; 2];

/// Which of [`Both`] a layer has.
pub(crate) fn of_layer<'a, T>(both: &'a Both<T>, config: &DecoderConfig, layer: usize) -> Option<&'a T> {
    match config.rotary_of(layer) {
        LayerRotary::First => both[0].as_ref(),
        LayerRotary::Second => both[1].as_ref(),
        LayerRotary::None => None,
    }
}

impl Turns {
    /// Of a model's rotations; none where positions enter otherwise.
    pub fn of(config: &DecoderConfig) -> Both<Self> {
        let first = match &config.positions {
            Positions::Rotary(rotary) => Some(rotary),
            _ => None,
        };
        [first, config.second_rotary.as_ref()].map(|rotary| rotary.map(Self::new))
    }

    fn new(rotary: &Rotary) -> Self {
        let Rotary { dim, theta, scaling, .. } = rotary;
        let plain = |i: usize| theta.powf(-2.0 * i as f64 / *dim as f64);
        let scaled = |i: usize| match scaling {
            None => plain(i),
            Some(RotaryScaling::Linear { factor }) => plain(i) / factor,
            Some(RotaryScaling::Llama3 { factor, low, high, original }) => {
                let f = plain(i);
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
            Some(RotaryScaling::Yarn { factor, fast, slow, original, whole, .. }) => {
                // The pair that turns so many times in the first training's context.
                let pair =
                    |turns: f64| *dim as f64 * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
                let (low, high) = (pair(*fast), pair(*slow));
                let (low, high) = if *whole { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(*dim as f64 - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain(i) / factor * divided + plain(i) * (1.0 - divided)
            }
            Some(RotaryScaling::Each { factors, .. }) => plain(i) / factors.get(i).copied().unwrap_or(1.0),
        };
        let factor = match scaling {
            Some(RotaryScaling::Yarn { attention, .. } | RotaryScaling::Each { attention, .. }) => *attention,
            _ => 1.0,
        };
        Self { frequencies: (0..dim / 2).map(scaled).collect(), factor }
    }

    /// As kernels have it.
    pub fn on_host(&self, positions: impl IntoIterator<Item = usize>) -> palinode_kernels::Rotation {
        palinode_kernels::Rotation::scaled(&self.frequencies, self.factor, positions)
    }
}

/// What distance adds to attention scores, where it adds something.
pub(crate) fn alibi(config: &DecoderConfig) -> Option<palinode_kernels::Alibi> {
    match config.positions {
        Positions::Alibi { most, scale, rounded } => {
            Some(palinode_kernels::Alibi { most: most as f32, scale: scale as f32, rounded })
        }
        _ => None,
    }
}
