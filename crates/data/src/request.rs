//! What an edit asks for.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::continuation::{TargetPrefix, usual_prefix};
use crate::script::{self, unspaced};

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
    /// What the fact says of its subject: of two facts with one subject and one relation, only one can be true. Stored only where it was
    /// given, or where requests contradict each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// What stands between a prompt and a target. Left out where it is a space everywhere.
    #[serde(default, skip_serializing_if = "TargetPrefix::is_blank")]
    pub target_prefix: TargetPrefix,
    /// The record that it belongs to, where a record has several edits: they are made together, and judged together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Contexts of its own, with `{}` in the prompt's place, instead of those that all requests are written in; the first is `{}`, and all
    /// weigh alike. None for those of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<String>,
    /// Prompts with `{}` in the subject's place where the model should not drift; none for "{} is a".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kl_prompts: Vec<String>,
    /// The edit's own `μ`: 0 is a hard constraint, larger is softer; the objective's where absent.
    pub strength: Option<f64>,
}

impl EditRequest {
    /// The rewrite prompt with the subject filled in.
    pub fn filled_prompt(&self) -> String {
        self.prompt.replacen("{}", &self.subject, 1)
    }

    /// The text that follows `prompt`, one of this request's, when it is continued with `target`.
    pub fn continuation(&self, prompt: &str, target: &str) -> String {
        self.target_prefix.continuation(prompt, target)
    }

    /// Every prompt that is scored, the rewrite prompt first, with its name and with the targets that may follow it.
    pub fn questions(&self) -> Vec<Question<'_>> {
        let new = Some(self.target_new.as_str());
        let question = |at: String, prompt: &str, targets: [Option<&'_ str>; 2]| Question {
            at,
            prompt: prompt.to_owned(),
            targets: targets.into_iter().flatten().map(str::to_owned).collect(),
            request: self,
        };
        let true_one = self.target_true.as_deref();
        let mut all = vec![question("prompt".into(), &self.filled_prompt(), [new, true_one])];
        let paraphrases = self.paraphrases.iter().enumerate();
        all.extend(paraphrases.map(|(i, prompt)| question(format!("paraphrases[{i}]"), prompt, [new, true_one])));
        let neighbors = self.neighbors.iter().enumerate();
        all.extend(neighbors.map(|(i, n)| question(format!("neighbors[{i}]"), &n.prompt, [new, n.target.as_deref()])));
        for (kind, axes) in [("portability", &self.portability), ("locality", &self.locality)] {
            for (axis, probes) in axes {
                all.extend(probes.iter().enumerate().filter_map(|(i, probe)| {
                    let answer = probe.answers.first()?;
                    Some(question(format!("{kind}.{axis}[{i}]"), &probe.prompt, [Some(answer), None]))
                }));
            }
        }
        all
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
        for (field, texts) in [("contexts", &self.contexts), ("kl_prompts", &self.kl_prompts)] {
            if let Some(text) = texts.iter().find(|text| text.matches("{}").count() != 1) {
                return Err((field, format!("{text:?} has {} places, expected one {{}}", text.matches("{}").count())));
            }
        }
        if self.contexts.first().is_some_and(|first| first != "{}") {
            return Err(("contexts", "the first context must be \"{}\", the bare prompt".to_owned()));
        }
        if let Some(strength) = self.strength
            && !(strength >= 0.0 && strength.is_finite())
        {
            return Err(("strength", format!("the strength is {strength}, expected 0 or above")));
        }
        Ok(())
    }
}

/// A prompt that is scored.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The field of the request that it stands in, such as `paraphrases[2]`.
    pub at: String,
    /// The whole prompt.
    pub prompt: String,
    /// What may follow it: the new target or the answer first.
    pub targets: Vec<String>,
    request: &'a EditRequest,
}

impl Question<'_> {
    /// The texts that follow the prompt, one for each target.
    pub fn continuations(&self) -> impl Iterator<Item = String> {
        self.targets.iter().map(|target| self.request.continuation(&self.prompt, target))
    }
}

/// A subject without the white space around it: its last token is the last of its name.
pub fn trimmed(subject: String) -> String {
    let bare = subject.trim();
    if bare.len() == subject.len() { subject } else { bare.to_owned() }
}

/// A prompt with `{}` in the subject's place: as it is where it has one, else its only mention as a word of its own is taken out. A prompt
/// without a mention is given back as it is.
///
/// # Errors
/// The subject stands there only within other words, or several times.
pub fn template(prompt: String, subject: &str) -> Result<String, String> {
    if subject.is_empty() || prompt.contains("{}") {
        return Ok(prompt);
    }
    let with = |at: usize| format!("{}{{}}{}", &prompt[..at], &prompt[at + subject.len()..]);
    match script::words(&prompt, subject)[..] {
        [at] => Ok(with(at)),
        [] => match prompt.find(subject) {
            None => Ok(prompt),
            Some(at) => Err(format!(
                "{subject:?} stands in {prompt:?} only within another word: write the place as {{}}, as in {:?}",
                with(at)
            )),
        },
        ref several => {
            let choices: Vec<String> = several.iter().map(|&at| format!("{:?}", with(at))).collect();
            Err(format!(
                "{subject:?} stands in the prompt {} times: choose the place by {{}}, as {}",
                several.len(),
                choices.join(" or ")
            ))
        }
    }
}

/// As [`template`], for data sets that others made and that nobody edits by hand: the first mention as a word, or else the first mention.
/// (The authors' code takes out every mention, and then cannot fill in two.)
pub fn published_template(prompt: String, subject: &str) -> String {
    if subject.is_empty() || prompt.contains("{}") {
        return prompt;
    }
    match script::words(&prompt, subject).first().copied().or_else(|| prompt.find(subject)) {
        Some(at) => format!("{}{{}}{}", &prompt[..at], &prompt[at + subject.len()..]),
        None => prompt,
    }
}

/// Decides what only shows in a whole list of requests, or in all prompts of one: where the targets' prefix is not a space everywhere, and
/// which requests contradict each other.
pub fn settle(requests: &mut [EditRequest]) {
    for request in requests.iter_mut().filter(|request| request.target_prefix.is_blank()) {
        let spaced = |question: &Question<'_>| {
            question
                .targets
                .iter()
                .all(|target| usual_prefix(&question.prompt, target) == if target.starts_with(' ') { "" } else { " " })
        };
        // A letter may be several tokens there: such targets are joined to their prompts in another way than others.
        let plain = !request.target_new.chars().any(|char| char >= '\u{2e80}' || unspaced(char));
        if !(plain && request.questions().iter().all(spaced)) {
            request.target_prefix = TargetPrefix::Usual;
        }
    }
    let mut groups: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for (i, request) in requests.iter().enumerate() {
        groups.entry(about(request)).or_default().push(i);
    }
    for ((_, relation), members) in groups {
        let first = requests[members[0]].target_new.trim().to_owned();
        if members.iter().any(|&i| requests[i].target_new.trim() != first) {
            for i in members {
                requests[i].relation = Some(relation.clone());
            }
        }
    }
}

/// What a request is about: its subject, and what it says of it.
fn about(request: &EditRequest) -> (String, String) {
    let relation = request.relation.as_ref().or(request.fact.as_ref().map(|(relation, _)| relation));
    match relation {
        Some(relation) => (request.subject.clone(), relation.clone()),
        None => (request.subject.clone(), request.prompt.clone()),
    }
}

/// For each request, the later one that says something else of the same subject and relation, or at the same prompt: the last such.
pub fn superseded(requests: &[EditRequest]) -> Vec<Option<usize>> {
    let mut latest: HashMap<(String, String), usize> = HashMap::new();
    let mut by = vec![None; requests.len()];
    for (i, request) in requests.iter().enumerate().rev() {
        let winner =
            [about(request), (String::new(), request.filled_prompt())].map(|key| *latest.entry(key).or_insert(i));
        let other = |&j: &usize| requests[j].target_new.trim() != request.target_new.trim();
        by[i] = winner.into_iter().filter(other).max();
    }
    by
}

/// Pairs of requests (by index) that ask for different targets at the same prompt.
pub fn conflicts(requests: &[EditRequest]) -> Vec<(usize, usize)> {
    let mut first = HashMap::new();
    let mut pairs = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let earlier = *first.entry(request.filled_prompt()).or_insert(i);
        if requests[earlier].target_new.trim() != request.target_new.trim() {
            pairs.push((earlier, i));
        }
    }
    pairs
}
