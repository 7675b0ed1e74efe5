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

/// A question with answers of its own to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is asked: a template with the record's fields put in.
    pub prompt: String,
    /// The answers.
    pub choices: Vec<String>,
    /// The place of the right one.
    pub right: usize,
}

/// As [`read_examples`], of records that have a list of answers each, in the field `choices` (`choices.text` is the field `text` inside
/// it), and in the field `label` the right one: its number from 0, its letter, its name in a list `label` beside `choices.text`, or itself.
/// In the template, `{options}` stands for the answers, a line each behind its letter, and `{name[0]}` for the first of a list.
///
/// # Errors
/// As [`read_examples`]; also a record with fewer than two answers, or without a right one.
pub fn read_choices(file: &Path, template: &str, choices: &str, label: &str) -> Result<Vec<Choice>, Mistakes> {
    let hint = format!(
        "every record has a list of answers {choices:?}, the right one's number, letter or text in {label:?}, and the fields that stand as \
         {{name}} in the prompt"
    );
    records::read(file, &hint, |_, record| {
        let fields: Map<String, Value> = records::typed(record)?;
        let list = at(&fields, choices)?;
        let list =
            list.as_array().ok_or_else(|| (Some(choices.to_owned()), "expected a list of answers".to_owned()))?;
        let answers = list.iter().map(|answer| plain(answer, choices)).collect::<Result<Vec<String>, _>>()?;
        if answers.len() < 2 || answers.len() > LETTERS.len() {
            let message = format!("there are {} answers, expected 2 to {}", answers.len(), LETTERS.len());
            return Err((Some(choices.to_owned()), message));
        }
        let names = choices.rsplit_once('.').and_then(|(of, _)| at(&fields, &format!("{of}.label")).ok());
        let said = plain(at(&fields, label)?, label)?;
        let right = right(&answers, names, said.trim()).ok_or_else(|| {
            let message = format!("{said:?} is none of the {} answers", answers.len());
            (Some(label.to_owned()), message)
        })?;
        let options: Vec<String> =
            LETTERS.chars().zip(&answers).map(|(letter, answer)| format!("{letter}. {}", answer.trim())).collect();
        let prompt = fill(&template.replace("{options}", &options.join("\n")), &fields)?;
        Ok(Choice { prompt, choices: answers, right })
    })
}

/// The letters of answers.
pub const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The place of the right answer, as a record says it.
fn right(answers: &[String], names: Option<&Value>, said: &str) -> Option<usize> {
    let names = names.and_then(Value::as_array).into_iter().flatten();
    let named = names.map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned));
    let named = named.collect::<Vec<_>>().iter().position(|name| name == said);
    let number = || said.parse::<usize>().ok();
    let letter = || {
        let mut chars = said.chars();
        let letter = chars.next().filter(|_| chars.next().is_none())?;
        LETTERS.find(letter.to_ascii_uppercase())
    };
    let own = || answers.iter().position(|answer| answer.trim() == said);
    named.or_else(number).or_else(letter).or_else(own).filter(|&right| right < answers.len())
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
    plain(at(fields, name)?, name)
}

/// A field, or by a path what lies within one: `a.b`, `a[0]`.
fn at<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a Value, records::Fault> {
    if let Some(value) = fields.get(name) {
        return Ok(value);
    }
    let steps = name.replace('[', ".").replace(']', "");
    let mut steps = steps.split('.');
    let first = steps.next().and_then(|step| fields.get(step));
    let within = |value: &'a Value, step: &str| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    };
    let found = steps.fold(first, |value, step| within(value?, step));
    found.ok_or_else(|| (None, format!("missing field `{name}`")))
}

fn plain(value: &Value, name: &str) -> Result<String, records::Fault> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => Err((Some(name.to_owned()), "expected a text or a number".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn right_answers_are_known_by_number_letter_name_and_text() {
        let answers = ["Oslo", "Rome", "1"].map(str::to_owned);
        let names = json!(["x", "y", "z"]);
        let of = |said: &str| right(&answers, None, said);
        assert_eq!(
            [of("1"), of("C"), of("b"), of("Rome"), of("3"), of("Paris")],
            [Some(1), Some(2), Some(1), Some(1), None, None]
        );
        assert_eq!(right(&answers, Some(&names), "z"), Some(2));
        let record = json!({ "a": { "text": ["one", "two"] } });
        assert_eq!(fill("{a.text[1]}", record.as_object().unwrap()).unwrap(), "two");
    }

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
