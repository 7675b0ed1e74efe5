//! Sentences without facts, so that the model also sees ordinary text.

use std::collections::BTreeMap;
use std::path::Path;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::error::{Error, at};

/// Building blocks of sentences.
#[derive(Clone, Debug, Deserialize)]
pub struct Prose {
    /// What may stand before a stated fact.
    pub openers: Vec<String>,
    /// Sentences about a subject (`{}`, of a `{kind}`) that say nothing of its facts.
    mentions: Vec<String>,
    /// Sentences about nothing in particular.
    sentences: Vec<String>,
    /// Words for the names in braces.
    slots: BTreeMap<String, Vec<String>>,
}

impl Prose {
    /// Reads `prose.json`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("prose.json");
        let text = std::fs::read_to_string(&path).map_err(at(&path))?;
        let prose: Self = serde_json::from_str(&text).map_err(at(&path))?;
        for pattern in prose.sentences.iter().chain(&prose.mentions) {
            for name in names(pattern).filter(|name| !["", "kind"].contains(name)) {
                if prose.slots.get(name).is_none_or(Vec::is_empty) {
                    return Err(format!("{}: there are no words for {{{name}}} in {pattern:?}", path.display()).into());
                }
            }
        }
        if prose.openers.is_empty() || prose.sentences.is_empty() {
            return Err(format!("{}: openers and sentences must not be empty", path.display()).into());
        }
        if prose.mentions.is_empty() || prose.mentions.iter().any(|m| m.matches("{}").count() != 1) {
            return Err(format!("{}: every mention needs exactly one {{}}", path.display()).into());
        }
        Ok(prose)
    }

    /// One of the openers.
    pub fn opener(&self, random: &mut ChaCha8Rng) -> &str {
        pick(&self.openers, random)
    }

    /// A sentence.
    pub fn sentence(&self, random: &mut ChaCha8Rng) -> String {
        self.fill(pick(&self.sentences, random), "", random)
    }

    /// A sentence about a subject: a template with `{}` in the subject's place.
    pub fn mention(&self, kind: &str, random: &mut ChaCha8Rng) -> String {
        self.fill(pick(&self.mentions, random), kind, random)
    }

    fn fill(&self, pattern: &str, kind: &str, random: &mut ChaCha8Rng) -> String {
        let mut parts = pattern.split('{');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap_or((part, ""));
            match name {
                "" => text.push_str("{}"),
                "kind" => text.push_str(kind),
                name => text.push_str(self.slots.get(name).map_or("", |words| pick(words, random))),
            }
            text.push_str(rest);
        }
        text
    }
}

/// The names in braces of a pattern.
fn names(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('{').skip(1).map(|part| part.split_once('}').map_or(part, |(name, _)| name))
}

fn pick<'a>(words: &'a [String], random: &mut ChaCha8Rng) -> &'a str {
    words.choose(random).map_or("", String::as_str)
}
