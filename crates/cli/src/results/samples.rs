//! A few samples of what a model says.

use palinode::shown::Sample;
use serde_json::Value;

use super::cell::plain;
use crate::terminal::Style;

/// How many samples are shown.
const MOST: usize = 3;

/// Longest text shown of one field.
const LONGEST: usize = 400;

/// Shows up to three samples: a line for each field, its text wrapped beside its name.
pub fn show(samples: &[Sample], style: &Style) -> String {
    let samples: Vec<_> = samples.iter().take(MOST).collect();
    let names = samples.iter().flat_map(|sample| sample.keys()).map(|name| name.chars().count());
    let width = names.max().unwrap_or(0);
    let one = |sample: &&Sample| {
        let field = |(name, value): (&String, &Value)| {
            let indent = width + 4;
            let text = style.wrap(&clip(&plain(value)), indent);
            let name = style.dim(&format!("{name:width$}"));
            format!("  {name}  {}", text.get(indent..).unwrap_or("\n"))
        };
        in_order(sample).into_iter().map(field).collect::<String>()
    };
    samples.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Fields in the order in which they are read: what was asked, what was wanted, what was said.
fn rank(name: &str) -> usize {
    match name {
        "prompt" => 0,
        "subject" => 1,
        "before" => 3,
        "after" => 4,
        _ => 2,
    }
}

fn in_order(sample: &Sample) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = sample.iter().collect();
    fields.sort_by_key(|(name, _)| rank(name));
    fields
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_in_order_and_long_ones_end() {
        let style = Style { color: false, terminal: false, width: 60 };
        let sample = |after: &str| {
            let told = json!({ "after": after, "before": "", "prompt": "The Eiffel Tower is in", "n": 3 });
            told.as_object().cloned().unwrap_or_default()
        };
        let samples = [sample(&"Rome, ".repeat(90)), sample("Rome"), sample("Rome"), sample("no")];
        insta::assert_snapshot!(show(&samples, &style));
    }
}
