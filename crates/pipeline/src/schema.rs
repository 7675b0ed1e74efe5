//! JSON Schema of pipeline files, for editors.

use serde_json::{Map, Value, json};

use crate::kinds::{Kinds, StageInfo};
use crate::renamed::add_to_schema;

/// The JSON Schema of a pipeline that uses the stages of `catalogue`. `uses` decides which `inputs` and `with` fit.
pub fn pipeline_schema(catalogue: &Kinds) -> Value {
    let names: Vec<_> = catalogue.names().collect();
    let summaries: Vec<_> =
        catalogue.iter().map(|stage| format!("{}: {}", stage.info().name, stage.info().summary)).collect();
    let kinds: Vec<_> = catalogue.iter().map(|stage| kind_schema(stage.info())).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Palinode pipeline",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "stages"],
        "properties": {
            "name": { "type": "string", "description": "What runs of this pipeline are called.", "minLength": 1 },
            "description": { "type": "string", "description": "What it is for." },
            "include": {
                "description": "Other files to start from, found from the folder of this one. Mappings are merged; later files win, and this one wins over all.",
                "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": { "type": "string", "minLength": 1 } }],
            },
            "numerics": {
                "enum": ["portable", "strict"],
                "default": "portable",
                "description": "With `strict`, results count for the device and the build that computed them alone, so that equal keys mean equal bits; otherwise for any.",
            },
            "checks": {
                "enum": ["lenient", "strict"],
                "default": "lenient",
                "description": "With `strict`, what the checks before the work find doubtful ends the run before anything is computed; otherwise only what cannot work does.",
            },
            "vars": {
                "type": "object",
                "description": "Values for `${vars.name}`; each can use those above it.",
                "propertyNames": { "pattern": NAME },
            },
            "matrix": {
                "type": "object",
                "description": "Axes for `${matrix.name}`: stages that mention an axis, and those after them, are multiplied by its values.",
                "propertyNames": { "pattern": NAME },
                "properties": {
                    "include": { "type": "array", "items": { "type": "object" }, "description": "Cells to add; each names every axis." },
                    "exclude": { "type": "array", "items": { "type": "object" }, "description": "Cells to leave out; each names some axes." },
                },
                "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, expression()] },
            },
            "stages": {
                "type": "object",
                "description": "The stages by name, in any order.",
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" },
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["uses"],
                    "properties": {
                        "uses": {
                            "anyOf": [{ "enum": names }, expression()],
                            "description": format!("The kind of stage.\n\n{}", summaries.join("\n\n")),
                        },
                        "inputs": { "type": "object", "additionalProperties": { "type": "string" } },
                        "with": {},
                        "retries": {
                            "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 100 }, expression()],
                            "description": "How often it is tried again when storage, memory or time ran out, or its process was lost; it resumes after the units that are done. Mistakes in arithmetic or input are never tried again.",
                            "default": 0,
                        },
                        "timeout": {
                            "anyOf": [{ "type": "string", "pattern": TIME }, expression()],
                            "description": "How long one try may take, such as `90s`, `30m`, `2h` or `1h30m`.",
                        },
                    },
                    "allOf": kinds,
                },
            },
        },
    })
}

const TIME: &str = "^([0-9.]+d)? ?([0-9.]+h)? ?([0-9.]+m)? ?([0-9.]+s)?$";
const NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

fn kind_schema(info: &StageInfo) -> Value {
    let ports: Map<String, Value> = info
        .inputs
        .iter()
        .map(|port| {
            let doc = format!("{} Takes the output of a stage that yields {}.", port.doc, port.accepts.join(" or "));
            (port.name.to_owned(), json!({ "type": "string", "description": doc }))
        })
        .collect();
    let required: Vec<_> = info.inputs.iter().filter(|port| port.required).map(|port| port.name).collect();
    let mut with = info.schema.clone();
    add_to_schema(&mut with, info.renamed);
    allow_expressions(&mut with);
    if let Value::Object(with) = &mut with {
        with.remove("title");
        with.insert("description".to_owned(), json!(info.summary));
    }
    let mut then = json!({
        "properties": {
            "inputs": { "properties": ports, "required": required, "additionalProperties": false },
            "with": with,
        },
    });
    let mut needs: Vec<&str> = Vec::new();
    if !required.is_empty() {
        needs.push("inputs");
    }
    if info.schema.get("required").and_then(Value::as_array).is_some_and(|fields| !fields.is_empty()) {
        needs.push("with");
    }
    if !needs.is_empty() {
        then["required"] = json!(needs);
    }
    json!({ "if": { "properties": { "uses": { "const": info.name } }, "required": ["uses"] }, "then": then })
}

fn expression() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

/// Every value may be given by an expression as well.
fn allow_expressions(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(or_expression);
    }
    for within in ["items", "additionalProperties"] {
        if let Some(inner @ Value::Object(_)) = map.get_mut(within) {
            or_expression(inner);
        }
    }
    for choice in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        if let Some(Value::Array(choices)) = map.get_mut(choice) {
            choices.iter_mut().for_each(allow_expressions);
        }
    }
}

fn or_expression(schema: &mut Value) {
    allow_expressions(schema);
    // What an editor shows stays outside the choice.
    let mut outside = Map::new();
    if let Value::Object(map) = schema {
        for shown in ["description", "default", "title", "deprecated"] {
            outside.extend(map.remove(shown).map(|value| (shown.to_owned(), value)));
        }
        if map.get("type") == Some(&json!("string")) && !map.contains_key("enum") && !map.contains_key("const") {
            map.append(&mut outside);
            return;
        }
    }
    outside.insert("anyOf".to_owned(), json!([schema.take(), expression()]));
    *schema = Value::Object(outside);
}
