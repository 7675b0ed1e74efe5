//! Parameters that differ, of stages that stand beside each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::side::{Side, bare};

/// Which stages of both sides stand beside each other.
pub struct Beside {
    /// Pairs of names.
    pub pairs: Vec<(String, String)>,
    /// Why the two that were named are not compared, where they are not.
    pub unlike: Option<String>,
}

impl Beside {
    /// Stages of one name stand beside each other. Of two stages that were named, those of other names do as well where they are of one kind: the two
    /// themselves, and then what they take in at the same ports.
    pub fn of(a: &Side, b: &Side) -> Self {
        let same = |name: &&String| b.stages.contains_key(*name);
        let mut pairs: Vec<(String, String)> =
            a.stages.keys().filter(same).map(|name| (name.clone(), name.clone())).collect();
        let (Some(first), Some(second)) = (&a.root, &b.root) else { return Self { pairs, unlike: None } };
        let mut unlike = None;
        let mut next = vec![(first.clone(), second.clone())];
        let mut seen = BTreeSet::new();
        while let Some((x, y)) = next.pop() {
            let (Some(own), Some(other)) = (a.stages.get(&x), b.stages.get(&y)) else { continue };
            if !seen.insert((x.clone(), y.clone())) {
                continue;
            }
            if own.uses != other.uses {
                if x == *first && y == *second {
                    let message = format!(
                        "`{x}` is of the kind `{}`, and `{y}` of the kind `{}`: what they measured is not compared",
                        own.uses, other.uses
                    );
                    unlike = Some(message);
                }
                continue;
            }
            let taken = pairs.iter().any(|(known, with)| *known == x || *with == y);
            if !taken {
                pairs.push((x.clone(), y.clone()));
            }
            for (port, from) in &own.inputs {
                next.extend(other.inputs.get(port).map(|with| (from.clone(), with.clone())));
            }
        }
        pairs.sort_unstable();
        Self { pairs, unlike }
    }

    /// The names of one side that stand beside one of the other.
    pub fn names(&self, second: bool) -> BTreeSet<&str> {
        self.pairs.iter().map(|(a, b)| if second { b.as_str() } else { a.as_str() }).collect()
    }

    /// "scores with other", of stages that have other names on both sides.
    pub fn renamed(&self) -> Vec<String> {
        let renamed = self.pairs.iter().filter(|(a, b)| a != b);
        renamed.map(|(a, b)| format!("{a} with {b}")).collect()
    }
}

/// What two stages that are compared are called.
pub fn both(a: &str, b: &str) -> String {
    if a == b { a.to_owned() } else { format!("{a} / {b}") }
}

/// A parameter that differs.
#[derive(Serialize)]
pub struct Parameter {
    /// The stage; both names where they differ.
    pub stage: String,
    /// In how many cells it differs in this way.
    pub cells: usize,
    /// Its name.
    pub name: String,
    /// Its value on the first side.
    pub a: Option<Value>,
    /// Its value on the second side.
    pub b: Option<Value>,
}

/// The parameters that differ.
pub fn parameters(a: &Side, b: &Side, beside: &Beside) -> Vec<Parameter> {
    fn of<'a>(side: &'a Side, stage: &str) -> BTreeMap<&'a str, &'a Value> {
        // What was left out and what the stage does not have in this form are the same to a reader.
        let own = side.params.range((stage.to_owned(), String::new())..).take_while(|((known, _), _)| known == stage);
        own.filter(|(_, value)| !value.is_null()).map(|((_, name), value)| (name.as_str(), value)).collect()
    }
    let mut found: Vec<Parameter> = Vec::new();
    for (x, y) in &beside.pairs {
        let (old, new) = (of(a, x), of(b, y));
        let stage = both(bare(x), bare(y));
        for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let (old, new) = (old.get(name).copied().cloned(), new.get(name).copied().cloned());
            if old == new {
                continue;
            }
            let like = |known: &&mut Parameter| {
                known.stage == stage && known.name == *name && known.a == old && known.b == new
            };
            match found.iter_mut().find(like) {
                Some(known) => known.cells += 1,
                None => {
                    found.push(Parameter { stage: stage.clone(), cells: 1, name: (*name).to_owned(), a: old, b: new });
                }
            }
        }
    }
    found
}
