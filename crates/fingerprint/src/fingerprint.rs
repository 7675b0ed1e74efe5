//! The key of an action: everything that can change the result of a stage, and nothing else.
//!
//! Inputs are in it by the digest of their *contents*, not by the key that they were computed under. So a key can be computed only when
//! the stages above have their results, and a plan has to say "depends on" below a stage that will run. What it buys is the early cutoff:
//! a stage that was computed again under another key and yields the same bytes (a raised version, another seed that changes nothing, a
//! corpus with a file renamed) leaves every key below it as it was, and nothing below it runs. File names, times, comments, the order of
//! keys in YAML and parameters that change no result (`unkeyed`) are left out for the same reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, Key};
use crate::encode::{Encoder, SCHEMA};

/// All that a key covers. Kept in the manifest, so that a later plan can say what changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Version of the encoding.
    pub schema: u32,
    /// The stage kind.
    pub stage: String,
    /// The stage kind's version.
    pub version: u32,
    /// Parameters after defaults by dotted name, without the unkeyed ones.
    pub params: BTreeMap<String, Value>,
    /// Content digest of the input at each connected port.
    pub inputs: BTreeMap<String, Digest>,
    /// Content digest of each external file by logical name.
    pub files: BTreeMap<String, Digest>,
    /// What else was asked to count, such as the device under strict numerics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

impl Fingerprint {
    /// The fingerprint for parameters `params` (after defaults) of version `version` of stage kind `stage`; inputs and files are
    /// still to be added.
    pub fn new(stage: &str, version: u32, params: &Value, unkeyed: &[&str]) -> Self {
        let mut flat = BTreeMap::new();
        flatten("", params, &mut flat);
        flat.retain(|name, _| !unkeyed.contains(&name.split('.').next().unwrap_or_default()));
        Self {
            schema: SCHEMA,
            stage: stage.to_owned(),
            version,
            params: flat,
            inputs: BTreeMap::new(),
            files: BTreeMap::new(),
            environment: BTreeMap::new(),
        }
    }

    /// The key.
    pub fn key(&self) -> Key {
        let mut encoder = Encoder::new("palinode.action");
        encoder.uint(self.schema.into()).str(&self.stage).uint(self.version.into());
        encoder.map(self.params.len());
        for (name, value) in &self.params {
            encoder.str(name).value(value);
        }
        for digests in [&self.inputs, &self.files] {
            encoder.map(digests.len());
            for (name, digest) in digests {
                encoder.str(name).bytes(digest.as_bytes());
            }
        }
        encoder.map(self.environment.len());
        for (name, value) in &self.environment {
            encoder.str(name).str(value);
        }
        Key(encoder.finish())
    }

    /// Whether it is this other one, of whose files those that `leave_out` names do not count.
    pub fn equals_without(&self, other: &Self, leave_out: impl Fn(&str) -> bool) -> bool {
        let Self { schema, stage, version, params, inputs, files, environment } = self;
        (schema, version, stage) == (&other.schema, &other.version, &other.stage)
            && (params, inputs, environment) == (&other.params, &other.inputs, &other.environment)
            && files.iter().eq(other.files.iter().filter(|(name, _)| !leave_out(name)))
    }

    /// How many [`Fingerprint::changes_from`] finds.
    pub fn distance(&self, old: &Self) -> usize {
        usize::from(self.version != old.version)
            + usize::from(self.schema != old.schema)
            + differing(&old.params, &self.params)
            + differing(&old.inputs, &self.inputs)
            + differing(&old.files, &self.files)
            + differing(&old.environment, &self.environment)
    }

    /// What differs from an earlier fingerprint to this one.
    pub fn changes_from(&self, old: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.version != old.version {
            changes.push(Change::new("version", Some(old.version.to_string()), Some(self.version.to_string())));
        }
        if self.schema != old.schema {
            changes.push(Change::new("key schema", Some(old.schema.to_string()), Some(self.schema.to_string())));
        }
        compare("with", &old.params, &self.params, Value::to_string, &mut changes);
        compare("input", &old.inputs, &self.inputs, Digest::short, &mut changes);
        compare("file", &old.files, &self.files, Digest::short, &mut changes);
        compare("environment", &old.environment, &self.environment, Clone::clone, &mut changes);
        changes
    }
}

/// One difference between two fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What, such as `with.lambda`, `input.model`, `file.weights` or `version`.
    pub field: String,
    /// The earlier value, if there was one.
    pub old: Option<String>,
    /// The value now, if there is one.
    pub new: Option<String>,
}

impl Change {
    fn new(field: impl Into<String>, old: Option<String>, new: Option<String>) -> Self {
        Self { field: field.into(), old, new }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = &self.field;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => {
                let (old, new) = clip_both(old, new);
                write!(f, "{field}: {old} → {new}")
            }
            (None, Some(new)) => write!(f, "{field}: new, {}", clip(new)),
            (Some(old), None) => write!(f, "{field}: removed, was {}", clip(old)),
            (None, None) => write!(f, "{field}"),
        }
    }
}

/// Parameters by dotted name; lists stay whole, since a change reads better as a whole list.
pub fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, into);
            }
        }
        Value::Object(_) if prefix.is_empty() => {}
        value => {
            into.insert(prefix.to_owned(), value.clone());
        }
    }
}

/// What [`flatten`] made flat; `None` where a name stands for a value and for a mapping as well.
pub fn unflatten(flat: &BTreeMap<String, Value>) -> Option<Value> {
    if let Some(whole) = flat.get("") {
        return Some(whole.clone());
    }
    let mut root = Value::Object(serde_json::Map::new());
    for (name, value) in flat {
        let mut at = &mut root;
        for part in name.split('.') {
            at = at.as_object_mut()?.entry(part).or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        *at = value.clone();
    }
    Some(root)
}

fn compare<T: PartialEq>(
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    show: impl Fn(&T) -> String,
    changes: &mut Vec<Change>,
) {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        if old != new {
            changes.push(Change::new(format!("{what}.{name}"), old.map(&show), new.map(&show)));
        }
    }
}

/// Under how many names two mappings hold different values, or one holds none.
fn differing<T: PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> usize {
    let same = new.iter().filter(|(name, value)| old.get(*name) == Some(value)).count();
    let shared = new.keys().filter(|name| old.contains_key(*name)).count();
    old.len() + new.len() - shared - same
}

/// Longest value shown, in characters.
const MOST: usize = 60;

/// Long values are cut at their end, and where what differs lies behind that, at their beginning too.
fn clip_both(old: &str, new: &str) -> (String, String) {
    const BEFORE: usize = 12;
    let (short_old, short_new) = (clip(old), clip(new));
    if short_old != short_new || old == new {
        return (short_old, short_new);
    }
    let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    let tail = |text: &str| {
        let rest: String = text.chars().skip(same.saturating_sub(BEFORE)).collect();
        clip(&format!("…{rest}"))
    };
    (tail(old), tail(new))
}

/// Cut at the end where it is long.
fn clip(text: &str) -> String {
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}
