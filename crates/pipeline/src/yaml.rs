//! YAML text to an ordered tree and back; the only place that knows serde_yaml.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::places::{child, item};

/// A YAML value. Unlike a JSON value it keeps the order of mappings, which is the order of axes and stages.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// `null`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number.
    Number(Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A mapping with its keys as text. Of a key that stands twice the first is kept; the places know and report it.
    Map(Vec<(String, Tree)>),
    /// A number that no program can compute with, as what is wrong with it. It is reported where the file is read, and gone then.
    Unfit(&'static str),
}

/// Merges mappings: `<<: *defaults` takes what the mapping does not have itself.
const MERGE: &str = "<<";
const NOT_FINITE: &str = "is not a finite number";
const TOO_LARGE: &str = "is outside the range of whole numbers, -9223372036854775808 to 18446744073709551615";

impl Tree {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) | Self::Unfit(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// The pairs of a mapping; nothing counts as an empty one.
    pub fn pairs(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Map(pairs) => Some(pairs),
            Self::Null => Some(&[]),
            _ => None,
        }
    }

    /// Takes every number out that is none, and calls `found` with its path and what is wrong with it.
    pub fn take_unfit(&mut self, path: &str, found: &mut dyn FnMut(&str, &'static str)) {
        match self {
            Self::Unfit(wrong) => {
                found(path, wrong);
                *self = Self::Null;
            }
            Self::List(items) => {
                for (index, it) in items.iter_mut().enumerate() {
                    it.take_unfit(&item(path, index), found);
                }
            }
            Self::Map(pairs) => {
                for (key, it) in pairs {
                    it.take_unfit(&child(path, key), found);
                }
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => {}
        }
    }

    /// The value without the order.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null | Self::Unfit(_) => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(value.clone()),
            Self::Text(value) => Value::String(value.clone()),
            Self::List(items) => items.iter().map(Self::to_value).collect(),
            Self::Map(pairs) => {
                Value::Object(pairs.iter().map(|(name, value)| (name.clone(), value.to_value())).collect::<Map<_, _>>())
            }
        }
    }
}

/// Text that is not YAML.
pub struct YamlError {
    /// What is wrong.
    pub message: String,
    /// First byte of the place, where known.
    pub offset: Option<usize>,
}

/// Reads one YAML document.
pub fn parse(text: &str) -> Result<Tree, YamlError> {
    serde_yaml::from_str(text).map_err(|error| {
        let offset = error.location().map(|location| byte_of(text, location.line(), location.column()));
        let mut message = error.to_string();
        if let Some(location) = error.location() {
            let place = format!(" at line {} column {}", location.line(), location.column());
            message = message.replacen(&place, "", 1);
        }
        YamlError { message, offset }
    })
}

/// Writes a value as YAML.
pub fn write(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let line = text[start..].split('\n').next().unwrap_or_default();
    start + line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(at, _)| at)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML without tags")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Unfit(TOO_LARGE))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Unfit(TOO_LARGE))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or(Tree::Unfit(NOT_FINITE), Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        let mut merged = Vec::new();
        while let Some((key, value)) = map.next_entry::<Tree, Tree>()? {
            let key = match key {
                Tree::Text(text) => text,
                Tree::Number(number) => number.to_string(),
                Tree::Bool(value) => value.to_string(),
                Tree::Null => "null".to_owned(),
                Tree::List(_) | Tree::Map(_) | Tree::Unfit(_) => {
                    return Err(A::Error::custom("a key has to be a single word"));
                }
            };
            if key == MERGE {
                merged.push(value);
            } else if seen.insert(key.clone()) {
                pairs.push((key, value));
            }
        }
        // What the mapping has itself stays, wherever it stands; of several, the first that has a key gives it.
        for value in merged {
            let mappings = if let Tree::List(items) = value { items } else { vec![value] };
            for mapping in mappings {
                let Tree::Map(others) = mapping else {
                    return Err(A::Error::custom("`<<` takes a mapping, or a list of mappings"));
                };
                pairs.extend(others.into_iter().filter(|(key, _)| seen.insert(key.clone())));
            }
        }
        Ok(Tree::Map(pairs))
    }
}
