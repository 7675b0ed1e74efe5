//! The prompts of edit requests, scored.

use std::collections::BTreeMap;

use palinode_data::{EditRequest, Probe};
use palinode_model::{Decoder, ModelError, Text};
use serde::{Deserialize, Serialize};

use crate::{GeneratedAnswer, Query, Score, score};

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

/// A question with the answer that it is judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The whole prompt.
    pub prompt: String,
    /// What is answered; the first of several answers that would do, as EasyEdit has it.
    pub target: String,
    /// How likely that is.
    pub score: Score,
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
    /// Questions about what follows from the edit, by axis.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub portability: BTreeMap<String, Vec<Answer>>,
    /// Questions that have nothing to do with the edit, by axis.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub locality: BTreeMap<String, Vec<Answer>>,
    /// Longer texts that the model wrote about the subject; none where none were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<String>,
    /// Answers in the model's own words; none where none were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<GeneratedAnswer>,
    /// Their mean entropy in bits; see [`crate::entropy()`]. None where there are no texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// How alike they are to texts about the new fact, from 0 to 1; see [`crate::Tfidf`]. None where there are no such texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<f64>,
}

impl RecordScores {
    /// The scores of everything that was asked.
    pub fn scores(&self) -> impl Iterator<Item = (&str, &Score)> {
        let compared = self.rewrite.iter().chain(&self.paraphrase).chain(&self.neighborhood);
        let compared =
            compared.flat_map(|c| std::iter::once(&c.new).chain(&c.old).map(|score| (c.prompt.as_str(), score)));
        let answers = self.portability.values().chain(self.locality.values()).flatten();
        compared.chain(answers.map(|answer| (answer.prompt.as_str(), &answer.score)))
    }
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
    let mut queries = Vec::new();
    for question in requests.iter().flat_map(EditRequest::questions) {
        queries.push(Query { targets: question.continuations().collect(), prompt: question.prompt });
    }
    let scores = score(decoder, text, &queries, tokens)?;
    let mut scored = queries.into_iter().zip(scores);
    Ok(requests.iter().map(|request| record(request, &mut scored)).collect())
}

/// Takes a request's scores, in the order in which they were asked for.
fn record(request: &EditRequest, scored: &mut impl Iterator<Item = (Query, Vec<Score>)>) -> RecordScores {
    let mut take = |n: usize| -> Vec<Comparison> {
        let compared = scored.by_ref().take(n).map(|(query, mut scores)| {
            let old = (scores.len() > 1).then(|| scores.remove(1));
            Comparison { prompt: query.prompt, new: scores.remove(0), old }
        });
        compared.collect()
    };
    let (rewrite, paraphrase) = (take(1), take(request.paraphrases.len()));
    let neighborhood = take(request.neighbors.len());
    let mut answers = |probes: &BTreeMap<String, Vec<Probe>>| {
        let mut answer = |probe: &Probe| {
            let target = probe.answers.first()?.clone();
            let (query, mut scores) = scored.next()?;
            Some(Answer { prompt: query.prompt, target, score: scores.remove(0) })
        };
        let axes = probes.iter().map(|(axis, probes)| (axis.clone(), probes.iter().filter_map(&mut answer).collect()));
        axes.collect::<BTreeMap<String, Vec<Answer>>>()
    };
    let portability = answers(&request.portability);
    let locality = answers(&request.locality);
    RecordScores {
        id: request.id.clone(),
        rewrite,
        paraphrase,
        neighborhood,
        portability,
        locality,
        generated: Vec::new(),
        answers: Vec::new(),
        entropy: None,
        reference: None,
    }
}
