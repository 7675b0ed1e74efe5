//! `${…}` in the texts of a pipeline: expressions over `vars` and `matrix`.

use std::sync::LazyLock;

use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

/// A text cut into plain stretches and expressions.
#[derive(Debug, PartialEq)]
pub struct Template<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    Expr(&'a str),
}

/// An expression that has no value.
#[derive(Debug, PartialEq, Eq)]
pub struct ExprError {
    /// The expression, as it stands in the text.
    pub expr: String,
    /// What is wrong.
    pub message: String,
    /// What would have been right.
    pub expected: Option<String>,
}

/// A name that an expression mentions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    /// The expression that mentions it.
    pub expr: String,
    /// `vars`, `matrix`, or a mistake.
    pub root: String,
    /// The name after the first dot; `None` when the whole root is meant.
    pub name: Option<String>,
}

/// The values that expressions can use.
pub struct Scope(minijinja::Value);

impl Scope {
    /// Values of variables and axes.
    pub fn new(vars: &Map<String, Value>, matrix: &Map<String, Value>) -> Self {
        Self(minijinja::Value::from(Serde(serde_json::json!({ "vars": vars, "matrix": matrix }))))
    }
}

/// Functions beside those of the language.
const FUNCTIONS: [&str; 1] = ["range"];

static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.add_function("range", range);
    env
});

/// `range(5)`, `range(13, 18)`, `range(0, 12, 2)`: whole numbers from a start up to, but without, an end.
fn range(first: i64, second: Option<i64>, step: Option<i64>, rest: Kwargs) -> Result<Vec<i64>, Error> {
    const MOST: usize = 100_000;
    rest.assert_all_used()?;
    let (from, to) = second.map_or((0, first), |second| (first, second));
    let step = usize::try_from(step.unwrap_or(1)).unwrap_or(0);
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "the step of a range is 1 or more"));
    }
    let numbers: Vec<_> = (from..to).step_by(step).take(MOST + 1).collect();
    if numbers.len() > MOST {
        return Err(Error::new(ErrorKind::InvalidOperation, "the range is too long"));
    }
    Ok(numbers)
}

impl<'a> Template<'a> {
    /// Cuts a text; `$${` stands for a plain `${`.
    pub fn parse(text: &'a str) -> Result<Self, ExprError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (plain, tail) = rest.split_at(at);
            if let Some(plain) = plain.strip_suffix('$') {
                parts.extend([Part::Text(plain), Part::Text("${")]);
                rest = &tail[2..];
                continue;
            }
            let Some(end) = closing(&tail[2..]) else {
                return Err(ExprError {
                    expr: tail.to_owned(),
                    message: "an expression is not closed".to_owned(),
                    expected: Some("`}` after the expression (write `$${` for a plain `${`)".to_owned()),
                });
            };
            parts.extend([Part::Text(plain), Part::Expr(&tail[2..2 + end])]);
            rest = &tail[2 + end + 1..];
        }
        parts.push(Part::Text(rest));
        parts.retain(|part| *part != Part::Text(""));
        Ok(Self { parts })
    }

    /// Every name in it.
    pub fn mentions(&self) -> Result<Vec<Mention>, ExprError> {
        let mut mentions = Vec::new();
        for part in &self.parts {
            let Part::Expr(source) = part else { continue };
            let compiled = LANGUAGE.compile_expression(source).map_err(|error| fault(source, &error))?;
            for name in compiled.undeclared_variables(true) {
                let mut words = name.split('.');
                let root = words.next().unwrap_or_default().to_owned();
                if !FUNCTIONS.contains(&root.as_str()) {
                    let name = words.next().map(str::to_owned);
                    mentions.push(Mention { expr: (*source).to_owned(), root, name });
                }
            }
        }
        mentions.sort();
        Ok(mentions)
    }

    /// Its value: that of the expression when it is one expression and nothing else, text otherwise.
    pub fn eval(&self, scope: &Scope) -> Result<Value, ExprError> {
        if let [Part::Expr(source)] = self.parts.as_slice() {
            return value_of(source, scope);
        }
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Expr(source) if text.len() > MOST => return Err(too_long(source)),
                Part::Expr(source) => match value_of(source, scope)? {
                    Value::String(value) => text.push_str(&value),
                    value @ (Value::Number(_) | Value::Bool(_)) => text.push_str(&value.to_string()),
                    _ => {
                        return Err(ExprError {
                            expr: (*source).to_owned(),
                            message: format!("`{}` cannot stand inside a text", source.trim()),
                            expected: Some("text or a number; a list has to be the whole value".to_owned()),
                        });
                    }
                },
            }
        }
        Ok(Value::String(text))
    }
}

fn value_of(source: &str, scope: &Scope) -> Result<Value, ExprError> {
    let compiled = LANGUAGE.compile_expression(source).map_err(|error| fault(source, &error))?;
    let value = compiled.eval(scope.0.clone()).map_err(|error| fault(source, &error))?;
    if value.is_undefined() {
        return Err(ExprError {
            expr: source.to_owned(),
            message: format!("`{}` has no value", source.trim()),
            expected: None,
        });
    }
    let value = serde_json::to_value(&value).map_err(|error| ExprError {
        expr: source.to_owned(),
        message: format!("`{}` has no plain value: {error}", source.trim()),
        expected: None,
    })?;
    if size(&value) > MOST { Err(too_long(source)) } else { Ok(value) }
}

/// Bytes of a value that an expression may have: a few lines in which variables repeat each other make any number of them.
const MOST: usize = 4 << 20;

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

fn too_long(source: &str) -> ExprError {
    let message = format!("`{}` makes a value of more than {} MiB", source.trim(), MOST >> 20);
    ExprError { expr: source.to_owned(), message, expected: None }
}

fn fault(source: &str, error: &Error) -> ExprError {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    ExprError { expr: source.to_owned(), message: format!("`{}` does not work: {what}", source.trim()), expected: None }
}

/// The byte of the brace that closes an expression, past braces and quotes inside it.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            _ => {}
        }
    }
    None
}
