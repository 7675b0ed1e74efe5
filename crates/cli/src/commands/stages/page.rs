//! The page of one stage.

use std::fmt::Write as _;

use palinode::StageInfo;

use super::words::{Parameter, parameters};
use crate::terminal::Style;

/// All that there is to know about a stage.
pub fn page(info: &StageInfo, style: &Style) -> String {
    let summary = style.wrap(&format!("{}: {}", info.name, info.summary), 0);
    let mut text = summary.replacen(info.name, &style.bold(info.name), 1) + "\n" + &style.wrap(info.doc.trim(), 0);
    if !info.inputs.is_empty() {
        text.push_str(&title("INPUTS", style));
    }
    for port in &info.inputs {
        let optional = if port.required { "" } else { ", optional" };
        let kinds = style.dim(&format!("{}{optional}", port.accepts.join(" or ")));
        let _ = write!(text, "  {}  {kinds}\n{}", style.bold(port.name), style.wrap(port.doc, 6));
    }
    text.push_str(&title("OUTPUT", style));
    let _ = writeln!(text, "  {}", info.output);
    let parameters = parameters(&info.schema);
    if !parameters.is_empty() {
        text.push_str(&title("PARAMETERS", style));
    }
    for parameter in &parameters {
        text.push_str(&entry(parameter, info, style));
    }
    text + &title("IN A PIPELINE", style) + &example(info, &parameters)
}

fn title(text: &str, style: &Style) -> String {
    format!("\n{}\n", style.bold(text))
}

fn entry(parameter: &Parameter, info: &StageInfo, style: &Style) -> String {
    let need = match &parameter.default {
        Some(default) => format!("default {default}"),
        None if parameter.required => "required".to_owned(),
        None => "optional".to_owned(),
    };
    let name = parameter.name.as_str();
    let unkeyed = match () {
        () if info.unkeyed.contains(&name) => "; does not change results",
        () if info.last_digits.contains(&name) => "; changes last digits alone",
        () => "",
    };
    let only = parameter.only.as_ref().map(|word| format!("; with {word}")).unwrap_or_default();
    let facts = style.dim(&format!("{}; {need}{only}{unkeyed}", parameter.kind));
    format!("  {}  {facts}\n{}", style.bold(&parameter.name), style.wrap(&parameter.doc, 6))
}

/// The stage with all that it cannot do without, to be copied.
fn example(info: &StageInfo, parameters: &[Parameter]) -> String {
    let mut text = format!("  my_{}:\n    uses: {}\n", info.name, info.name);
    let inputs = info.inputs.iter().filter(|port| port.required);
    let inputs: Vec<String> = inputs.map(|port| format!("{}: …", port.name)).collect();
    if !inputs.is_empty() {
        let _ = writeln!(text, "    inputs: {{ {} }}", inputs.join(", "));
    }
    let needed = parameters.iter().filter(|parameter| parameter.required && !parameter.name.contains('.'));
    let with: Vec<String> = needed.map(|parameter| format!("{}: …", parameter.name)).collect();
    if !with.is_empty() {
        let _ = writeln!(text, "    with: {{ {} }}", with.join(", "));
    }
    text
}
