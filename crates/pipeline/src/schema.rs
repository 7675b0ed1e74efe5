//! JSON Schema of pipeline files, for editors.

use serde_json::{Map, Value, json};

use crate::kinds::{Kinds, StageInfo};
use crate::renamed::add_to_schema;
use crate::spec::Form;

/// The JSON Schema of a pipeline that uses the stages of `catalogue`. `uses` decides which `inputs` and `with` fit. Of a file that includes
/// others, nothing is wanted that they may have.
pub fn pipeline_schema(catalogue: &Kinds) -> Value {
    let mut schema = schema(catalogue, "Palinode pipeline");
    schema["$defs"]["whole"] = stages(catalogue, Form::Whole);
    schema["if"] = json!({ "required": ["include"] });
    schema["then"] = json!({ "properties": { "stages": { "$ref": "#/$defs/part" } } });
    schema["else"] = json!({ "required": ["name", "stages"], "properties": { "stages": { "$ref": "#/$defs/whole" } } });
    schema
}

/// The JSON Schema of a file that pipelines include.
pub fn part_schema(catalogue: &Kinds) -> Value {
    let mut schema = schema(catalogue, "Part of a Palinode pipeline");
    schema["properties"]["stages"]["$ref"] = json!("#/$defs/part");
    schema
}

/// What a pipeline and a part have in common.
fn schema(catalogue: &Kinds, title: &str) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "$defs": { "part": stages(catalogue, Form::Part) },
        "properties": {
            "name": { "type": "string", "description": "What runs of this pipeline are called.", "minLength": 1 },
            "description": { "type": ["string", "null"], "description": "What it is for." },
            "include": {
                "description": "Other files to start from, found from the folder of this one. Mappings are merged; later files win, and this one wins over all.",
                "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": { "type": "string", "minLength": 1 } }],
            },
            "numerics": {
                "enum": ["portable", "strict", null],
                "default": "portable",
                "description": "With `strict`, results count for the device and the build that computed them alone, so that equal keys mean equal bits; otherwise for any.",
            },
            "checks": {
                "enum": ["lenient", "strict", null],
                "default": "lenient",
                "description": "With `strict`, what the checks before the work find doubtful ends the run before anything is computed; otherwise only what cannot work does.",
            },
            "replicates": {
                "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }, { "type": "null" }],
                "description": "Axes of `matrix` along which the same is only repeated, such as seeds: tables show means over them.",
            },
            "vars": {
                "type": ["object", "null"],
                "description": "Values for `${vars.name}`; each can use those above it.",
                "propertyNames": { "pattern": NAME },
            },
            "matrix": {
                "type": ["object", "null"],
                "description": "Axes for `${matrix.name}`: stages that mention an axis, and those after them, are multiplied by its values.",
                "propertyNames": { "pattern": NAME },
                "properties": {
                    "include": { "type": "array", "items": { "type": "object" }, "description": "Cells to add; each names every axis." },
                    "exclude": { "type": "array", "items": { "type": "object" }, "description": "Cells to leave out; each names some axes." },
                },
                "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, expression()] },
            },
            "stages": { "type": "object", "description": "The stages by name, in any order." },
        },
    })
}

/// The stages of a pipeline, or of a part of one.
fn stages(catalogue: &Kinds, form: Form) -> Value {
    let names: Vec<_> = catalogue.names().collect();
    let summaries: Vec<_> =
        catalogue.iter().map(|stage| format!("{}: {}", stage.info().name, stage.info().summary)).collect();
    let kinds: Vec<_> = catalogue.iter().map(|stage| kind_schema(stage.info(), form)).collect();
    let mut stage = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "uses": {
                "anyOf": [{ "enum": names }, expression()],
                "description": format!("The kind of stage.\n\n{}", summaries.join("\n\n")),
            },
            "inputs": { "type": "object", "additionalProperties": { "type": name_of_stage(form) } },
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
    });
    match form {
        Form::Whole => stage["required"] = json!(["uses"]),
        // `~` takes a stage of another file away.
        Form::Part => stage["type"] = json!(["object", "null"]),
    }
    json!({
        "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" },
        "additionalProperties": stage,
    })
}

const TIME: &str = "^([0-9.]+d)? ?([0-9.]+h)? ?([0-9.]+m)? ?([0-9.]+s)?$";
const NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

fn kind_schema(info: &StageInfo, form: Form) -> Value {
    let ports: Map<String, Value> = info
        .inputs
        .iter()
        .map(|port| {
            let doc = format!("{} Takes the output of a stage that yields {}.", port.doc, port.accepts.join(" or "));
            (port.name.to_owned(), json!({ "type": name_of_stage(form), "description": doc }))
        })
        .collect();
    let required = info.inputs.iter().filter(|port| port.required && form == Form::Whole);
    let required: Vec<_> = required.map(|port| port.name).collect();
    let mut with = info.schema.clone();
    if form == Form::Part {
        nothing_is_missing(&mut with);
    }
    add_to_schema(&mut with, info.renamed);
    allow_expressions(&mut with);
    if let Value::Object(with) = &mut with {
        with.remove("title");
        with.insert("description".to_owned(), json!(info.summary));
    }
    // What another file has may be taken away, also where this kind of stage has none of it.
    let others = if form == Form::Part { json!({ "type": "null" }) } else { json!(false) };
    if form == Form::Part && with.get("additionalProperties") == Some(&json!(false)) {
        with["additionalProperties"] = others.clone();
    }
    let mut then = json!({
        "properties": {
            "inputs": { "properties": ports, "required": required, "additionalProperties": others },
            "with": with,
        },
    });
    let mut needs: Vec<&str> = Vec::new();
    if !required.is_empty() {
        needs.push("inputs");
    }
    if with.get("required").and_then(Value::as_array).is_some_and(|fields| !fields.is_empty()) {
        needs.push("with");
    }
    if !needs.is_empty() {
        then["required"] = json!(needs);
    }
    json!({ "if": { "properties": { "uses": { "const": info.name } }, "required": ["uses"] }, "then": then })
}

/// The type of what is connected to a port; `~` takes the connection of another file away.
fn name_of_stage(form: Form) -> Value {
    if form == Form::Part { json!(["string", "null"]) } else { json!("string") }
}

/// In a mapping that is merged with another, any key may stand there. What lists hold is not merged.
fn nothing_is_missing(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("required");
    for within in ["properties", "$defs"] {
        if let Some(Value::Object(properties)) = map.get_mut(within) {
            properties.values_mut().for_each(nothing_is_missing);
        }
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(choices)) = map.get_mut(choice) {
            choices.iter_mut().for_each(nothing_is_missing);
        }
    }
}

fn expression() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

/// Every value may be given by an expression as well, and left out by `~`.
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
            map.insert("type".to_owned(), json!(["string", "null"]));
            map.append(&mut outside);
            return;
        }
    }
    outside.insert("anyOf".to_owned(), json!([schema.take(), expression(), { "type": "null" }]));
    *schema = Value::Object(outside);
}
