//! How alike two texts are, by the words that they share and how rare those are.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Inverse document frequencies of words.
#[derive(Clone, Debug)]
pub struct Tfidf {
    weights: HashMap<String, f64>,
}

impl Tfidf {
    /// With given weights; words that have none do not count.
    pub fn new(weights: HashMap<String, f64>) -> Self {
        Self { weights }
    }

    /// From the texts themselves: `ln((1 + n) / (1 + nᵥ)) + 1` for a word that is in `nᵥ` of `n` texts, as scikit-learn's
    /// `TfidfVectorizer` has it.
    pub fn fit<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut n = 0;
        for text in texts {
            n += 1;
            for word in words(text).into_iter().collect::<HashSet<_>>() {
                *counts.entry(word).or_default() += 1;
            }
        }
        let weight = |count: usize| ((1 + n) as f64 / (1 + count) as f64).ln() + 1.0;
        Self { weights: counts.into_iter().map(|(word, count)| (word, weight(count))).collect() }
    }

    /// Cosine of the texts' vectors of counts times weights; 0 where either has no word that counts.
    pub fn similarity(&self, a: &str, b: &str) -> f64 {
        let (a, b) = (self.vector(a), self.vector(b));
        let norm = |vector: &BTreeMap<String, f64>| vector.values().map(|x| x * x).sum::<f64>().sqrt();
        let product: f64 = a.iter().filter_map(|(word, x)| Some(x * b.get(word)?)).sum();
        let norms = norm(&a) * norm(&b);
        if norms > 0.0 { product / norms } else { 0.0 }
    }

    /// In the order of words, so that sums are the same every time.
    fn vector(&self, text: &str) -> BTreeMap<String, f64> {
        let mut vector = BTreeMap::new();
        for word in words(text) {
            if let Some(weight) = self.weights.get(&word) {
                *vector.entry(word).or_insert(0.0) += weight;
            }
        }
        vector
    }
}

/// Runs of two or more letters, digits or underscores, in small letters.
fn words(text: &str) -> Vec<String> {
    let small = text.to_lowercase();
    let runs = small.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    runs.filter(|run| run.chars().nth(1).is_some()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against scikit-learn 1.7: `TfidfVectorizer().fit(texts)`, and the cosine of its rows.
    #[test]
    fn agrees_with_scikit_learn() {
        let texts = ["Rome is a city in Italy", "Paris is the capital of France, a city", "a_b Café É 42"];
        let tfidf = Tfidf::fit(texts);
        assert!((tfidf.weights["city"] - 1.287_682_072_451_780_8).abs() < 1e-12);
        assert!((tfidf.weights["rome"] - 1.693_147_180_559_945_3).abs() < 1e-12);
        assert!(!tfidf.weights.contains_key("a") && tfidf.weights.contains_key("a_b"));
        assert!((tfidf.similarity(texts[0], texts[1]) - SKLEARN).abs() < 1e-12);
        assert!((tfidf.similarity(texts[2], texts[2]) - 1.0).abs() < 1e-12);
        assert_eq!(tfidf.similarity("nothing known", texts[0]), 0.0);
    }

    const SKLEARN: f64 = 0.228_665_622_833_450_74;
}
