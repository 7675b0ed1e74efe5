//! What an edit asks for.

use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{DataError, Place, counterfact, jsonl};

/// A prompt about another subject that the edit should leave alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The whole prompt.
    pub prompt: String,
    /// What the model should go on saying.
    pub target: Option<String>,
}

/// One fact to be rewritten, with the prompts that judge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditRequest {
    /// Name in reports.
    pub id: String,
    /// Rewrite prompt with `{}` in the subject's place.
    pub prompt: String,
    /// The subject.
    pub subject: String,
    /// What the model shall say.
    pub target_new: String,
    /// What it said before, where the dataset knows.
    pub target_true: Option<String>,
    /// The fact in other words.
    pub paraphrases: Vec<String>,
    /// Other subjects of the same kind.
    pub neighbors: Vec<Neighbor>,
    /// Prompts of other subjects for which the new target is true.
    pub attributes: Vec<String>,
    /// Beginnings of longer texts about the subject.
    pub generation: Vec<String>,
    /// The edit's own `μ`: 0 is a hard constraint, larger is softer; the objective's where absent.
    pub strength: Option<f64>,
}

impl EditRequest {
    /// The rewrite prompt with the subject filled in.
    pub fn filled_prompt(&self) -> String {
        self.prompt.replacen("{}", &self.subject, 1)
    }

    /// What every request must have, whatever file it came from: `Err((field, message))` otherwise.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.subject.trim().is_empty() {
            return Err(("subject", "the subject is empty".into()));
        }
        match self.prompt.matches("{}").count() {
            1 => {}
            0 => {
                return Err((
                    "prompt",
                    format!(
                        "the subject is not in the prompt: {:?} has no {{}} to put {:?} into",
                        self.prompt, self.subject
                    ),
                ));
            }
            n => {
                return Err(("prompt", format!("{:?} has {n} places for the subject, expected one {{}}", self.prompt)));
            }
        }
        if self.target_new.trim().is_empty() {
            return Err(("target_new", "the new target is empty".into()));
        }
        if let Some(strength) = self.strength
            && !(strength >= 0.0 && strength.is_finite())
        {
            return Err(("strength", format!("the strength is {strength}, expected 0 or above")));
        }
        Ok(())
    }
}

/// A dataset's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// CounterFact's JSON array (also multi-CounterFact's).
    CounterFact,
    /// One JSON object a line: subject, prompt, `target_new`, and optional fields.
    Jsonl,
}

/// Which of a file's records are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Shuffle by this seed first.
    pub shuffle: Option<u64>,
    /// Skip so many.
    pub offset: usize,
    /// Take at most so many.
    pub limit: Option<usize>,
}

/// Reads a file of requests and takes a selection.
///
/// # Errors
/// [`DataError`] with record or line, field and expectation; also where the selection is empty.
pub fn read_requests(file: &Path, dataset: Dataset, selection: Selection) -> Result<Vec<EditRequest>, DataError> {
    let bytes = std::fs::read(file).map_err(|e| DataError::io(file, &e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = good.split(|b| *b == b'\n').count();
        DataError::new(file, Place::Line(line), "not UTF-8 text").hint("save the file as UTF-8")
    })?;
    let mut all = match dataset {
        Dataset::CounterFact => counterfact::parse(&text, file)?,
        Dataset::Jsonl => jsonl::parse(&text, file)?,
    };
    let found = all.len();
    if let Some(seed) = selection.shuffle {
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    let chosen: Vec<_> = all.into_iter().skip(selection.offset).take(selection.limit.unwrap_or(usize::MAX)).collect();
    if chosen.is_empty() {
        let message = match found {
            0 => "the file holds no request".to_owned(),
            _ => format!("the file holds {found} requests, and `offset` {} skips them all", selection.offset),
        };
        return Err(DataError::new(file, Place::File, message));
    }
    Ok(chosen)
}

/// Pairs of requests (by index) that ask for different targets at the same prompt.
pub fn conflicts(requests: &[EditRequest]) -> Vec<(usize, usize)> {
    let mut first = std::collections::HashMap::new();
    let mut pairs = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        match first.entry(request.filled_prompt()) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(i);
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                if requests[*entry.get()].target_new != request.target_new {
                    pairs.push((*entry.get(), i));
                }
            }
        }
    }
    pairs
}
