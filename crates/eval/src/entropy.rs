//! How varied a text is.

use std::collections::HashMap;

use crate::Words;

/// `½·(⅔·H₂ + 4⁄3·H₃)`, with `Hₙ` the entropy in bits of the n-grams of a text's words. Zero for a text of fewer than two words.
/// (Generation entropy of ROME, arXiv 2202.05262, as its code computes it.)
pub fn entropy(text: &str, words: Words) -> f64 {
    let words = words.of(text);
    f64::midpoint(2.0 / 3.0 * of_ngrams(&words, 2), 4.0 / 3.0 * of_ngrams(&words, 3))
}

fn of_ngrams(words: &[String], n: usize) -> f64 {
    let mut counts: HashMap<&[String], usize> = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    // A sum whose order is that of a hash table would differ in its last digits from run to run.
    counts.sort_unstable();
    let total = counts.iter().sum::<usize>() as f64;
    counts.into_iter().map(|count| count as f64 / total).map(|share| -share * share.log2()).sum()
}
