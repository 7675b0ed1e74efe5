//! How far means over a few records can be trusted.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Percentile bootstrap: the middle 95 % of `value` over `resamples` draws of `n` records with replacement. The draws are the
/// same for every call with as many records; `None` where no draw has a value.
pub fn bootstrap(
    n: usize,
    resamples: usize,
    seed: u64,
    mut value: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<[f64; 2]> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(resamples);
    if n == 0 {
        return None;
    }
    for _ in 0..resamples {
        let sample: Vec<usize> = (0..n).map(|_| random.random_range(0..n)).collect();
        values.extend(value(&sample));
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (!values.is_empty()).then(|| [at(0.025), at(0.975)])
}
