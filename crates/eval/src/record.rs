//! The prompts of edit requests, scored.

use palinode_data::EditRequest;
use palinode_model::{Decoder, ModelError, Text};
use serde::{Deserialize, Serialize};

use crate::{Query, Score, score};

/// One prompt: the new target beside the one that it competes with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The whole prompt.
    pub prompt: String,
    /// The edit's new target.
    pub new: Score,
    /// What was true before, or, for a neighbour, what should stay so; absent where the dataset does not say.
    pub old: Option<Score>,
}

impl Comparison {
    /// `p(new) − p(old)`.
    pub fn margin(&self) -> Option<f64> {
        self.old.as_ref().map(|old| self.new.probability() - old.probability())
    }
}

/// One request's prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordScores {
    /// The request's name.
    pub id: String,
    /// The rewrite prompt.
    pub rewrite: Vec<Comparison>,
    /// Paraphrases.
    pub paraphrase: Vec<Comparison>,
    /// Neighbourhood prompts, whose target should stay.
    pub neighborhood: Vec<Comparison>,
    /// Longer texts that the model wrote about the subject; none where none were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<String>,
}

/// Scores the prompts of requests on a model. `tokens` bounds a batch's rectangle.
///
/// # Errors
/// As [`score()`].
pub fn score_requests(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    tokens: usize,
) -> Result<Vec<RecordScores>, ModelError> {
    let query = |prompt: String, new: &str, old: Option<&str>| Query {
        prompt,
        targets: [Some(new), old].into_iter().flatten().map(str::to_owned).collect(),
    };
    let mut queries = Vec::new();
    for request in requests {
        let (new, old) = (request.target_new.as_str(), request.target_true.as_deref());
        queries.push(query(request.filled_prompt(), new, old));
        queries.extend(request.paraphrases.iter().map(|prompt| query(prompt.clone(), new, old)));
        queries.extend(request.neighbors.iter().map(|n| query(n.prompt.clone(), new, n.target.as_deref())));
    }
    let scores = score(decoder, text, &queries, tokens)?;
    let mut compared = queries.into_iter().zip(scores).map(|(query, scores)| Comparison {
        prompt: query.prompt,
        new: scores[0].clone(),
        old: scores.get(1).cloned(),
    });
    let mut take = |n: usize| compared.by_ref().take(n).collect::<Vec<_>>();
    Ok(requests
        .iter()
        .map(|request| RecordScores {
            id: request.id.clone(),
            rewrite: take(1),
            paraphrase: take(request.paraphrases.len()),
            neighborhood: take(request.neighbors.len()),
            generated: Vec::new(),
        })
        .collect())
}
