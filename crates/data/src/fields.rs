//! A mapping from the fields of someone's records to those of a request.
//!
//! A path leads into a record: `answer`, `entity.name`, `answers[0]`, `questions[*].text`. What it finds is read as texts: a text or a number is
//! one, a list all that it holds, `null`, `true` and an object none. Data sets that are known by name are such mappings too ([`named`]).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::records::Fault;
use crate::request::{published_template, trimmed};
use crate::{EditRequest, Neighbor, Probe, TargetPrefix};

/// The path of each field of a request in the records of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// The request's name. The default is the record's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<FieldPath>,
    /// The subject. Without one, the whole prompt stands for it: the edit is read at the prompt's last token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<FieldPath>,
    /// The prompt, with `{}` or the subject itself in the subject's place.
    pub prompt: Option<FieldPath>,
    /// What the model should say; of a list of spellings, the first.
    pub target_new: Option<FieldPath>,
    /// What it says before; of a list of spellings, the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_true: Option<FieldPath>,
    /// What the fact says of its subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation: Option<FieldPath>,
    /// The record that it belongs to: requests that have the same text here are made together, and judged together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<FieldPath>,
    /// What stands between a prompt and its target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_prefix: Option<FieldPath>,
    /// The prompt in other words: a path, or several.
    #[serde(skip_serializing_if = "Many::is_none")]
    pub paraphrases: Many<FieldPath>,
    /// Beginnings of longer texts about the subject.
    #[serde(skip_serializing_if = "Many::is_none")]
    pub generation: Many<FieldPath>,
    /// Prompts about other subjects for which the new target is true.
    #[serde(skip_serializing_if = "Many::is_none")]
    pub attributes: Many<FieldPath>,
    /// Texts about the object of the new fact.
    #[serde(skip_serializing_if = "Many::is_none")]
    pub references: Many<FieldPath>,
    /// Prompts about other subjects, and what the model should still say.
    #[serde(skip_serializing_if = "Many::is_none")]
    pub neighbors: Many<Asked>,
    /// What follows from the edit, by axis: prompts, and the answers that are right after it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub portability: BTreeMap<String, Many<Asked>>,
    /// What the edit should leave alone, by axis: prompts, and their answers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub locality: BTreeMap<String, Many<Asked>>,
}

/// Where a field comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldPath {
    /// A path into the record.
    Path(String),
    /// The same text in every record.
    Text {
        /// The text.
        text: String,
    },
}

/// One, or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Many<T> {
    /// One.
    One(T),
    /// A list.
    List(Vec<T>),
}

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<T> Many<T> {
    fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::List(list) => list,
        }
    }

    fn is_none(&self) -> bool {
        self.all().is_empty()
    }
}

/// Prompts with their answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// A list of objects in the record, each of which asks: the other paths lead into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// The prompt. Several prompts take one answer each, at the same place of a list; one text answers all of them.
    pub prompt: FieldPath,
    /// What may be answered.
    #[serde(default, alias = "target", alias = "answer", skip_serializing_if = "Option::is_none")]
    pub answers: Option<FieldPath>,
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Item(usize),
    Items,
}

/// The steps of a path.
fn steps(path: &str) -> Result<Vec<Step<'_>>, String> {
    let wrong = || format!("`{path}` is no path, expected one such as `a.b`, `a[0]` or `a[*].b`");
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, mut rest) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        if key.is_empty() {
            return Err(wrong());
        }
        steps.push(Step::Key(key));
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(wrong)?;
            steps.push(match index {
                "*" => Step::Items,
                number => Step::Item(number.parse().map_err(|_| wrong())?),
            });
            rest = after;
        }
    }
    Ok(steps)
}

/// What a path finds; a key that has dots in it, as columns of nested tables have, is found whole.
fn find<'a>(record: &'a Value, path: &str) -> Vec<&'a Value> {
    if let Some(whole) = record.get(path) {
        return vec![whole];
    }
    let mut found = vec![record];
    for step in steps(path).unwrap_or_default() {
        found = found
            .into_iter()
            .flat_map(|value| match step {
                Step::Key(key) => value.get(key).into_iter().collect::<Vec<_>>(),
                Step::Item(index) => value.get(index).into_iter().collect(),
                Step::Items => value.as_array().map(|items| items.iter().collect()).unwrap_or_default(),
            })
            .collect();
    }
    found
}

/// The texts of a value.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.trim().is_empty() => into.push(text.clone()),
        Value::Number(number) => into.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        _ => {}
    }
}

impl FieldPath {
    fn texts(&self, record: &Value) -> Vec<String> {
        match self {
            Self::Text { text } => vec![text.clone()],
            Self::Path(path) => {
                let mut found = Vec::new();
                for value in find(record, path) {
                    texts(value, &mut found);
                }
                found
            }
        }
    }

    fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            Self::Text { .. } => None,
        }
    }

    fn items(&self, record: &Value) -> Items {
        let read = |value: &Value| {
            let mut found = Vec::new();
            texts(value, &mut found);
            found
        };
        match self {
            Self::Text { text } => Items(vec![vec![text.clone()]], false),
            Self::Path(path) => match find(record, path).as_slice() {
                [Value::Array(items)] => Items(items.iter().map(read).collect(), true),
                [one] => Items(vec![read(one)], path.contains("[*]")),
                several => Items(several.iter().map(|value| read(value)).collect(), true),
            },
        }
    }

    /// The one text that this finds, if any; of `spellings` of one answer, the first.
    ///
    /// # Errors
    /// Several texts that differ: which of them is meant only the mapping can say.
    fn one(from: Option<&Self>, record: &Value, spellings: bool) -> Result<Option<String>, String> {
        let Some(from) = from else { return Ok(None) };
        let mut found = from.texts(record);
        found.dedup();
        let chosen = |path: &str| spellings && !path.contains("[*]");
        if let (Some(path), [first, second, ..]) = (from.path().filter(|path| !chosen(path)), found.as_slice()) {
            let place = if path.contains("[*]") { path.replacen("[*]", "[0]", 1) } else { format!("{path}[0]") };
            let several = format!("there are {} texts at `{path}`, {first:?} and {second:?} among them", found.len());
            return Err(format!("{several}; one is expected: `{place}` is the first of them"));
        }
        Ok(found.into_iter().next())
    }
}

impl Asked {
    /// The prompts with their answers. Of several prompts each has the answer at its own place, which may be a list of spellings; one text, and a text
    /// that is the same in every record, answers all of them.
    fn probes(&self, record: &Value) -> Result<Vec<Probe>, String> {
        let one = |within: &Value| {
            let prompts = self.prompt.items(within);
            let answers = self.answers.as_ref().map(|answers| answers.items(within)).unwrap_or_default();
            let several = prompts.len() > 1 && answers.several() && !answers.0.is_empty();
            if several && prompts.len() != answers.len() {
                return Err(format!("there are {} prompts and {} answers", prompts.len(), answers.len()));
            }
            let probe = |(at, prompt): (usize, Vec<String>)| {
                let answers = if several { answers.0[at].clone() } else { answers.0.concat() };
                prompt.into_iter().map(move |prompt| Probe { prompt, answers: answers.clone() })
            };
            Ok(prompts.0.into_iter().enumerate().flat_map(probe).collect::<Vec<_>>())
        };
        match &self.each {
            None => one(record),
            Some(_) => self.objects(record).into_iter().map(one).collect::<Result<Vec<_>, _>>().map(|all| all.concat()),
        }
    }

    /// The objects that ask.
    fn objects<'a>(&self, record: &'a Value) -> Vec<&'a Value> {
        let mut objects = Vec::new();
        for value in self.each.iter().flat_map(|each| find(record, each)) {
            self::objects(value, &mut objects);
        }
        objects
    }

    /// A path into the objects of `each` that none of them has in any of these records, where there are any.
    fn unknown<'a>(&'a self, records: &'a [Value]) -> Option<(&'a str, &'a Value)> {
        self.each.as_ref()?;
        let objects: Vec<&Value> = records.iter().flat_map(|record| self.objects(record)).collect();
        let first = *objects.first()?;
        let paths = [Some(&self.prompt), self.answers.as_ref()].into_iter().flatten().filter_map(FieldPath::path);
        let mut missing = paths.filter(|path| objects.iter().all(|object| find(object, path).is_empty()));
        missing.next().map(|path| (path, first))
    }
}

/// What a path finds, item by item: the texts of each. `true` for a list of items, whose places mean something.
#[derive(Default)]
struct Items(Vec<Vec<String>>, bool);

impl Items {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn several(&self) -> bool {
        self.1
    }
}

/// The objects in a value, however deep lists lie in each other.
fn objects<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| objects(item, into)),
        Value::Object(_) => into.push(value),
        _ => {}
    }
}

impl Fields {
    /// Every path that leads from the top of a record.
    fn paths(&self) -> Vec<&str> {
        let one = [&self.id, &self.subject, &self.prompt, &self.target_new, &self.target_true, &self.relation];
        let several = [&self.paraphrases, &self.generation, &self.attributes, &self.references];
        let froms = one
            .into_iter()
            .chain([&self.target_prefix, &self.group])
            .flatten()
            .chain(several.into_iter().flat_map(Many::all));
        let asked: Vec<&Asked> = self.asked().collect();
        let each = asked.iter().filter_map(|asked| asked.each.as_deref());
        let direct = asked.iter().filter(|asked| asked.each.is_none());
        let direct = direct.flat_map(|asked| [Some(&asked.prompt), asked.answers.as_ref()].into_iter().flatten());
        let named = froms.chain(direct).filter_map(|from| match from {
            FieldPath::Path(path) => Some(path.as_str()),
            FieldPath::Text { .. } => None,
        });
        named.chain(each).collect()
    }

    /// What is wrong with the mapping itself, without a record: the field at fault, and why.
    ///
    /// # Errors
    /// A path that is none; a field that every request needs and that is not given.
    pub fn check(&self) -> Result<(), (String, String)> {
        for (name, field) in [("prompt", &self.prompt), ("target_new", &self.target_new)] {
            if field.is_none() {
                return Err((name.to_owned(), format!("every request has a `{name}`, and nothing says where it is")));
            }
        }
        let inner = self.asked().filter(|asked| asked.each.is_some());
        let inner = inner.flat_map(|asked| [Some(&asked.prompt), asked.answers.as_ref()].into_iter().flatten());
        for path in self.paths().into_iter().chain(inner.filter_map(FieldPath::path)) {
            steps(path).map_err(|message| (String::new(), message))?;
        }
        Ok(())
    }

    /// A path that none of these records has, with what the first of them has instead.
    pub fn unknown(&self, records: &[Value]) -> Option<(String, String)> {
        let none = |path: &&str| records.iter().all(|record| find(record, path).is_empty());
        if let Some(missing) = self.paths().into_iter().find(none) {
            let first = records.first().map(list).unwrap_or_default();
            return Some((missing.to_owned(), format!("no record has `{missing}`; the first one has {first}")));
        }
        let (each, missing, first) =
            self.asked().find_map(|asked| asked.unknown(records).map(|(path, first)| (&asked.each, path, first)))?;
        let each = each.as_deref().unwrap_or_default();
        let message = format!("no object of `{each}` has `{missing}`; the first one has {}", list(first));
        Some((missing.to_owned(), message))
    }

    /// All that asks.
    fn asked(&self) -> impl Iterator<Item = &Asked> {
        let axes = self.portability.values().chain(self.locality.values());
        self.neighbors.all().iter().chain(axes.flat_map(|asked: &Many<Asked>| asked.all()))
    }

    /// The request of a record.
    pub fn request(&self, index: usize, record: &Value) -> Result<EditRequest, Fault> {
        let one = |name: &str, from: Option<&FieldPath>| {
            let spellings = matches!(name, "target_new" | "target_true");
            FieldPath::one(from, record, spellings).map_err(|message| (Some(name.to_owned()), message))
        };
        let wanted = |name: &str, from: Option<&FieldPath>| {
            one(name, from)?.ok_or_else(|| {
                let path = match from {
                    Some(FieldPath::Path(path)) => format!(": there is no text at `{path}`"),
                    _ => String::new(),
                };
                (Some(name.to_owned()), format!("the record has no {name}{path}"))
            })
        };
        let prompt = wanted("prompt", self.prompt.as_ref())?;
        let (prompt, subject) = match &self.subject {
            Some(subject) => {
                let subject = trimmed(wanted("subject", Some(subject))?);
                (published_template(prompt, &subject), subject)
            }
            None => ("{}".to_owned(), trimmed(prompt)),
        };
        let target_true = one("target_true", self.target_true.as_ref())?;
        let many = |from: &Many<FieldPath>| from.all().iter().flat_map(|from| from.texts(record)).collect::<Vec<_>>();
        let probes = |name: &str, asked: &Many<Asked>| {
            let found: Result<Vec<Vec<Probe>>, String> = asked.all().iter().map(|asked| asked.probes(record)).collect();
            found.map(|all| all.concat()).map_err(|message| (Some(name.to_owned()), message))
        };
        let axes = |of: &str, axes: &BTreeMap<String, Many<Asked>>| -> Result<BTreeMap<_, _>, Fault> {
            let mut all = BTreeMap::new();
            for (name, asked) in axes {
                let found = probes(&format!("{of}.{name}"), asked)?;
                let answered: Vec<Probe> = found.into_iter().filter(|probe| !probe.answers.is_empty()).collect();
                if !answered.is_empty() {
                    all.insert(name.clone(), answered);
                }
            }
            Ok(all)
        };
        let neighbor = |probe: Probe| Neighbor {
            prompt: probe.prompt,
            target: probe.answers.into_iter().next().or_else(|| target_true.clone()),
        };
        Ok(EditRequest {
            id: one("id", self.id.as_ref())?.unwrap_or_else(|| index.to_string()),
            prompt,
            subject,
            target_new: wanted("target_new", self.target_new.as_ref())?,
            paraphrases: many(&self.paraphrases),
            neighbors: probes("neighbors", &self.neighbors)?.into_iter().map(neighbor).collect(),
            attributes: many(&self.attributes),
            generation: many(&self.generation),
            references: many(&self.references),
            portability: axes("portability", &self.portability)?,
            locality: axes("locality", &self.locality)?,
            relation: one("relation", self.relation.as_ref())?,
            group: one("group", self.group.as_ref())?,
            target_prefix: one("target_prefix", self.target_prefix.as_ref())?
                .map_or(TargetPrefix::Blank, TargetPrefix::Given),
            target_true,
            ..EditRequest::default()
        })
    }
}

/// The paths to all that is no mapping in a record; of a list, the first item.
fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, into);
            }
        }
        Value::Array(items) if items.first().is_some_and(|item| item.is_object() || item.is_array()) => {
            leaves(&items[0], &format!("{path}[*]"), into);
        }
        _ if path.is_empty() => {}
        _ => {
            into.insert(path.to_owned());
        }
    }
}

/// The paths of a record, as a message lists them.
fn list(record: &Value) -> String {
    let mut there = BTreeSet::new();
    leaves(record, "", &mut there);
    let mut list: Vec<String> = there.iter().take(SHOWN).map(|path| format!("`{path}`")).collect();
    if there.len() > SHOWN {
        list.push(format!("and {} more", there.len() - SHOWN));
    }
    list.join(", ")
}

/// How many paths of a record are listed.
const SHOWN: usize = 40;

/// The mapping of a data set that is known by name.
pub fn named(text: &str) -> Fields {
    serde_json::from_str(text).expect("our own mappings are whole")
}

/// WikiBigEdit (Thede et al., arXiv 2503.05683): questions about changes of Wikidata.
pub const WIKIBIGEDIT: &str = r#"{
    "subject": "subject", "prompt": "update", "target_new": "ans", "paraphrases": "rephrase",
    "neighbors": { "prompt": "loc", "answers": "loc_ans" },
    "portability": { "personas": { "prompt": "personas", "answers": "ans" }, "mhop": { "prompt": "mhop", "answers": "mhop_ans" } } }"#;

/// UnKE (Deng et al., arXiv 2405.15349): long answers without a subject.
pub const UNKE: &str = r#"{
    "id": "id", "prompt": "question", "target_new": "answer", "paraphrases": "para_question",
    "portability": { "sub_question": { "prompt": "sub_question", "answers": "sub_answer" } } }"#;

/// AKEW (Wu et al., arXiv 2402.18909): unstructured facts beside CounterFact's.
pub const AKEW: &str = r#"{
    "id": "case_id", "prompt": "requested_rewrite.question", "target_new": "requested_rewrite.fact_new_uns" }"#;

/// HalluEditBench (Huang et al., arXiv 2410.16251): questions by kind, a CSV file for each topic.
pub const HALLUEDIT: &str = r#"{
    "subject": "subject", "prompt": "question", "target_new": "object", "relation": "relation", "paraphrases": "paraphrased_question",
    "locality": { "locality": { "prompt": "locality_question", "answers": "object" } },
    "portability": {
        "2hop": { "prompt": "question_2hop", "answers": "answer_2hop" }, "3hop": { "prompt": "question_3hop", "answers": "answer_3hop" },
        "4hop": { "prompt": "question_4hop", "answers": "answer_4hop" }, "5hop": { "prompt": "question_5hop", "answers": "answer_5hop" },
        "6hop": { "prompt": "question_6hop", "answers": "answer_6hop" },
        "reversed": { "prompt": "reversed_relation_question", "answers": "subject" },
        "yes": { "prompt": "yes_question", "answers": { "text": "Yes" } }, "no": { "prompt": "no_question", "answers": { "text": "No" } } } }"#;

/// EasyEdit's WikiData and QAEdit files: prompts and answers in lists by kind.
pub const EASYEDIT_QA: &str = r#"{
    "subject": "subject", "prompt": "prompt", "target_new": "target_new", "target_true": "ground_truth", "paraphrases": "rephrase",
    "portability": {
        "reasoning": { "each": "portability_r", "prompt": "prompt", "answers": "ground_truth" },
        "aliasing": { "each": "portability_s", "prompt": "prompt", "answers": "ground_truth" },
        "generalization": { "each": "portability_l", "prompt": "prompt", "answers": "ground_truth" } },
    "locality": {
        "relation_specificity": { "each": "locality_rs", "prompt": "prompt", "answers": "ground_truth" },
        "forgetfulness": { "each": "locality_f", "prompt": "prompt", "answers": "ground_truth" } } }"#;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_into_records() {
        let record =
            json!({ "a": { "b": ["x", ["y", null, 3]] }, "c": [{ "d": "1" }, { "d": "2" }, {}], "e.f": "whole" });
        let read = |path: &str| FieldPath::Path(path.to_owned()).texts(&record);
        assert_eq!(read("a.b"), ["x", "y", "3"]);
        assert_eq!(read("a.b[1][0]"), ["y"]);
        assert_eq!(read("c[*].d"), ["1", "2"]);
        assert_eq!(read("e.f"), ["whole"]);
        let one = |path: &str, spellings| FieldPath::one(Some(&FieldPath::Path(path.to_owned())), &record, spellings);
        assert_eq!(one("e.f", false), Ok(Some("whole".to_owned())));
        assert_eq!(one("a.b", true), Ok(Some("x".to_owned())));
        assert!(one("a.b", false).unwrap_err().contains("3 texts at `a.b`"));
        assert!(one("c[*].d", true).unwrap_err().ends_with("`c[0].d` is the first of them"));
        assert!(read("a.x").is_empty() && read("c[9].d").is_empty());
        for none in ["", "a.", "a[x]", "a[1", ".a"] {
            assert!(steps(none).is_err(), "{none}");
        }
        let mut there = BTreeSet::new();
        leaves(&record, "", &mut there);
        assert_eq!(there.into_iter().collect::<Vec<_>>(), ["a.b", "c[*].d", "e.f"]);
    }

    #[test]
    fn our_own_mappings_are_whole() {
        for text in [WIKIBIGEDIT, UNKE, AKEW, HALLUEDIT, EASYEDIT_QA] {
            named(text).check().unwrap();
        }
    }
}
