//! `retries` and `timeout` of a stage.

use std::time::Duration;

use serde_json::Value;

use super::eval::eval;
use super::expr::Scope;
use super::places::child;
use super::report::Report;
use super::spec::StageSpec;
use super::yaml::Tree;
use crate::limits::{Limits, read_duration};

/// Reads the limits of a stage in one cell; what is wrong is reported.
pub fn read(stage: &StageSpec, scope: &Scope, report: &mut Report) -> Option<Limits> {
    // Both are read, so that a mistake in one does not hide one in the other.
    let retries = if stage.retries == Tree::Null { Some(0) } else { retries(stage, scope, report) };
    let timeout = if stage.timeout == Tree::Null { Some(None) } else { timeout(stage, scope, report).map(Some) };
    Some(Limits { retries: retries?, timeout: timeout? })
}

fn retries(stage: &StageSpec, scope: &Scope, report: &mut Report) -> Option<u32> {
    const MOST: u64 = 100;
    let path = child(&stage.path(), "retries");
    let value = eval(&stage.retries, &path, scope, report)?;
    let count = value.as_u64().filter(|count| *count <= MOST);
    if count.is_none() {
        report.value(&path, format!("`retries` is {}", shown(&value)), |it| {
            it.expected(format!("how often to try again after a failure, 0 to {MOST}"))
        });
    }
    count.map(|count| count as u32)
}

fn timeout(stage: &StageSpec, scope: &Scope, report: &mut Report) -> Option<Duration> {
    let path = child(&stage.path(), "timeout");
    let value = eval(&stage.timeout, &path, scope, report)?;
    let found = value.as_str().and_then(read_duration);
    if found.is_none() {
        report.value(&path, format!("`timeout` is {}", shown(&value)), |it| {
            let hint = value.as_u64().map(|count| format!("a number needs its unit: `{count}s` or `{count}m`?"));
            it.expected("a time with its unit, such as `90s`, `30m`, `2h` or `1h30m`").hint(hint)
        });
    }
    found
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}
