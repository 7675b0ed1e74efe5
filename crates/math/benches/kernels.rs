//! The kernels of a solve, at GPT-2's key size: `cargo bench --workspace --bench kernels`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use palinode_math::{Factor, Form, Mat, PreservationWeights, Problem, SecondMoment, solve};

const F: usize = 3072;
const D: usize = 768;
const WEIGHTS: PreservationWeights = PreservationWeights { lambda: 15_000.0, rho: 0.0 };

/// `exp(−|i − j|/20)`: positive definite.
fn moment() -> SecondMoment {
    let sum: Vec<f64> = (0..F * F).map(|i| (-((i / F).abs_diff(i % F) as f64) / 20.0).exp()).collect();
    SecondMoment::from_sum(&sum, F, 1).expect("a square matrix")
}

fn wave(rows: usize, columns: usize, step: f64) -> Mat<f64> {
    Mat::from_fn(rows, columns, |i, b| (step * (i as f64 + 1.0) * (b as f64 + 1.0)).sin())
}

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("f 3072");
    group.sample_size(10);
    let moment = moment();
    let keys: Vec<f32> = (0..512 * F).map(|i| (0.37 * i as f64).sin() as f32).collect();
    group.throughput(Throughput::Elements(512));
    group.bench_function("second moment, 512 keys", |b| {
        b.iter_batched_ref(|| SecondMoment::new(F), |sum| sum.add(&keys).expect("finite"), BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("factor", |b| b.iter(|| Factor::new(black_box(&moment), WEIGHTS).expect("definite")));
    let factor = Factor::new(&moment, WEIGHTS).expect("definite");
    for batch in [1, 32, 256] {
        let (keys, residual) = (wave(F, batch, 0.37), wave(D, batch, 0.11));
        let other = wave(F, batch, 0.41);
        let problem = |keys: &Mat<f64>, mu: &[f64]| {
            let problem =
                Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu, form: Form::Dual };
            solve(&factor, &problem).expect("keys differ")
        };
        let mu = vec![1.0; batch];
        group.throughput(Throughput::Elements(batch as u64));
        // Two sets of keys in turn, so that neither is known from the time before.
        group.bench_function(format!("solve, {batch} edits, new keys"), |b| {
            let mut turn = false;
            b.iter(|| {
                turn = !turn;
                problem(if turn { &keys } else { &other }, &mu)
            });
        });
        group.bench_function(format!("solve, {batch} edits, next of a sweep"), |b| b.iter(|| problem(&keys, &mu)));
    }
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
