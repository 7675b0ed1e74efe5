//! Products, norms, rotation, nonlinearities and probabilities, against the same in f64.

mod plain;

use palinode_kernels::{
    Activation, Compute, Matrix, Norm, NormKind, Rotation, Threads, activate, activate_back, add_gram, cross_entropy,
    divergence, log_softmax, probabilities, product, product_packed,
};
use plain::{Noise, bits, far, wide};

#[test]
fn products_equal_those_in_f64() {
    let mut noise = Noise(1);
    for (rows, inputs, outputs) in
        [(1, 1, 1), (3, 2, 5), (1, 700, 1), (1, 64, 2048), (5, 513, 33), (70, 1100, 90), (2, 8, 3), (0, 8, 4)]
    {
        let (x, w, b) = (noise.take(rows * inputs, 1.0), noise.take(inputs * outputs, 1.0), noise.take(outputs, 1.0));
        let matrix = Matrix::new(&w, inputs, outputs);
        for bias in [None, Some(b.as_slice())] {
            let found = product(&x, matrix, bias, Threads::All);
            let exact = plain::product(&wide(&x), &w, bias, inputs, outputs);
            assert!(rows == 0 || far(&found, &exact) < 1e-6, "{rows} × {inputs} × {outputs}");
        }
        // The same numbers as [outputs, inputs]: the way back, and weights that lie the other way round.
        let turned: Vec<f32> = (0..outputs * inputs).map(|i| w[i % inputs * outputs + i / inputs]).collect();
        let other = product(&x, Matrix::new(&turned, outputs, inputs).turned(), Some(&b), Threads::One);
        assert_eq!(bits(&other), bits(&product(&x, matrix, Some(&b), Threads::One)), "{rows} × {inputs} × {outputs}");
    }
}

/// Not to the last bit does a row know how many others there are, which, or who computes them.
#[test]
fn a_row_of_a_product_knows_no_other() {
    let mut noise = Noise(2);
    for (inputs, outputs) in
        [(1, 7), (2, 300), (3, 1), (64, 3), (64, 64), (300, 40), (512, 129), (513, 64), (1500, 2100)]
    {
        let rows = 150;
        let (x, w, b) = (noise.take(rows * inputs, 1.0), noise.take(inputs * outputs, 1.0), noise.take(outputs, 1.0));
        let plain = [Matrix::new(&w, inputs, outputs), Matrix::new(&w, outputs, inputs).turned()];
        let all = plain.into_iter().chain(plain.map(|matrix| matrix.computed_in(Compute::Bf16)));
        for matrix in all {
            let all = product(&x, matrix, Some(&b), Threads::All);
            assert_eq!(bits(&all), bits(&product(&x, matrix, Some(&b), Threads::One)));
            let copy = matrix.packed();
            assert_eq!((copy.inputs(), copy.outputs()), (inputs, outputs));
            assert_eq!(
                bits(&product(&x, matrix, None, Threads::All)),
                bits(&product_packed(&x, &copy, None, Threads::One))
            );
            for count in [1, 2, 3, 4, 5, 8, 13, 24, 49, 97] {
                for from in [0, 1, rows - count] {
                    let some = product(&x[from * inputs..][..count * inputs], matrix, Some(&b), Threads::All);
                    let packed = product_packed(&x[from * inputs..][..count * inputs], &copy, Some(&b), Threads::All);
                    assert_eq!(bits(&packed), bits(&some), "copied: {count} rows, {inputs} × {outputs}");
                    assert_eq!(
                        bits(&some),
                        bits(&all[from * outputs..][..count * outputs]),
                        "{count} rows from {from}, {inputs} × {outputs}"
                    );
                }
            }
        }
    }
}

/// The nearest number that has 8 bits, ties to even.
fn in_bf16(x: &[f32]) -> Vec<f32> {
    let nearest = |x: &f32| {
        let unit = 2f64.powi(f64::from(x.abs().max(f32::MIN_POSITIVE)).log2().floor() as i32 - 7);
        ((f64::from(*x) / unit).round_ties_even() * unit) as f32
    };
    x.iter().map(nearest).collect()
}

/// Factors are rounded, and nothing else: the same product of rounded numbers in f64 is as near as sums in f32 come to it. With `n` inputs
/// such a sum is off by no more than `n · 2⁻²⁴` of the sum of its parts' sizes, and as a rule by `√n · 2⁻²⁴`; factors that were cut off instead of rounded
/// would be off by `2⁻⁹` of it.
#[test]
fn products_in_bf16_equal_those_of_rounded_numbers_in_f64() {
    let mut noise = Noise(11);
    for (rows, inputs, outputs) in
        [(1, 1, 1), (3, 2, 5), (1, 700, 1), (1, 65, 2048), (5, 513, 33), (70, 1101, 90), (2, 8, 3), (0, 8, 4)]
    {
        let (x, w, b) = (noise.take(rows * inputs, 1.0), noise.take(inputs * outputs, 1.0), noise.take(outputs, 1.0));
        let matrix = Matrix::new(&w, inputs, outputs).computed_in(Compute::Bf16);
        let exact = plain::product(&wide(&in_bf16(&x)), &in_bf16(&w), Some(&b), inputs, outputs);
        let found = product(&x, matrix, Some(&b), Threads::All);
        assert!(rows == 0 || far(&found, &exact) < 1e-6, "{rows} × {inputs} × {outputs}: {}", far(&found, &exact));
        let turned: Vec<f32> = (0..outputs * inputs).map(|i| w[i % inputs * outputs + i / inputs]).collect();
        let turned = Matrix::new(&turned, outputs, inputs).turned().computed_in(Compute::Bf16);
        assert_eq!(bits(&product(&x, turned, Some(&b), Threads::One)), bits(&found), "{rows} × {inputs} × {outputs}");
    }
    // What is no number stays so, and is nowhere else.
    let (mut x, w) = (noise.take(3 * 40, 1.0), noise.take(40 * 50, 1.0));
    x[41] = f32::NAN;
    let found = product(&x, Matrix::new(&w, 40, 50).computed_in(Compute::Bf16), None, Threads::One);
    assert!(found.iter().enumerate().all(|(i, x)| x.is_nan() == (50..100).contains(&i)));
}

fn norms<'a>(weight: &'a [f32], bias: &'a [f32]) -> [Norm<'a>; 3] {
    let layer = Norm { kind: NormKind::Layer, weight, bias: Some(bias), epsilon: 1e-5 };
    [layer, Norm { bias: None, ..layer }, Norm { kind: NormKind::Rms, bias: None, ..layer }]
}

#[test]
fn norms_and_their_way_back() {
    let mut noise = Noise(3);
    for size in [2, 5, 8, 31, 768] {
        let (weight, bias) = (noise.take(size, 1.0), noise.take(size, 1.0));
        let x: Vec<f32> = noise.take(3 * size, 2.0).iter().map(|x| x + 5.0).collect();
        for norm in norms(&weight, &bias) {
            let found = norm.forward(&x);
            let exact = plain::norm(&norm, &wide(&x));
            assert!(far(&found, &exact) < 3e-7, "{size}: {:?}", norm.kind);
            if size > 31 {
                continue;
            }
            let slope = noise.take(3 * size, 1.0);
            let mut back = vec![0.0; 3 * size];
            norm.back(&x, &slope, &mut back);
            let loss = |x: &[f64]| plain::norm(&norm, x).iter().zip(&slope).map(|(y, s)| y * f64::from(*s)).sum();
            assert!(far_from(&back, &x, loss) < 1e-5, "{size}: {:?}", norm.kind);
        }
    }
}

/// How far a gradient is from finite differences in f64.
fn far_from(found: &[f32], x: &[f32], loss: impl Fn(&[f64]) -> f64) -> f64 {
    let mut x = wide(x);
    let exact: Vec<f64> = (0..x.len())
        .map(|i| {
            let (at, step) = (x[i], 1e-5);
            x[i] = at + step;
            let above = loss(&x);
            x[i] = at - step;
            let below = loss(&x);
            x[i] = at;
            (above - below) / (2.0 * step)
        })
        .collect();
    let largest = exact.iter().fold(1e-3f64, |a, b| a.max(b.abs()));
    found.iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).abs() / largest).fold(0.0, f64::max)
}

#[test]
fn a_rotation_turns_pairs_and_back() {
    let mut noise = Noise(4);
    let (dim, count, width, tokens) = (20, 3, 75, 6);
    let frequencies = [1.0, 0.31, 0.1, 0.003];
    let positions = [0, 1, 2, 700, 701, 5000];
    let x = noise.take(tokens * width, 1.0);
    let rotation = Rotation::new(&frequencies, positions);
    let mut found = x.clone();
    rotation.forward(&mut found, width, dim, count);
    let mut exact = wide(&x);
    plain::rotate(&frequencies, &positions, &mut exact, width, dim, count);
    assert!(far(&found, &exact) < 2e-7);
    rotation.back(&mut found, width, dim, count);
    assert!(far(&found, &wide(&x)) < 3e-7);
    let mut some = x[width..3 * width].to_vec();
    rotation.keep(1..3).forward(&mut some, width, dim, count);
    found.copy_from_slice(&x);
    rotation.forward(&mut found, width, dim, count);
    assert_eq!(bits(&some), bits(&found[width..3 * width]));
}

const ACTIVATIONS: [Activation; 4] = [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu];

/// Errors as the documentation states them.
#[test]
fn nonlinearities_are_as_exact_as_they_say() {
    let xs: Vec<f32> = (0..400_000).map(|i| -20.0 + i as f32 / 1e4).chain([1e-20, -1e-20, 0.0, 1e4, -1e4]).collect();
    for kind in ACTIVATIONS {
        let mut found = xs.clone();
        activate(kind, &mut found, None);
        let mut worst = [0f64; 2];
        for (x, y) in xs.iter().zip(&found) {
            let x = f64::from(*x);
            let exact = plain::activation(kind, x);
            let off = (f64::from(*y) - exact).abs();
            worst[0] = worst[0].max(off / (x.abs() + 1e-30));
            if x.abs() <= 1.0 && exact != 0.0 {
                worst[1] = worst[1].max(off / exact.abs());
            }
        }
        println!("{kind:?}: {worst:?}");
        assert!(worst[0] < 3e-7 && worst[1] < 3e-7, "{kind:?}: {worst:?}");
        let up: Vec<f32> = xs.iter().map(|x| 2.0 - x).collect();
        let mut gated = up.clone();
        activate(kind, &mut gated, Some(&xs));
        assert!(gated.iter().zip(found.iter().zip(&up)).all(|(g, (f, u))| *g == f * u));
        let mut odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        activate(kind, &mut odd, None);
        assert!(odd[0].is_nan() && odd[1] == f32::INFINITY, "{odd:?}");
    }
}

#[test]
fn nonlinearities_have_their_slopes() {
    let xs: Vec<f32> = (0..4_000).map(|i| -8.0 + (i as f32 + 0.5) / 250.0).collect();
    for kind in ACTIVATIONS {
        let step = 1e-5;
        let slope = |x: f64| (plain::activation(kind, x + step) - plain::activation(kind, x - step)) / (2.0 * step);
        let mut plain_slope = vec![1.0; xs.len()];
        activate_back(kind, &mut plain_slope, &xs, None);
        // Of f(gate) · up: f(gate) and f′(gate) · up.
        let up: Vec<f32> = xs.iter().map(|x| 0.5 - x).collect();
        let (mut at_up, mut at_gate) = (vec![2.0; xs.len()], xs.clone());
        activate_back(kind, &mut at_up, &up, Some(&mut at_gate));
        for (i, x) in xs.iter().enumerate() {
            let x = f64::from(*x);
            let exact = slope(x);
            assert!((f64::from(plain_slope[i]) - exact).abs() < 2e-6, "{kind:?} at {x}");
            assert!((f64::from(at_gate[i]) - 2.0 * exact * f64::from(up[i])).abs() < 4e-5, "{kind:?} at {x}");
            assert!((f64::from(at_up[i]) - 2.0 * plain::activation(kind, x)).abs() < 1e-5, "{kind:?} at {x}");
        }
    }
}

/// Over a vocabulary of a real size: a sum in f32 would be wrong in the fifth digit.
#[test]
fn probabilities_over_a_vocabulary_are_right_to_a_rounding() {
    let mut noise = Noise(5);
    for (count, scale) in [(1, 1.0), (17, 3.0), (50_257, 8.0), (151_936, 0.01), (151_936, 30.0)] {
        let logits = noise.take(count, scale);
        let exact = wide(&logits);
        let largest = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + exact.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        let found = probabilities(&logits);
        assert!((found.log_sum - log_sum).abs() < 2e-8 * (1.0 + scale as f64), "{count}: {}", found.log_sum - log_sum);
        assert_eq!(f64::from(found.largest), largest);
        assert_eq!(logits[found.best], found.largest);
        let mut logs = logits.clone();
        assert_eq!(log_softmax(&mut logs), found);
        for (log, logit) in logs.iter().zip(&exact) {
            let exact = logit - log_sum;
            assert!((f64::from(*log) - exact).abs() <= 1.3e-7 * exact.abs().max(0.1), "{log} instead of {exact}");
        }
    }
    assert_eq!(probabilities(&[1.0, 4.0, 4.0]).best, 1);
    assert!(probabilities(&[1.0, f32::NAN, 4.0]).log_sum.is_nan());
}

/// Sums of products of keys: each entry relative to the largest that it could be.
#[test]
fn sums_of_key_products_are_those_in_f64() {
    let mut noise = Noise(9);
    for (tokens, f) in [(1, 3), (7, 48), (300, 49), (513, 130), (2100, 100)] {
        // As the keys behind a nonlinearity, which are no noise about 0: errors of sums add up the most where all have one sign.
        let keys: Vec<f32> = noise.take(tokens * f, 1.0).iter().map(|k| 0.4 + k.abs()).collect();
        let exact: Vec<f64> = (0..f * f)
            .map(|at| (0..tokens).map(|t| f64::from(keys[t * f + at / f]) * f64::from(keys[t * f + at % f])).sum())
            .collect();
        let mut sums = [Threads::One, Threads::All].map(|threads| {
            let mut columns = vec![vec![1.0; f]; f];
            add_gram(&mut columns.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), &keys, threads);
            columns
        });
        let worst = (0..f)
            .flat_map(|j| (j..f).map(move |i| (i, j)))
            .map(|(i, j)| (sums[0][j][i] - 1.0 - exact[i * f + j]).abs() / (exact[i * f + i] * exact[j * f + j]).sqrt())
            .fold(0.0, f64::max);
        assert!(worst < 1e-6, "{tokens} tokens of {f}: {worst:e}");
        for columns in &mut sums {
            (0..f).for_each(|j| columns[j][..j].fill(0.0));
        }
        assert_eq!(sums[0], sums[1], "threads do not show");
    }
}

/// Losses over a vocabulary and their gradients, against f64.
#[test]
fn losses_of_logits_and_their_way_back() {
    let mut noise = Noise(10);
    for size in [1, 15, 16, 1000, 50_257] {
        let (logits, other) = (noise.take(size, 4.0), noise.take(size, 4.0));
        let exact = |of: &[f32]| {
            let largest = of.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let sum: f64 = of.iter().map(|x| (f64::from(*x) - f64::from(largest)).exp()).sum();
            of.iter().map(|x| f64::from(*x) - f64::from(largest) - sum.ln()).collect::<Vec<f64>>()
        };
        let (log_p, log_q) = (exact(&logits), exact(&other));
        let (token, weight) = (size / 3, 0.3f32);
        let mut slope = logits.clone();
        let found = cross_entropy(&mut slope, token, weight);
        assert!((found.log(logits[token]) - log_p[token]).abs() < 2e-6, "{size}");
        assert_eq!(found, probabilities(&logits));
        for (i, slope) in slope.iter().enumerate() {
            let right = f64::from(weight) * (log_p[i].exp() - if i == token { 1.0 } else { 0.0 });
            assert!((f64::from(*slope) - right).abs() < 1e-7, "{size}: {i}");
        }
        let mut slope = logits.clone();
        let given: Vec<f32> = log_q.iter().map(|x| *x as f32).collect();
        let kl = divergence(&mut slope, &given);
        let right: f64 = log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum();
        assert!((kl - right).abs() < 2e-6 * right.abs().max(1.0), "{size}: {kl} instead of {right}");
        for (i, slope) in slope.iter().enumerate() {
            let right = log_p[i].exp() * (log_p[i] - log_q[i] - right);
            assert!((f64::from(*slope) - right).abs() < 2e-6, "{size}: {i}");
        }
        let mut same = logits.clone();
        let kl = divergence(&mut same, &log_softmaxed(&logits));
        assert!(kl.abs() < 1e-6 && same.iter().all(|slope| slope.abs() < 1e-6), "{size}: {kl:e}");
    }
    let mut logits = [1.0, f32::NAN, 2.0];
    assert!(cross_entropy(&mut logits, 0, 1.0).log_sum.is_nan() && logits.iter().all(|x| x.is_nan()));
}

fn log_softmaxed(logits: &[f32]) -> Vec<f32> {
    let mut logits = logits.to_vec();
    log_softmax(&mut logits);
    logits
}
