//! The nonlinearity of a feed-forward, gated or not.

use crate::dispatch::vectorised;
use crate::elementary::{normal, sigmoid};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · Φ(x)` with `Φ` by a hyperbolic tangent: `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluNew,
    /// `x · Φ(x)`, `Φ` the normal distribution function.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `x · σ(x)`.
    Silu,
}

// gelu_new(x) = x/2 · (1 + tanh u), and (1 + tanh u)/2 = σ(2u) with 2u = x·(A + B·x²).
const A: f32 = 1.595_769;
const B: f32 = 0.071_354_814;

/// A function's value and its derivative.
trait Function {
    fn value(x: f32) -> f32;
    fn slope(x: f32) -> (f32, f32);
}

struct GeluNew;
struct Gelu;
struct Relu;
struct Silu;

impl Function for GeluNew {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x * (x * x).mul_add(B, A))
    }

    #[inline(always)]
    fn slope(x: f32) -> (f32, f32) {
        let square = x * x;
        let s = sigmoid(x * square.mul_add(B, A));
        let y = x * s;
        (y, (y * (1.0 - s)).mul_add(square.mul_add(3.0 * B, A), s))
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        (f64::from(x) * normal(f64::from(x)).0) as f32
    }

    #[inline(always)]
    fn slope(x: f32) -> (f32, f32) {
        const DENSITY: f64 = 0.398_942_280_401_432_7;
        let x = f64::from(x);
        let (below, bell) = normal(x);
        ((x * below) as f32, (x * DENSITY).mul_add(bell, below) as f32)
    }
}

impl Function for Relu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        // Not `max`: what is not a number must not become 0.
        if x < 0.0 { 0.0 } else { x }
    }

    #[inline(always)]
    fn slope(x: f32) -> (f32, f32) {
        (Self::value(x), if x > 0.0 { 1.0 } else { 0.0 })
    }
}

impl Function for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> (f32, f32) {
        let s = sigmoid(x);
        let y = x * s;
        (y, y.mul_add(1.0 - s, s))
    }
}

/// `f(gate) · up` in the place of `up`, or `f(up)` where there is no gate.
///
/// Errors, against the same function in f64: at most 3·10⁻⁷ of the value where `|x| ≤ 1`, and 3·10⁻⁷ of `|x|` anywhere.
pub fn activate(activation: Activation, up: &mut [f32], gate: Option<&[f32]>) {
    match activation {
        Activation::GeluNew => forward::<GeluNew>(up, gate),
        Activation::Gelu => forward::<Gelu>(up, gate),
        Activation::Relu => forward::<Relu>(up, gate),
        Activation::Silu => forward::<Silu>(up, gate),
    }
}

fn forward<F: Function>(up: &mut [f32], gate: Option<&[f32]>) {
    vectorised(
        #[inline(always)]
        || match gate {
            None => {
                for x in up {
                    *x = F::value(*x);
                }
            }
            Some(gate) => {
                for (up, gate) in up.iter_mut().zip(gate) {
                    *up *= F::value(*gate);
                }
            }
        },
    );
}

/// The way back of [`activate`], given what went in (`up` and `gate`): the gradient with respect to its result, `slope`, becomes the one
/// with respect to `up`; the one with respect to `gate` takes the place of `gate`.
pub fn activate_back(activation: Activation, slope: &mut [f32], up: &[f32], gate: Option<&mut [f32]>) {
    match activation {
        Activation::GeluNew => back::<GeluNew>(slope, up, gate),
        Activation::Gelu => back::<Gelu>(slope, up, gate),
        Activation::Relu => back::<Relu>(slope, up, gate),
        Activation::Silu => back::<Silu>(slope, up, gate),
    }
}

fn back<F: Function>(slope: &mut [f32], up: &[f32], gate: Option<&mut [f32]>) {
    vectorised(
        #[inline(always)]
        || match gate {
            None => {
                for (slope, x) in slope.iter_mut().zip(up) {
                    *slope *= F::slope(*x).1;
                }
            }
            Some(gate) => {
                for ((slope, up), gate) in slope.iter_mut().zip(up).zip(gate) {
                    let (value, derivative) = F::slope(*gate);
                    *gate = *slope * *up * derivative;
                    *slope *= value;
                }
            }
        },
    );
}
