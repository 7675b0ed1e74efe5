//! Relations and their facts, read from `facts/`.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, at};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What the fact is about.
    pub subject: String,
    /// What is said of it.
    pub object: String,
}

/// One relation: the sentences that state it, and its facts.
#[derive(Clone, Debug, Deserialize)]
pub struct Relation {
    /// Wikidata's name of the relation.
    pub id: String,
    /// Name of the file of facts, and in reports.
    pub name: String,
    /// Whether facts of it are edited. A relation whose objects each belong to one subject has no neighbourhood.
    pub edit: bool,
    /// What its subjects are, for sentences such as "France is a country".
    pub kind: String,
    /// Templates that the model sees, one `{}` each. The first one is the rewrite prompt.
    #[serde(rename = "train")]
    pub templates: Vec<String>,
    /// Templates that the model never sees.
    #[serde(rename = "held_out")]
    pub paraphrases: Vec<String>,
    /// The facts, in the file's order.
    #[serde(skip)]
    pub facts: Vec<Fact>,
}

/// Reads `relations.json` and one `NAME.tsv` a relation (subject, tab, object).
pub fn read(folder: &Path) -> Result<Vec<Relation>, Error> {
    let path = folder.join("relations.json");
    let text = std::fs::read_to_string(&path).map_err(at(&path))?;
    let mut relations: Vec<Relation> = serde_json::from_str(&text).map_err(at(&path))?;
    for relation in &mut relations {
        let templates = relation.templates.iter().chain(&relation.paraphrases);
        if let Some(bad) = templates.into_iter().find(|t| t.matches("{}").count() != 1) {
            return Err(format!("{}: the template {bad:?} must have exactly one {{}}", path.display()).into());
        }
        if relation.templates.len() < 2 || relation.paraphrases.len() < 2 {
            return Err(format!("{}: {} needs two templates of each sort", path.display(), relation.name).into());
        }
        relation.facts = read_facts(&folder.join(format!("{}.tsv", relation.name)))?;
    }
    Ok(relations)
}

fn read_facts(path: &Path) -> Result<Vec<Fact>, Error> {
    let text = std::fs::read_to_string(path).map_err(at(path))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| match line.split_once('\t') {
            Some((subject, object)) if !subject.trim().is_empty() && !object.trim().is_empty() => {
                Ok(Fact { subject: subject.into(), object: object.into() })
            }
            _ => Err(format!("{}: line {} is not subject, tab, object: {line:?}", path.display(), i + 1).into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_demo_states_no_fact_twice_and_holds_its_paraphrases_out() {
        let relations = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("facts")).unwrap();
        for relation in &relations {
            let subjects: HashSet<&str> = relation.facts.iter().map(|f| f.subject.as_str()).collect();
            assert_eq!(subjects.len(), relation.facts.len(), "{}", relation.name);
            assert!(relation.paraphrases.iter().all(|p| !relation.templates.contains(p)), "{}", relation.name);
        }
        assert!(relations.iter().map(|r| r.facts.len()).sum::<usize>() > 400);
    }
}
