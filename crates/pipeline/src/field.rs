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
/// field so taken out is not reported as missing.
pub fn read<T: DeserializeOwned>(with: Value, stage: &str, fields: Option<&[&str]>) -> Result<T, Vec<FieldError>> {
    let mut with = if with.is_null() { Value::Object(Map::new()) } else { with };
    let mut errors = Vec::new();
    let mut removed: Vec<String> = Vec::new();
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
        let error = translate(&path, &fault.into_inner().to_string(), stage);
        let missing = error.1;
        let top = path.split(['.', '[']).next().unwrap_or_default().to_owned();
        let out_of_range = error.0.out_of_range;
        let known = missing.as_ref().is_some_and(|name| removed.contains(name));
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

/// `with` without the values that are out of range, where these are all the mistakes and none of them is an item of a list: with
/// their defaults the rest can be looked at.
pub fn without_out_of_range(mut with: Value, errors: &[FieldError]) -> Option<Value> {
    errors.iter().all(|error| error.out_of_range && take_out(&mut with, &error.field)).then_some(with)
}

/// Takes the value at a dotted path out of its mapping; `false` where it is in none.
fn take_out(with: &mut Value, path: &str) -> bool {
    let (within, name) = path.rsplit_once('.').map_or((None, path), |(within, name)| (Some(within), name));
    let mut parts = within.into_iter().flat_map(|within| within.split('.'));
    let parent = parts.try_fold(with, |at, part| at.get_mut(part));
    parent.and_then(Value::as_object_mut).and_then(|map| map.remove(name)).is_some()
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
