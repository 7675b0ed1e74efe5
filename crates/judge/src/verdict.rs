//! What a judge is asked, and what its reply says.

/// A question made of a template: each `{name}` is replaced by its text, in one pass, so that no text is taken for a part of the template.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, here) = rest.split_at(at);
        out.push_str(before);
        let found =
            values.iter().find(|(name, _)| here[1..].starts_with(name) && here[1 + name.len()..].starts_with('}'));
        if let Some((name, value)) = found {
            out.push_str(value);
            rest = &here[name.len() + 2..];
        } else {
            out.push('{');
            rest = &here[1..];
        }
    }
    out + rest
}

/// What a reply says: right, wrong, or nothing that is clear. What a model thinks aloud before it replies (`<think>…</think>`) does not count. Where
/// the first word is no verdict, the reply is clear if it has verdicts of one kind alone, and no "not".
pub fn verdict(reply: &str) -> Option<bool> {
    let said = reply.rsplit_once("</think>").map_or(reply, |(_, said)| said);
    let words: Vec<String> = said
        .split(|char: char| !char.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let one = |word: &String| match word.as_str() {
        "correct" | "right" | "yes" | "true" => Some(true),
        "incorrect" | "wrong" | "no" | "false" => Some(false),
        _ => None,
    };
    if let Some(first) = words.first().and_then(one) {
        return Some(first);
    }
    if words.iter().any(|word| word == "not") {
        return None;
    }
    let mut all = words.iter().filter_map(one);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_or_left_open() {
        let clear = [
            ("CORRECT", true),
            ("Incorrect.", false),
            ("**Correct**, since both name Rome. Nothing is wrong.", true),
            ("<think>It could be incorrect.</think>\ncorrect", true),
            ("The answer is incorrect.", false),
            ("Yes", true),
        ];
        for (reply, right) in clear {
            assert_eq!(verdict(reply), Some(right), "{reply}");
        }
        for open in ["", "The answer is not correct", "It may be correct or incorrect.", "Rome", "incorrectly spelt"] {
            assert_eq!(verdict(open), None, "{open}");
        }
    }

    #[test]
    fn a_template_is_filled_in_one_pass() {
        let values = [("prompt", "{answer} of"), ("answer", "Rome {prompt}")];
        assert_eq!(fill("{prompt}: {answer} {other} {", &values), "{answer} of: Rome {prompt} {other} {");
    }
}
