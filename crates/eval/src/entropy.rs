//! How varied a text is.

use std::collections::HashMap;

use crate::Words;

/// `½·(⅔·H₂ + 4⁄3·H₃)`, with `Hₙ` the entropy in bits of the n-grams of a text's words. Zero for a text of fewer than two words.
/// (Generation entropy of ROME, arXiv 2202.05262, as its code computes it.)
pub fn entropy(text: &str, words: Words) -> f64 {
    let words = words.of(text);
    f64::midpoint(2.0 / 3.0 * of_ngrams(&words, 2), 4.0 / 3.0 * of_ngrams(&words, 3))
}

/// The adjusted token entropy of the published code: `½·(⅔·H₂ + 4⁄3·H₃)`, with `Hₙ` the entropy of the n-grams of tokens, divided by log₂
/// of their number (0 where there is one or none): 1 where no n-gram stands twice.
pub fn token_entropy(ids: &[u32]) -> f64 {
    let share = |n: usize| {
        let count = (ids.len() + 1).saturating_sub(n);
        if count > 1 { of_ngrams(ids, n) / (count as f64).log2() } else { 0.0 }
    };
    f64::midpoint(2.0 / 3.0 * share(2), 4.0 / 3.0 * share(3))
}

fn of_ngrams<T: Eq + std::hash::Hash>(words: &[T], n: usize) -> f64 {
    let mut counts: HashMap<&[T], usize> = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    // A sum whose order is that of a hash table would differ in its last digits from run to run.
    counts.sort_unstable();
    let total = counts.iter().sum::<usize>() as f64;
    counts.into_iter().map(|count| count as f64 / total).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of five tokens `a b c c c` the pairs are ab, bc, cc, cc, with 1.5 bits of 2; no triple stands twice.
    #[test]
    fn token_entropy_is_a_share() {
        let expect = 0.5 * (2.0 / 3.0 * 0.75 + 4.0 / 3.0);
        assert!((token_entropy(&[1, 2, 3, 3, 3]) - expect).abs() < 1e-12);
        assert_eq!([token_entropy(&[]), token_entropy(&[1]), token_entropy(&[1, 2])], [0.0; 3]);
        assert!((token_entropy(&[1, 2, 3, 4]) - 1.0).abs() < 1e-12);
        assert!(token_entropy(&[5; 40]).abs() < 1e-12);
    }
}
