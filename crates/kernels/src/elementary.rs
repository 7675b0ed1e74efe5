//! Exponentials, written so that a loop over them becomes vector instructions: no branch, no table, no call.

/// `eˣ` in f32, to a unit of the last place; 0 and infinity where the result has no place in f32.
///
/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`, `eʳ` by a polynomial, `2ⁿ` by its exponent bits, in two factors since `n` may lie below
/// what one can hold.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: a number added to it is rounded to an integer, which is in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: n times the first has no rounding error.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Not `clamp`: where x is NaN, r must be.
    let bounded = x.clamp(-104.0, 89.0);
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, bounded));
    let p = 1.989_93e-4_f32;
    let p = p.mul_add(r, 0.001_393_366_1);
    let p = p.mul_add(r, 0.008_333_298);
    let p = p.mul_add(r, 0.041_666_464);
    let p = p.mul_add(r, 0.166_666_67);
    let p = p.mul_add(r, 0.5);
    let p = (r * r).mul_add(p, r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// `eˣ` in f64 for `x ≤ 0`, to a few parts in 10¹³; 0 below −700.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let bounded = x.clamp(-700.0, 0.0);
    let shifted = bounded.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, bounded));
    // Taylor's series to r¹⁰.
    let mut p = 1.0 / 3_628_800.0;
    for term in [362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        p = f64::mul_add(p, r, 1.0 / term);
    }
    let n = (shifted.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64);
    let scaled = p * f64::from_bits((n.wrapping_add(1023) as u64) << 52);
    if x < -700.0 { 0.0 } else { scaled }
}

/// `σ(x) = 1/(1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent, to a few units of the last place: a polynomial where `|x|` is small (Cephes' tanhf), `1 − 2/(e²ˣ + 1)` elsewhere.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let p = -5.704_988_7e-3_f32;
    let p = p.mul_add(square, 2.063_908_8e-2);
    let p = p.mul_add(square, -5.373_971_6e-2);
    let p = p.mul_add(square, 1.333_144_2e-1);
    let p = p.mul_add(square, -3.333_328e-1);
    let small = (p * square).mul_add(x, x);
    let size = x.abs();
    let large = (1.0 - 2.0 / (exp(size + size) + 1.0)).copysign(x);
    if size < 0.625 { small } else { large }
}

/// The normal distribution function `Φ(x)`, and `e^(−x²/2)`, in f64: relative error of Φ below 2·10⁻¹⁰ for `|x| ≤ 14`.
///
/// `erfc(z) = t · e^(−z² + P(t))` for `z ≥ 0` with `t = 1/(1 + z/2)`; the polynomial `P` was fitted at Chebyshev's nodes.
#[inline(always)]
pub(crate) fn normal(x: f64) -> (f64, f64) {
    const P: [f64; 14] = [
        -0.025_261_180_391_675_28,
        0.376_280_905_119_101_84,
        -2.020_700_119_441_266_4,
        5.708_403_956_378_174,
        -9.645_545_757_324_818,
        10.201_560_237_756_327,
        -6.880_373_078_372_031,
        3.218_187_880_123_476,
        -1.270_482_988_891_097_8,
        0.185_807_045_937_203_32,
        0.037_971_648_087_823_77,
        0.379_976_328_562_972_64,
        0.999_677_951_545_040_8,
        -1.265_502_828_995_932_7,
    ];
    let z = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.5, 1.0);
    let mut p = P[0];
    for c in &P[1..] {
        p = p.mul_add(t, *c);
    }
    let bell = exp_f64(-z * z);
    // P(t) lies between −1.3 and 0.2.
    let tail = 0.5 * t * bell * exp_f64(p - 0.25) * 1.284_025_416_687_741_5;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::vectorised;

    /// The distance of `x` from `exact` in units of the last place that f32 has there.
    fn ulps(x: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        let unit = f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(x) - exact).abs() / unit
    }

    #[test]
    fn exponentials_are_right_to_a_unit_of_the_last_place() {
        let xs: Vec<f32> = (0..2_000_000).map(|i| -104.0 + 192.7 * (i as f32 / 2e6)).collect();
        let mut values = xs.clone();
        vectorised(|| values.iter_mut().for_each(|x| *x = exp(*x)));
        let worst = xs.iter().zip(&values).map(|(x, y)| ulps(*y, f64::from(*x).exp())).fold(0.0, f64::max);
        assert!(worst < 1.0, "{worst}");
        assert_eq!([exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-200.0)], [1.0, 1.0, 0.0, 0.0]);
        assert_eq!([exp(f32::INFINITY), exp(89.0)], [f32::INFINITY; 2]);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(-103.0).to_bits(), 1);
    }

    #[test]
    fn the_hyperbolic_tangent() {
        for i in 0..200_000 {
            let x = (f64::from(i) / 1e4 - 10.0) as f32;
            let exact = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - exact).abs() <= 3e-7 * exact.abs(), "{x}: {} instead of {exact}", tanh(x));
        }
        assert_eq!([tanh(0.0), tanh(1e30), tanh(-1e30)], [0.0, 1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn exponentials_in_f64_and_the_normal_distribution() {
        for i in 0..100_000 {
            let x = -700.0 * (f64::from(i) / 1e5).powi(3);
            assert!((exp_f64(x) / x.exp() - 1.0).abs() < 1e-12, "{x}");
        }
        assert_eq!([exp_f64(-1e6), exp_f64(0.0)], [0.0, 1.0]);
        assert!(exp_f64(f64::NAN).is_nan() && normal(f64::NAN).0.is_nan());
        // Φ(x) to twenty digits.
        for (x, exact) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (-1.0, 0.158_655_253_931_457_05),
            (-3.0, 0.001_349_898_031_630_094_6),
            (-6.0, 9.865_876_450_376_98e-10),
            (-12.0, 1.776_482_112_077_678_7e-33),
        ] {
            let (found, bell) = normal(x);
            assert!((found / exact - 1.0).abs() < 2e-10, "{x}: {found} instead of {exact}");
            assert!((bell / (-x * x / 2.0f64).exp() - 1.0).abs() < 1e-12);
        }
    }
}
