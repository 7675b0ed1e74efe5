//! Verdicts on answers: JSON lines with `key` and `verdict`, and whatever else stands there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::records::{read, typed};
use crate::{DataError, Mistakes, Place};

const HINT: &str = "every line is one JSON object with the `key` of an answer and its `verdict`: true, false, or null where it is open";

#[derive(Deserialize)]
struct Line {
    key: String,
    verdict: Value,
}

/// The verdicts of a file by the keys of answers; `None` of an answer that cannot be judged.
///
/// # Errors
/// [`Mistakes`], with their lines: a line without key or verdict, a verdict that is none, two different verdicts on one answer.
pub fn read_verdicts(path: &Path) -> Result<BTreeMap<String, Option<bool>>, Mistakes> {
    let lines = read(path, HINT, |_, value| {
        let line: Line = typed(value)?;
        let verdict = match line.verdict {
            Value::Bool(right) => Some(right),
            Value::Null => None,
            other => {
                return Err((
                    Some("verdict".to_owned()),
                    format!("{other} is no verdict, expected true, false or null"),
                ));
            }
        };
        Ok((line.key, verdict))
    })?;
    let mut all = BTreeMap::new();
    let mut mistakes = Mistakes::default();
    for (number, (key, verdict)) in lines.into_iter().enumerate() {
        if let Some(earlier) = all.insert(key.clone(), verdict).filter(|earlier| *earlier != verdict) {
            let message = format!("{key} has two verdicts, {earlier:?} and {verdict:?}");
            mistakes.add(DataError::new(path, Place::Record(number, None), message));
        }
    }
    if mistakes.count > 0 { Err(mistakes) } else { Ok(all) }
}
