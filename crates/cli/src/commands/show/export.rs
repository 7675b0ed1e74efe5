//! Where a file that `export` wrote comes from: the one metadata key of a safetensors file holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use palinode::{Error, ErrorKind};
use serde_json::{Value, json};

use super::stage::pairs;
use crate::command_error::Failure;
use crate::results::plain;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format, print, print_json};

/// A header longer than this is none.
const LONGEST: u64 = 100 << 20;

/// The file of an exported folder that says where it comes from.
const SAYS: &str = "palinode.json";

/// The file in a folder that says where the folder comes from, if `export` wrote it.
pub fn of_folder(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(SAYS)).filter(|file| file.is_file())
}

/// Shows a file that `export` wrote.
pub fn show(path: &Path, json: bool) -> Result<(), Failure> {
    if path.file_name().is_some_and(|name| name == SAYS) {
        return show_folder(path, json);
    }
    let header = header(path)?;
    let provenance = header["__metadata__"]["palinode"].as_str().and_then(|text| serde_json::from_str(text).ok());
    let tensors: Vec<(&String, &Value)> =
        header.as_object().into_iter().flatten().filter(|(name, _)| *name != "__metadata__").collect();
    if json {
        let names: serde_json::Map<String, Value> = tensors
            .iter()
            .map(|(name, tensor)| ((*name).clone(), json!({ "dtype": tensor["dtype"], "shape": tensor["shape"] })))
            .collect();
        return print_json(&json!({ "file": path, "provenance": provenance, "tensors": names }));
    }
    let style = Style::stdout();
    let mut text = format!("{}\n", style.bold(&path.display().to_string()));
    match &provenance {
        Some(provenance) => {
            let mut facts = Vec::new();
            let mut lists = Vec::new();
            flatten("", provenance, &mut facts, &mut lists);
            text.push_str(&pairs(&facts, &style));
            for (name, items) in lists {
                text.push_str(&format!("\n{}\n{}", style.bold(&name), list(items, &style)));
            }
        }
        None => text.push_str("  written by another program: it does not say where it comes from\n"),
    }
    let columns = [("TENSOR", Column::Text), ("TYPE", Column::Name), ("SHAPE", Column::Name), ("SIZE", Column::Number)];
    let rows = tensors.iter().map(|(name, tensor)| {
        let offset = |at: usize| tensor["data_offsets"][at].as_u64().unwrap_or(0);
        let shape = tensor["shape"].as_array().map_or(&[][..], Vec::as_slice);
        let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
        vec![
            Field::new((*name).clone(), Look::Bold),
            plain(&tensor["dtype"]).into(),
            shape.join("×").into(),
            format::size(offset(1).saturating_sub(offset(0))).into(),
        ]
    });
    text.push_str(&format!("\n{}", table(&style, &columns, rows.collect())));
    print(&text)
}

/// Shows what an exported folder says of itself.
fn show_folder(path: &Path, json: bool) -> Result<(), Failure> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
    let said: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::input(format!("{} is not as `export` wrote it: {error}", path.display())))?;
    if json {
        return print_json(&json!({ "file": path, "provenance": said["provenance"], "files": said["files"] }));
    }
    let style = Style::stdout();
    let mut facts = Vec::new();
    let mut lists = Vec::new();
    for part in ["provenance", "made_by"] {
        flatten("", &said[part], &mut facts, &mut lists);
    }
    let mut text = format!("{}\n{}", style.bold(&path.display().to_string()), pairs(&facts, &style));
    for (name, items) in lists {
        text.push_str(&format!("\n{}\n{}", style.bold(&name), list(items, &style)));
    }
    print(&text)
}

/// The header of a safetensors file: eight bytes of length, then JSON.
fn header(path: &Path) -> Result<Value, Error> {
    let failed = |error| Error::io(ErrorKind::Input, "read", path, error);
    let strange = || {
        Error::input(format!("{} is not a safetensors file", path.display())).hint(
            "`palinode show` explains folders and files that `export` wrote; other names are taken for runs and stages",
        )
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| strange())?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return Err(strange());
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).ok().filter(Value::is_object).ok_or_else(strange)
}

/// Facts by dotted name; lists of mappings, which make tables, apart.
fn flatten<'a>(
    name: &str,
    value: &'a Value,
    facts: &mut Vec<(String, String)>,
    lists: &mut Vec<(String, &'a [Value])>,
) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map {
                flatten(&if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, value, facts, lists);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => lists.push((name.to_owned(), items)),
        // Ids of requests and the like: all of them, since this is what one asks of such a file.
        Value::Array(items) => facts.push((name.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(", "))),
        value => facts.push((name.to_owned(), plain(value))),
    }
}

/// A list of mappings: a row for each.
fn list(items: &[Value], style: &Style) -> String {
    let flat = |item: &Value| {
        let mut facts = Vec::new();
        flatten("", item, &mut facts, &mut Vec::new());
        facts.into_iter().collect::<BTreeMap<String, String>>()
    };
    let rows: Vec<BTreeMap<String, String>> = items.iter().map(flat).collect();
    let names: BTreeSet<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
    let columns: Vec<(&str, Column)> = names.iter().map(|name| (name.as_str(), Column::Number)).collect();
    let cell =
        |row: &BTreeMap<String, String>, name: &String| row.get(name).map_or_else(String::new, |text| short(text));
    let rows = rows.iter().map(|row| names.iter().map(|name| Field::from(cell(row, name))).collect());
    table(style, &columns, rows.collect())
}

/// A number with as many digits as anyone compares.
fn short(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if text.len() > 8 => format!("{number:.4}"),
        _ => text.to_owned(),
    }
}
