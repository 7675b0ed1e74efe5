//! How much longer a tokenizer's rules may make a text.
//!
//! A rule that puts two letters for one doubles a text, and thirty such rules after one another make gigabytes of a word. Whoever publishes a
//! tokenizer writes the rules, so they are looked at before the first text.

use serde::Deserialize;
use serde_json::Value;

/// The parts of a `tokenizer.json` that change texts. The vocabulary, which is most of the file, is passed over.
#[derive(Deserialize)]
pub struct Rules {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// More than any tokenizer in use needs: they put a character for a character, or a few.
const MOST: f64 = 256.0;

/// Fails where the rules of a `tokenizer.json` could make a text more than [`MOST`] times as long.
///
/// # Errors
/// In words, with the factor.
pub fn check(rules: &Rules) -> Result<(), String> {
    let parts =
        [("normalizer", &rules.normalizer), ("pre_tokenizer", &rules.pre_tokenizer), ("decoder", &rules.decoder)];
    for (part, rule) in parts {
        let grows = growth(rule);
        if grows > MOST {
            return Err(format!(
                "its {part} could make a text {grows:.0e} times as long, and {MOST} times is the most"
            ));
        }
    }
    Ok(())
}

/// A bound on how many times as long a rule makes a text: of rules after one another, the product.
fn growth(rule: &Value) -> f64 {
    match rule {
        Value::Array(rules) => rules.iter().map(growth).product(),
        Value::Object(fields) => {
            let inside: f64 = ["normalizers", "pretokenizers", "decoders"]
                .iter()
                .filter_map(|name| fields.get(*name))
                .map(growth)
                .product();
            let length = |name: &str| fields.get(name).and_then(Value::as_str).map(|text| text.chars().count() as f64);
            let own = match length("content").filter(|_| fields.get("type").is_some_and(|kind| kind == "Replace")) {
                // A pattern finds one character or more, or nothing between two of them.
                Some(content) => {
                    let found = fields["pattern"]["String"].as_str().map_or(0, |text| text.chars().count());
                    if found == 0 { 1.0 + content } else { (content / found as f64).max(1.0) }
                }
                None => 1.0,
            };
            own * inside
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(tokenizer: &Value) -> Result<(), String> {
        super::check(&Rules::deserialize(tokenizer).unwrap())
    }

    #[test]
    fn rules_that_multiply_are_refused() {
        let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
        let rules = |rules: Vec<Value>| json!({ "normalizer": { "type": "Sequence", "normalizers": rules } });
        check(&rules(vec![json!({ "type": "Prepend", "prepend": "▁" }), replace(" ", "▁")])).unwrap();
        check(&rules(vec![replace("a", "aa"); 8])).unwrap();
        let error = check(&rules(vec![replace("a", "aa"); 30])).unwrap_err();
        assert!(error.contains("1e9 times as long"), "{error}");
        let nested = json!({ "type": "Sequence", "normalizers": vec![replace("a", "aaa"); 5] });
        assert!(check(&rules(vec![nested.clone(), nested])).is_err());
        let pattern = json!({ "type": "Replace", "pattern": { "Regex": "." }, "content": "x".repeat(300) });
        assert!(check(&json!({ "decoder": { "type": "Sequence", "decoders": [pattern] } })).is_err());
        check(&json!({ "normalizer": null, "pre_tokenizer": { "type": "ByteLevel" } })).unwrap();
    }
}
