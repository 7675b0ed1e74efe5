//! Labelled examples: records of a file, as a task of classification has them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Mistakes, records};

/// A record with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What is asked: a template with the record's fields put in.
    pub prompt: String,
    /// The right answer.
    pub label: String,
}

/// Reads a file of records, one JSON array or one object a line, and puts each one's fields into `template`, where they stand
/// as `{name}`. The record's field `label` has the right answer.
///
/// # Errors
/// [`Mistakes`], each with record or line: a field that the template or the label asks for is absent, or neither a text, a
/// number nor a truth value.
pub fn read_examples(file: &Path, template: &str, label: &str) -> Result<Vec<Example>, Mistakes> {
    let hint = format!("every record has a field {label:?}, and those that stand as {{name}} in the prompt");
    records::read(file, &hint, |_, record| {
        let fields: Map<String, Value> = records::typed(record)?;
        Ok(Example { prompt: fill(template, &fields)?, label: text(&fields, label)? })
    })
}

/// The fields that a template names.
///
/// # Errors
/// A brace that opens and never closes, or a field without a name.
pub fn template_fields(template: &str) -> Result<Vec<&str>, String> {
    let mut fields = Vec::new();
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err("a `{` is never closed".to_owned());
        };
        if name.trim().is_empty() {
            return Err("`{}` names no field".to_owned());
        }
        fields.push(name.trim());
        rest = after;
    }
    Ok(fields)
}

fn fill(template: &str, fields: &Map<String, Value>) -> Result<String, records::Fault> {
    let names = template_fields(template).map_err(|message| (None, message))?;
    let mut known = BTreeMap::new();
    for name in names {
        known.insert(name, text(fields, name)?);
    }
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        filled.push_str(before);
        filled.push_str(known.get(name.trim()).map_or("", String::as_str));
        rest = after;
    }
    Ok(filled + rest)
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, records::Fault> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(value)) => Ok(value.to_string()),
        Some(_) => Err((Some(name.to_owned()), "expected a text or a number".to_owned())),
        None => Err((None, format!("missing field `{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_stand_where_they_are_named() {
        let record = json!({ "a": "one", "b": 2, "c": true, "d": [] });
        let fields = record.as_object().unwrap();
        assert_eq!(fill("{a} and {b}: {c}.", fields).unwrap(), "one and 2: true.");
        assert_eq!(fill("nothing", fields).unwrap(), "nothing");
        assert_eq!(fill("{e}", fields).unwrap_err().1, "missing field `e`");
        assert_eq!(fill("{d}", fields).unwrap_err().0.unwrap(), "d");
        assert!(template_fields("{a").is_err() && template_fields("{}").is_err());
        // What a field holds is text, whatever is in it.
        assert_eq!(fill("{a}", json!({ "a": "{b}" }).as_object().unwrap()).unwrap(), "{b}");
    }
}
