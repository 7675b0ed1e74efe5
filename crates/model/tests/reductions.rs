//! Long sums in f32 against f64: over a vocabulary, over a hidden state, over a context, over keys.
//!
//! What is added one by one in f32 loses digits with its length. Every reduction of the forward pass is held here at lengths of published
//! models. `PALINODE_SHOW=1 cargo test --release --workspace --test reductions -- --nocapture` prints what was measured.

use burn::tensor::module::{attention, layer_norm};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use palinode_model::{Softmax, log_softmax, matmul, read, softmax};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `n` numbers of about a normal distribution.
fn numbers(n: usize, deviation: f64, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Twelve uniform numbers less six have variance 1.
    let mut one = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    (0..n).map(|_| (deviation * one()) as f32).collect()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn within(what: &str, error: f64, most: f64) {
    if std::env::var_os("PALINODE_SHOW").is_some() {
        println!("{what}: {error:.2e} (at most {most:.0e})");
    }
    assert!(error <= most, "{what}: {error:.3e}, at most {most:.0e}");
}

/// The largest distance of some values from those that they should have.
fn distance(found: &[f32], right: impl IntoIterator<Item = f64>) -> f64 {
    found.iter().zip(right).map(|(f, r)| (f64::from(*f) - r).abs()).fold(0.0, f64::max)
}

fn log_softmax_f64(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = logits.iter().map(|&l| f64::from(l) - f64::from(largest)).collect();
    let log_sum = shifted.iter().map(|s| s.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|s| s - log_sum).collect()
}

/// Vocabularies of GPT-2, Llama 3, Qwen 2 and Gemma, with flat and with steep predictions.
#[test]
fn probabilities_over_published_vocabularies() {
    let device = Device::flex();
    for (vocabulary, deviation) in [(50_257, 0.5), (50_257, 3.0), (128_256, 2.0), (151_936, 0.5), (256_000, 2.0)] {
        let name = |what: &str| format!("{what}, {vocabulary} tokens, deviation {deviation}");
        let logits = numbers(2 * vocabulary, deviation, vocabulary as u64);
        let rows = tensor(&logits, [2, vocabulary], &device);
        let Softmax { p, log_p } = softmax(rows.clone());
        let (p, log_p) = (read::<f32, _, _>(p).unwrap(), read::<f32, _, _>(log_p).unwrap());
        assert_eq!(log_p, read::<f32, _, _>(log_softmax(rows)).unwrap());
        for (row, logits) in logits.chunks(vocabulary).enumerate() {
            let (p, log_p) = (&p[row * vocabulary..][..vocabulary], &log_p[row * vocabulary..][..vocabulary]);
            let right = log_softmax_f64(logits);
            within(&name("|Σp − 1|"), (p.iter().map(|&p| f64::from(p)).sum::<f64>() - 1.0).abs(), 1e-6);
            let relative = p.iter().zip(&right).map(|(p, r)| (f64::from(*p) / r.exp() - 1.0).abs()).fold(0.0, f64::max);
            within(&name("p, relative"), relative, 2e-6);
            within(&name("log p"), distance(log_p, right), 4e-6);
        }
    }
}

/// Hidden states of published sizes, with a mean and a few large numbers as real ones have.
#[test]
fn norms_over_hidden_states() {
    let device = Device::flex();
    for size in [768, 4096, 12_288] {
        let mut x: Vec<f32> = numbers(4 * size, 1.0, 5).into_iter().map(|v| v + 0.3).collect();
        for row in x.chunks_mut(size) {
            row[7] = 150.0;
            row[size / 2] = -400.0;
        }
        let rows = tensor(&x, [4, size], &device);
        let n = size as f64;
        let layer = read::<f32, _, _>(layer_norm(rows.clone(), Tensor::ones([size], &device), None, 1e-5)).unwrap();
        let norm = read::<f32, _, _>((rows.clone() * rows.clone()).sum_dim(1).sqrt()).unwrap();
        let mean = read::<f32, _, _>((rows.clone() * rows).mean_dim(1)).unwrap();
        for (at, x) in x.chunks(size).enumerate() {
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let squares = x.iter().map(|v| v * v).sum::<f64>();
            let middle = x.iter().sum::<f64>() / n;
            let spread = (x.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
            let scale = x.iter().map(|v| ((v - middle) / spread).abs()).fold(0.0, f64::max);
            let right = x.iter().map(|v| (v - middle) / spread);
            within(&format!("layer norm over {size}"), distance(&layer[at * size..][..size], right) / scale, 1e-6);
            let off = |found: f32, right: f64| (f64::from(found) / right - 1.0).abs();
            within(&format!("norm over {size}"), off(norm[at], squares.sqrt()), 1e-6);
            within(&format!("mean of squares over {size}"), off(mean[at], squares / n), 1e-6);
        }
    }
}

/// One query that looks at all of a long context, as it is computed without and with gradients.
#[test]
fn attention_over_long_contexts() {
    const DIM: usize = 64;
    let device = Device::flex();
    for length in [512, 1024, 4096, 16_384] {
        let query = numbers(DIM, 1.0, 1);
        let keys = numbers(length * DIM, 1.0, 2);
        // Values with a mean show an error of the weights' sum, which values around 0 would hide.
        let values: Vec<f32> = numbers(length * DIM, 1.0, 3).into_iter().map(|v| v + 1.0).collect();
        let dot = |key: &[f32]| key.iter().zip(&query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
        let scores: Vec<f64> = keys.chunks(DIM).map(|key| dot(key) / (DIM as f64).sqrt()).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum = weights.iter().sum::<f64>();
        let right: Vec<f64> = (0..DIM)
            .map(|i| weights.iter().zip(values.chunks(DIM)).map(|(w, v)| w * f64::from(v[i])).sum::<f64>() / sum)
            .collect();
        for tracked in [false, true] {
            let one = |values: &[f32], length: usize| {
                let made = tensor(values, [1, 1, length, DIM], &device);
                if tracked { made.autodiff().require_grad() } else { made }
            };
            let options = AttentionModuleOptions { is_causal: true, ..AttentionModuleOptions::default() };
            let out = attention(one(&query, 1), one(&keys, length), one(&values, length), None, None, options);
            let found = read::<f32, _, _>(out).unwrap();
            let what = format!("attention over {length}{}", if tracked { " with gradients" } else { "" });
            within(&what, distance(&found, right.iter().copied()), 2e-5);
        }
    }
}

/// Products over keys, whose size is the largest inner one: the error relative to the sum of the terms' sizes.
#[test]
fn products_over_keys() {
    let device = Device::flex();
    for size in [3072, 16_384] {
        let (a, b) = (numbers(4 * size, 1.0, 8), numbers(size * 4, 1.0, 9));
        let found = matmul(tensor(&a, [4, size], &device), tensor(&b, [size, 4], &device));
        let found = read::<f32, _, _>(found).unwrap();
        for (i, row) in a.chunks(size).enumerate() {
            for j in 0..4 {
                let terms = row.iter().enumerate().map(|(k, &a)| f64::from(a) * f64::from(b[k * 4 + j]));
                let (sum, sizes) = terms.fold((0.0, 0.0), |(sum, sizes), term: f64| (sum + term, sizes + term.abs()));
                within(&format!("product over {size}"), (f64::from(found[i * 4 + j]) - sum).abs() / sizes, 1e-6);
            }
        }
    }
}
