//! Parameters in words, from their JSON Schema.

use std::fmt::Write as _;

use serde_json::Value;

/// One parameter, or a field within one.
pub struct Parameter {
    /// Its dotted name.
    pub name: String,
    /// Its type in words.
    pub kind: String,
    /// Its default, if it has one.
    pub default: Option<String>,
    /// Whether it has to be given.
    pub required: bool,
    /// The word of a choice that it belongs to.
    pub only: Option<String>,
    /// What it is.
    pub doc: String,
}

/// A default as it is written in a pipeline.
fn default(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => Some("''".to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => Some("[]".to_owned()),
        Value::Number(number) if number.as_f64().is_some_and(|value| value.fract() == 0.0 && value.abs() < 1e15) => {
            Some(format!("{}", number.as_f64().unwrap_or_default()))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", default(value).unwrap_or_default()));
            Some(format!("{{ {} }}", fields.collect::<Vec<_>>().join(", ")))
        }
        other => Some(other.to_string()),
    }
}

/// The parameters of a stage, with fields of mappings under their dotted names.
pub fn parameters(schema: &Value) -> Vec<Parameter> {
    let mut found = Vec::new();
    fields(schema, "", None, &mut found);
    found
}

fn fields(schema: &Value, within: &str, only: Option<&str>, found: &mut Vec<Parameter>) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut all: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    all.sort_by_key(|(name, _)| !required.contains(&name.as_str()));
    for (name, field) in all {
        // The word itself is told with the choice.
        if only.is_some() && field["const"].as_str() == only {
            continue;
        }
        let name_of = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
        found.push(Parameter {
            name: name_of.clone(),
            kind: words(field),
            default: field.get("default").and_then(default),
            required: required.contains(&name.as_str()),
            only: only.map(str::to_owned),
            doc: doc(field),
        });
        inner(field, &name_of, found);
    }
}

/// The fields within a mapping, a list of mappings, or a choice of mappings.
fn inner(field: &Value, name: &str, found: &mut Vec<Parameter>) {
    if field["properties"].is_object() {
        fields(field, name, None, found);
    }
    if field["items"]["properties"].is_object() {
        fields(&field["items"], &format!("{name}[]"), None, found);
    }
    for choice in choices(field) {
        if choice["properties"].is_object() {
            fields(choice, name, tag(choice).as_deref(), found);
        }
    }
}

/// What stands beside a parameter: its own comment, and those of the words it can be.
fn doc(field: &Value) -> String {
    let mut doc = field["description"].as_str().unwrap_or_default().replace('\n', " ");
    for choice in choices(field) {
        if let (Some(word), Some(says)) = (tag(choice), choice["description"].as_str()) {
            let _ = write!(doc, "\n- {word}: {}", says.replace('\n', " "));
        }
    }
    doc.trim_start().to_owned()
}

fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten()
}

/// The word that picks this choice: itself, or the value of its tag.
fn tag(choice: &Value) -> Option<String> {
    let constant = |schema: &Value| schema["const"].as_str().map(str::to_owned);
    let own = constant(choice);
    own.or_else(|| choice["properties"].as_object()?.values().find_map(constant))
}

/// A type in words.
fn words(schema: &Value) -> String {
    if let Some(word) = schema["const"].as_str() {
        return word.to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().filter_map(default).collect();
        return values.join(" or ");
    }
    let choices: Vec<&Value> = choices(schema).filter(|choice| choice["type"] != "null").collect();
    if !choices.is_empty() {
        let mut words: Vec<String> =
            choices.into_iter().map(|choice| tag(choice).unwrap_or_else(|| words(choice))).collect();
        words.dedup();
        return words.join(" or ");
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
        _ => Vec::new(),
    };
    let word = |kind: &&str| match *kind {
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" => "text".to_owned(),
        "object" => "mapping".to_owned(),
        "array" if schema["items"].is_object() => format!("list of {}", plural(&words(&schema["items"]))),
        "array" => "list".to_owned(),
        other => other.to_owned(),
    };
    if kinds.is_empty() { "anything".to_owned() } else { kinds.iter().map(word).collect::<Vec<_>>().join(" or ") }
}

fn plural(words: &str) -> String {
    if words.contains(" or ") || words.ends_with('s') || words == "text" {
        words.to_owned()
    } else {
        format!("{words}s")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_in_words() {
        let corpus = json!({
            "type": "object",
            "description": "The text.",
            "properties": { "path": { "type": "string" }, "most": { "type": ["integer", "null"], "default": null } },
            "required": ["path"],
        });
        let spread = json!({ "oneOf": [
            { "const": "single", "type": "string", "description": "One layer." },
            { "type": "object", "properties": { "kind": { "const": "memit" }, "n": { "type": "integer" } }, "required": ["kind"] },
        ], "default": "single" });
        let schema = json!({
            "properties": {
                "alpha": { "type": "number", "default": 2.0 },
                "corpora": { "type": "array", "items": corpus, "description": "All\ntexts." },
                "dtype": { "enum": ["f32", "bf16"], "default": "f32" },
                "layers": { "anyOf": [{ "type": "array", "items": { "type": "integer" } }, { "type": "null" }] },
                "spread": spread,
                "shape": { "type": "object", "default": { "a": 1, "b": [] } },
                "what": true,
            },
            "required": ["corpora"],
        });
        let line = |parameter: Parameter| {
            let Parameter { name, kind, default, required, only, doc } = parameter;
            format!("{name}: {kind}; default {default:?}; required {required}; only {only:?}; {doc:?}\n")
        };
        insta::assert_snapshot!(parameters(&schema).into_iter().map(line).collect::<String>());
    }
}
