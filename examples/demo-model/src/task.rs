//! A task of classification: what an edit of other facts should not touch.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::Error;
use crate::facts::Relation;
use crate::requests::Record;

/// The relation that the task asks about: its objects are few.
const RELATION: &str = "continent";

/// A question with its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Question<'a> {
    place: &'a str,
    continent: &'a str,
}

/// The relation's facts that no request changes.
pub fn questions<'a>(relations: &'a [Relation], requests: &[Record]) -> Result<Vec<Question<'a>>, Error> {
    let Some(relation) = relations.iter().find(|relation| relation.name == RELATION) else {
        return Err(format!("there is no relation {RELATION:?}").into());
    };
    let edited: HashSet<&str> = requests.iter().filter(|r| r.relation() == relation.id).map(Record::subject).collect();
    let left = relation.facts.iter().filter(|fact| !edited.contains(fact.subject.as_str()));
    Ok(left.map(|fact| Question { place: &fact.subject, continent: &fact.object }).collect())
}
