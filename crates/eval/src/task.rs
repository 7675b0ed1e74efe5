//! A task of classification: questions of one form, after a few examples.

use std::collections::BTreeMap;

use palinode_data::Example;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::Question;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Task {
    /// What there is to answer.
    pub labels: Vec<String>,
    /// The questions, examples included; their choices are in the order of the labels.
    pub questions: Vec<Question>,
    /// Each question's own prompt, without the examples.
    pub asked: Vec<String>,
    /// The place of each question's right answer among the labels.
    pub right: Vec<usize>,
}

impl Task {
    /// Draws `shots` examples of each answer, which stand before every question with blank lines between, and asks at most
    /// `limit` of the others. `words` has what stands for each answer; where it is empty, answers stand for themselves.
    ///
    /// # Errors
    /// Why no question can be made: an answer without a word, fewer than two answers, too few examples, or none left to ask.
    pub fn new(
        mut examples: Vec<Example>,
        words: &BTreeMap<String, String>,
        shots: usize,
        limit: Option<usize>,
        seed: u64,
    ) -> Result<Self, String> {
        let mut labels: Vec<String> = examples.iter().map(|example| example.label.clone()).collect();
        labels.sort_unstable();
        labels.dedup();
        if !words.is_empty() {
            if let Some(strange) = labels.iter().find(|label| !words.contains_key(*label)) {
                let known: Vec<&str> = words.keys().map(String::as_str).collect();
                return Err(format!(
                    "the file has the answer {strange:?}, and there are words for {}",
                    known.join(", ")
                ));
            }
            labels = words.keys().cloned().collect();
        }
        if labels.len() < 2 {
            return Err("all records of the task have the same answer".to_owned());
        }
        let word = |label: &String| words.get(label).unwrap_or(label).clone();
        let place = |label: &String| labels.iter().position(|known| known == label).unwrap_or(0);
        examples.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut shown: Vec<Vec<Example>> = vec![Vec::new(); labels.len()];
        let mut asked = Vec::new();
        for example in examples {
            let of = &mut shown[place(&example.label)];
            if of.len() < shots { of.push(example) } else { asked.push(example) }
        }
        if let Some(few) = (0..labels.len()).find(|&at| shown[at].len() < shots) {
            let count = shown[few].len();
            return Err(format!(
                "there are {count} records with the answer {:?}, fewer than {shots} shots",
                labels[few]
            ));
        }
        asked.truncate(limit.unwrap_or(usize::MAX));
        if asked.is_empty() {
            return Err("all records are examples, and none is left to ask".to_owned());
        }
        // In turn, so that none of the answers stands last more often than it must.
        let shown = (0..shots).flat_map(|shot| shown.iter().map(move |of| &of[shot]));
        let opening: String =
            shown.map(|example| format!("{} {}\n\n", example.prompt, word(&example.label).trim())).collect();
        let choices: Vec<String> = labels.iter().map(word).collect();
        let question =
            |example: &Example| Question { prompt: format!("{opening}{}", example.prompt), choices: choices.clone() };
        Ok(Self {
            questions: asked.iter().map(question).collect(),
            right: asked.iter().map(|example| place(&example.label)).collect(),
            asked: asked.into_iter().map(|example| example.prompt).collect(),
            labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        (0..8)
            .map(|i| Example { prompt: format!("{i} is"), label: if i % 2 == 0 { "0" } else { "1" }.into() })
            .collect()
    }

    #[test]
    fn examples_stand_before_every_question_and_are_not_asked() {
        let words = BTreeMap::from([("0".to_owned(), "even".to_owned()), ("1".to_owned(), "odd".to_owned())]);
        let task = Task::new(examples(), &words, 2, Some(3), 1).unwrap();
        assert_eq!((task.questions.len(), task.labels.len()), (3, 2));
        for (question, asked) in task.questions.iter().zip(&task.asked) {
            let parts: Vec<&str> = question.prompt.split("\n\n").collect();
            assert_eq!(parts.len(), 5);
            assert_eq!(parts[4], asked);
            assert!(parts[..4].iter().all(|part| !part.starts_with(&asked[..1])), "{parts:?}");
            assert_eq!(parts.iter().filter(|part| part.ends_with(" even")).count(), 2);
            assert_eq!(question.choices, ["even", "odd"]);
        }
        let right = |i: usize| task.asked[i].starts_with(['0', '2', '4', '6']);
        assert!((0..3).all(|i| (task.right[i] == 0) == right(i)));
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let none = BTreeMap::new();
        assert!(Task::new(examples(), &none, 5, None, 1).unwrap_err().contains("fewer than 5 shots"));
        assert!(Task::new(examples(), &none, 4, None, 1).unwrap_err().contains("none is left"));
        assert!(Task::new(examples()[..1].to_vec(), &none, 0, None, 1).unwrap_err().contains("same answer"));
        let words = BTreeMap::from([("0".to_owned(), "even".to_owned()), ("2".to_owned(), "odd".to_owned())]);
        assert!(Task::new(examples(), &words, 0, None, 1).unwrap_err().contains("\"1\""));
    }
}
