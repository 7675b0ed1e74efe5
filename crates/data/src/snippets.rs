//! Texts about the objects of facts: CounterFact's `attribute_snippets.json`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::Deserializer;

use crate::{DataError, EditRequest, Place, stream};

/// The published file has some 100 MiB: 1 GiB.
const LARGEST: u64 = 1 << 30;

#[derive(Deserialize)]
struct Group {
    relation_id: String,
    target_id: String,
    samples: Vec<Snippet>,
}

#[derive(Deserialize)]
struct Snippet {
    text: String,
    #[serde(default)]
    name: Option<String>,
}

/// The snippets of some subjects, which have the subject's name, in the order of the file: what the published code measures a subject's
/// essence on.
///
/// # Errors
/// As [`add_snippets`].
pub fn snippets_named(file: &Path, names: &BTreeSet<String>) -> Result<HashMap<String, Vec<String>>, DataError> {
    let text = stream::read_text(file, LARGEST)?;
    Deserializer::from_str(&text).deserialize_seq(Named(names)).map_err(|error| wrong(file, &error))
}

fn wrong(file: &Path, error: &serde_json::Error) -> DataError {
    DataError::new(file, Place::Line(error.line().max(1)), error.to_string()).hint(
        "a file of snippets is one JSON array of objects with relation_id, target_id and samples, each with its text",
    )
}

/// Gives each request, as its references, the snippets about its relation and its new target; returns how many have some.
///
/// # Errors
/// The file cannot be read, or is not a JSON array of objects with `relation_id`, `target_id` and `samples` of `text`.
pub fn add_snippets(file: &Path, requests: &mut [EditRequest]) -> Result<usize, DataError> {
    let wanted: HashSet<(String, String)> = requests.iter().filter_map(|request| request.fact.clone()).collect();
    let text = stream::read_text(file, LARGEST)?;
    let found = Deserializer::from_str(&text).deserialize_seq(Wanted(&wanted)).map_err(|error| wrong(file, &error))?;
    let mut with = 0;
    for request in requests {
        if let Some(texts) = request.fact.as_ref().and_then(|fact| found.get(fact)) {
            request.references.clone_from(texts);
            with += 1;
        }
    }
    Ok(with)
}

/// Reads an array and keeps what is wanted of it.
struct Wanted<'a>(&'a HashSet<(String, String)>);

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = HashMap<(String, String), Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of groups of snippets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut groups: A) -> Result<Self::Value, A::Error> {
        let mut found = Self::Value::new();
        while let Some(group) = groups.next_element::<Group>()? {
            let fact = (group.relation_id, group.target_id);
            if self.0.contains(&fact) {
                found.entry(fact).or_default().extend(group.samples.into_iter().map(|snippet| snippet.text));
            }
        }
        Ok(found)
    }
}

/// Reads an array and keeps the snippets with these names.
struct Named<'a>(&'a BTreeSet<String>);

impl<'de> Visitor<'de> for Named<'_> {
    type Value = HashMap<String, Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of groups of snippets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut groups: A) -> Result<Self::Value, A::Error> {
        let mut found = Self::Value::new();
        while let Some(group) = groups.next_element::<Group>()? {
            for Snippet { text, name } in group.samples {
                if let Some(name) = name.filter(|name| self.0.contains(name)) {
                    found.entry(name).or_default().push(text);
                }
            }
        }
        Ok(found)
    }
}
