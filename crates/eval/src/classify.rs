//! Questions with a choice of answers.

use palinode_data::TargetPrefix;
use palinode_model::{Decoder, ModelError, Text};
use serde::{Deserialize, Serialize};

use crate::{Query, score};

/// A question and what may be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The whole prompt, examples included.
    pub prompt: String,
    /// The answers to choose from; each gets a leading space if it has none.
    pub choices: Vec<String>,
}

/// For each question the place of the answer that the model finds the most likely as a whole, `Σ log p` over its tokens; the
/// first of equals. `tokens` bounds a batch's rectangle.
///
/// # Errors
/// As [`score()`].
pub fn choose(decoder: &Decoder, text: &Text, questions: &[Question], tokens: usize) -> Result<Vec<usize>, ModelError> {
    let spaced = |choice: &String| TargetPrefix::Blank.continuation("", choice);
    let query = |q: &Question| Query { prompt: q.prompt.clone(), targets: q.choices.iter().map(spaced).collect() };
    let queries: Vec<Query> = questions.iter().map(query).collect();
    let chosen = score(decoder, text, &queries, tokens)?.into_iter().map(|scores| {
        let total = |at: usize| scores[at].nll * scores[at].said.len() as f64;
        (0..scores.len()).min_by(|&a, &b| total(a).total_cmp(&total(b))).unwrap_or(0)
    });
    Ok(chosen.collect())
}

/// How answers agree with the right ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Share of answers that are right.
    pub accuracy: f64,
    /// Mean over labels of the harmonic mean of precision and recall; of labels that are neither right nor answered anywhere
    /// nothing is said.
    pub f1: f64,
    /// Matthews' correlation coefficient, in its form for several labels: 1 where all are right, 0 where answers say nothing.
    pub correlation: f64,
}

/// Agreement of answers with the right ones, as places among `labels` labels; `None` of no answer.
pub fn agreement(pairs: impl IntoIterator<Item = (usize, usize)>, labels: usize) -> Option<Agreement> {
    let mut counts = vec![vec![0.0_f64; labels]; labels];
    let mut n = 0.0;
    for (answer, right) in pairs {
        counts[right][answer] += 1.0;
        n += 1.0;
    }
    if n == 0.0 {
        return None;
    }
    let hits: Vec<f64> = (0..labels).map(|label| counts[label][label]).collect();
    let rights: Vec<f64> = counts.iter().map(|row| row.iter().sum()).collect();
    let answers: Vec<f64> = (0..labels).map(|label| counts.iter().map(|row| row[label]).sum()).collect();
    let met: Vec<usize> = (0..labels).filter(|&label| rights[label] + answers[label] > 0.0).collect();
    let f1 =
        met.iter().map(|&label| 2.0 * hits[label] / (rights[label] + answers[label])).sum::<f64>() / met.len() as f64;
    let correct: f64 = hits.iter().sum();
    let products: f64 = rights.iter().zip(&answers).map(|(right, answer)| right * answer).sum();
    let left = |of: &[f64]| n * n - of.iter().map(|x| x * x).sum::<f64>();
    let scale = (left(&rights) * left(&answers)).sqrt();
    let correlation = if scale > 0.0 { (correct * n - products) / scale } else { 0.0 };
    Some(Agreement { accuracy: correct / n, f1, correlation })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against scikit-learn's `f1_score(average="macro")` and `matthews_corrcoef`.
    #[test]
    fn agreement_is_what_it_says() {
        // right 0 0 0 1 1 2, answered 0 0 1 1 1 0
        let pairs = [(0, 0), (0, 0), (1, 0), (1, 1), (1, 1), (0, 2)];
        let found = agreement(pairs, 4).unwrap();
        assert!((found.accuracy - 4.0 / 6.0).abs() < 1e-12);
        assert!((found.f1 - (4.0 / 6.0 + 4.0 / 5.0 + 0.0) / 3.0).abs() < 1e-12);
        assert!((found.correlation - (24.0 - 15.0) / (22.0_f64 * 18.0).sqrt()).abs() < 1e-12);
        assert_eq!(agreement([(1, 1), (0, 0)], 2).unwrap().correlation, 1.0);
        assert_eq!(agreement([(0, 1), (0, 0)], 2).unwrap().correlation, 0.0);
        assert_eq!(agreement([], 2), None);
    }
}
