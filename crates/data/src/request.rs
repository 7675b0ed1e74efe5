//! What an edit asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A prompt about another subject that the edit should leave alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The whole prompt.
    pub prompt: String,
    /// What the model should still say.
    pub target: Option<String>,
}

/// A question beside the edited fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The whole prompt.
    pub prompt: String,
    /// What may be answered; any of them is right, and EasyEdit compares with the first.
    pub answers: Vec<String>,
}

/// One fact to be rewritten, with the prompts that judge it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EditRequest {
    /// Name in reports.
    pub id: String,
    /// Rewrite prompt with `{}` in the subject's place.
    pub prompt: String,
    /// The subject.
    pub subject: String,
    /// What the model should say.
    pub target_new: String,
    /// What it said before, where the dataset knows.
    pub target_true: Option<String>,
    /// The fact in other words.
    pub paraphrases: Vec<String>,
    /// Other subjects of the same kind; in zsRE and EasyEdit's flat form the one question that has nothing to do with the edit.
    pub neighbors: Vec<Neighbor>,
    /// CounterFact's attribute prompts: other subjects for which the new target is true.
    pub attributes: Vec<String>,
    /// CounterFact's generation prompts: beginnings of longer texts about the subject.
    pub generation: Vec<String>,
    /// What follows from the edit, by axis (KnowEdit: `Reasoning`, `Subject_Aliasing`, `Logical_Generalization`): an edited
    /// model should give these answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub portability: BTreeMap<String, Vec<Probe>>,
    /// What the edit should leave alone, by axis (KnowEdit: `Relation_Specificity`, `Forgetfulness`): an edited model should
    /// answer as it did before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub locality: BTreeMap<String, Vec<Probe>>,
    /// Texts that tell the new fact of its object, as an encyclopedia would: what generated texts are compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// CounterFact's names of the relation and of the new target, by which snippets are found.
    #[serde(skip)]
    pub fact: Option<(String, String)>,
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

/// A prompt with `{}` in the subject's place: as it is where it has one, else the first mention of the subject is taken out.
/// (The authors' code takes out every mention, and then cannot fill in two.)
pub fn template(prompt: String, subject: &str) -> String {
    if subject.is_empty() || prompt.contains("{}") { prompt } else { prompt.replacen(subject, "{}", 1) }
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
