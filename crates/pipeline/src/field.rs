//! Reads typed parameters from a value and finds as many mistakes as it can, each with its field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::bounds::OUT_OF_RANGE;
use palinode_error::{FieldError, Hint};
use palinode_error::{did_you_mean, nearest, one_of};

/// Reads `with` as `T`.
///
/// Serde stops at the first mistake. To report all of them, the field at fault is taken out and the rest read again; a
/// field so taken out is not reported as missing. A field without a value (`null`) is one that is not given, unless its type has a meaning for
/// that.
pub fn read<T: DeserializeOwned>(with: Value, stage: &str, fields: Option<&[&str]>) -> Result<T, Vec<FieldError>> {
    let mut with = if with.is_null() { Value::Object(Map::new()) } else { with };
    let mut errors = Vec::new();
    let mut removed: Vec<String> = Vec::new();
    // Fields without a value, with what was expected there.
    let mut empty: Vec<(String, Option<String>)> = Vec::new();
    if let (Some(fields), Some(map)) = (fields, with.as_object_mut()) {
        let unknown: Vec<String> = map.keys().filter(|name| !fields.contains(&name.as_str())).cloned().collect();
        for name in unknown {
            map.remove(&name);
            let message = format!("`{stage}` has no parameter `{name}`");
            let mut error = FieldError::new(&name, message).expected(match fields {
                [] => "no parameters".to_owned(),
                fields => one_of(fields.iter().copied()),
            });
            error.hint = did_you_mean(&name, fields.iter().copied()).map(Hint::Say);
            error.name_at_fault = true;
            // A parameter that was meant is not missing as well.
            removed.extend(nearest(&name, fields.iter().copied()).map(str::to_owned));
            errors.push(error);
        }
    }
    loop {
        let fault = match serde_path_to_error::deserialize::<_, T>(with.clone()) {
            Ok(params) if errors.is_empty() => return Ok(params),
            Ok(_) => return Err(errors),
            Err(fault) => fault,
        };
        let path = dotted(fault.path());
        let text = fault.into_inner().to_string();
        let mut error = translate(&path, &text, stage);
        // Each round takes a value out that is none, so the loop ends.
        if at(&mut with, &path).is_some_and(|value| value.is_null()) && take_out(&mut with, &path) {
            let words = words_at::<T>(&with, &path, stage);
            empty.push((path, words.or(error.0.expected)));
            continue;
        }
        // Of one of several forms it is not known in which of its fields none of them fits.
        if text.starts_with("data did not match") && at(&mut with, &path).is_some_and(take_out_empty) {
            continue;
        }
        let missing = error.1;
        let lacking = error.0.missing.then(|| within(&path, text.split('`').nth(1).unwrap_or_default()));
        if let Some((field, expected)) = empty.iter().find(|(field, _)| Some(field) == lacking.as_ref()) {
            error.0 = without_value(field, expected.clone());
        }
        let top = path.split(['.', '[']).next().unwrap_or_default().to_owned();
        let out_of_range = error.0.out_of_range;
        let known = lacking.is_some_and(|name| removed.contains(&name));
        if !known {
            errors.push(error.0);
        }
        // What is out of range is taken out alone, so that the fields beside it are read as well.
        if out_of_range && take_out(&mut with, &path) {
            removed.push(path);
            continue;
        }
        // Each round takes one field out, so the loop ends.
        if missing.is_some() || with.as_object_mut().and_then(|map| map.remove(&top)).is_none() {
            return Err(errors);
        }
        removed.push(top);
    }
}

/// `with` without the values that are out of range, where these are all the mistakes and none of them is an item of a list itself: with
/// their defaults the rest can be looked at.
pub fn without_out_of_range(mut with: Value, errors: &[FieldError]) -> Option<Value> {
    errors.iter().all(|error| error.out_of_range && take_out(&mut with, &error.field)).then_some(with)
}

/// The words of which one was expected at a path that has no value, where there are some: what is said of a word that is none of them.
fn words_at<T: DeserializeOwned>(with: &Value, path: &str, stage: &str) -> Option<String> {
    let mut with = with.clone();
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    at(&mut with, parent)?.as_object_mut()?.insert(name.to_owned(), Value::from(""));
    let fault = serde_path_to_error::deserialize::<_, T>(with).err().filter(|fault| dotted(fault.path()) == path)?;
    let text = fault.into_inner().to_string();
    text.starts_with("unknown variant").then(|| translate(path, &text, stage).0.expected)?
}

/// The mistake of a required field that stands there without a value.
fn without_value(field: &str, expected: Option<String>) -> FieldError {
    let mut error = FieldError::new(field, format!("`{field}` has no value"));
    error.expected = expected;
    error.missing = true;
    error
}

/// The dotted path of a field.
fn within(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The value at a dotted path, such as `facts[0].prompt`.
fn at<'a>(with: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    parts.try_fold(with, |at, part| {
        let mut steps = part.split('[');
        let name = steps.next().unwrap_or_default();
        let within = if name.is_empty() { at } else { at.get_mut(name)? };
        steps.try_fold(within, |at, step| at.get_mut(step.trim_end_matches(']').parse::<usize>().ok()?))
    })
}

/// Takes the value at a dotted path out of its mapping; `false` where it is in none.
fn take_out(with: &mut Value, path: &str) -> bool {
    let (within, name) = path.rsplit_once('.').unwrap_or(("", path));
    at(with, within).and_then(Value::as_object_mut).and_then(|map| map.remove(name)).is_some()
}

/// Takes all fields without a value out of a value; whether there were any.
fn take_out_empty(value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().map(take_out_empty).fold(false, |found, within| found | within),
        Value::Object(map) => {
            let before = map.len();
            map.retain(|_, value| !value.is_null());
            let emptied = map.len() < before;
            map.values_mut().map(take_out_empty).fold(emptied, |found, within| found | within)
        }
        _ => false,
    }
}

fn dotted(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.extend(["[", &index.to_string(), "]"]),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    text
}

/// A field error in our words from one of serde's, and the name of the field that it says is missing.
fn translate(path: &str, text: &str, stage: &str) -> (FieldError, Option<String>) {
    let name = if path.is_empty() { "with" } else { path };
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    if let Some(rest) = text.strip_prefix("invalid type: ") {
        let (found, wanted) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let error = FieldError::new(path, format!("`{name}` has the wrong type: {}", found_words(found)));
        return (error.expected(wanted_words(wanted)), None);
    }
    if let Some(rest) = text.strip_prefix(OUT_OF_RANGE) {
        let (found, wanted) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let own = name.rsplit('.').next().unwrap_or(name);
        let mut error = FieldError::new(path, format!("`{own}` is {found}")).expected(wanted);
        error.out_of_range = true;
        return (error, None);
    }
    // What serde's JSON says of a mapping from numbers.
    if text.contains("expected key to be a number") {
        let error = FieldError::new(path, format!("`{name}` has a key that is no number"));
        return (error.expected("whole numbers as keys"), None);
    }
    if let Some(rest) = text.strip_prefix("invalid value: ").or_else(|| text.strip_prefix("invalid length ")) {
        let (found, wanted) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let error = FieldError::new(path, format!("`{name}` cannot be {}", found_words(found)));
        return (error.expected(wanted_words(wanted)), None);
    }
    if text.starts_with("unknown variant") || text.starts_with("unknown field") {
        let (bad, good) = quoted.split_first().map_or(("", &[][..]), |(bad, good)| (*bad, good));
        let (field, message) = if text.starts_with("unknown variant") {
            (path.to_owned(), format!("`{name}` cannot be `{bad}`"))
        } else if path.is_empty() || path.ends_with(bad) {
            (path.to_owned(), format!("`{stage}` has no parameter `{name}`"))
        } else {
            (format!("{path}.{bad}"), format!("`{name}` has no key `{bad}`"))
        };
        let mut error = FieldError::new(field, message).expected(one_of(good.iter().copied()));
        error.hint = did_you_mean(bad, good.iter().copied()).map(Hint::Say);
        error.name_at_fault = text.starts_with("unknown field");
        return (error, None);
    }
    if text.starts_with("missing field") {
        let missing = quoted.first().copied().unwrap_or_default();
        if path.is_empty() {
            let mut error = FieldError::new("", format!("`{stage}` needs the parameter `{missing}`"));
            error.missing = true;
            return (error, Some(missing.to_owned()));
        }
        let mut error = FieldError::new(path, format!("`{name}` needs the key `{missing}`"));
        error.missing = true;
        return (error, None);
    }
    // Of several forms it is not known which one was meant.
    if text.starts_with("data did not match") {
        return (FieldError::new(path, format!("`{name}` has none of the forms that it may have")), None);
    }
    (FieldError::new(path, format!("`{name}`: {text}")), None)
}

fn found_words(found: &str) -> String {
    match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer", number)) => format!("the number {}", number.trim_matches('`')),
        Some(("floating", rest)) => format!("the number {}", rest.trim_start_matches("point ").trim_matches('`')),
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ => match found {
            "null" | "unit value" => "nothing".to_owned(),
            "map" => "a mapping".to_owned(),
            "sequence" => "a list".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn wanted_words(wanted: &str) -> String {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" | "a string or path" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        _ if wanted.starts_with("struct ") => "a mapping".to_owned(),
        "string or map" => "one of its words".to_owned(),
        other => other.to_owned(),
    }
}
