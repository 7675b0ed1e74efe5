//! Chat templates: what stands around a user's message when a chat model reads it.
//!
//! A template is a program in Jinja that makes one text of a conversation, as transformers renders it. For editing only one thing of it
//! counts: what comes before and behind one message of the user, whose words are then known token by token. It is found by rendering a
//! conversation around a message that no one writes, and cutting the text there.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;
use serde_json::Map;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The message that no one writes: letters alone, so that no template changes it.
const MARK: &str = "qzxMESSAGEqzx";

/// What stands around a user's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Everything before it, a system message and beginning tokens included.
    pub before: String,
    /// Everything behind it, up to where the model goes on.
    pub after: String,
}

/// One message of a conversation.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// Its text.
    pub content: String,
}

impl Frame {
    /// Of a template, with a system message or what the template has where none is given; `tokens` are the special tokens by their names.
    ///
    /// # Errors
    /// What the template says, or does not hold, in words.
    pub fn of(template: &str, tokens: &Map<String, serde_json::Value>, system: Option<&str>) -> Result<Self, String> {
        let mut messages = Vec::new();
        messages.extend(system.map(|text| Message { role: "system", content: text.to_owned() }));
        messages.push(Message { role: "user", content: MARK.to_owned() });
        let text = render(template, tokens, &messages, true)?;
        match text.split(MARK).collect::<Vec<_>>()[..] {
            [before, after] => Ok(Self { before: before.to_owned(), after: after.to_owned() }),
            _ => Err("it does not hold a user's message once".into()),
        }
    }
}

/// A conversation as one text, as transformers renders it: blocks are trimmed, methods are Python's, and what Jinja does not have of itself
/// is what transformers adds. Only the clock is not there: what a template says must not hang on the day on which it is rendered, and
/// templates that ask for it have a date of their own.
///
/// # Errors
/// What Jinja or the template itself says.
pub fn render(
    template: &str,
    tokens: &Map<String, serde_json::Value>,
    messages: &[Message],
    go_on: bool,
) -> Result<String, String> {
    let told = |error: minijinja::Error| match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail} (line {})", error.kind(), error.line().unwrap_or_default()),
        None => format!("{} (line {})", error.kind(), error.line().unwrap_or_default()),
    };
    let mut jinja = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    jinja.set_syntax(syntax.map_err(told)?);
    jinja.set_undefined_behavior(UndefinedBehavior::Lenient);
    // A template is a stranger's program.
    jinja.set_fuel(Some(1_000_000));
    jinja.set_recursion_limit(64);
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    jinja.add_filter("tojson", to_json);
    let mut context = tokens.clone();
    context.retain(|name, _| name.ends_with("_token"));
    context.insert("messages".into(), serde_json::to_value(messages).map_err(|error| error.to_string())?);
    context.insert("add_generation_prompt".into(), go_on.into());
    let template = without_marks(template);
    let template = jinja.template_from_str(&template).map_err(told)?;
    template.render(Value::from(Serde(&context))).map_err(told)
}

/// As Python's `json.dumps` has it, which escapes nothing that need not be.
fn to_json(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut bytes = Vec::new();
    let done = if let Some(indent) = indent {
        let indent = " ".repeat(indent.min(64));
        let pretty = PrettyFormatter::with_indent(indent.as_bytes());
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
    } else {
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced))
    };
    let told = |message: String| minijinja::Error::new(ErrorKind::BadSerialization, message);
    done.map_err(|error| told(error.to_string()))?;
    String::from_utf8(bytes).map(Value::from).map_err(|error| told(error.to_string()))
}

/// JSON in one line with a space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Without the meaning of `{% generation %}`, by which training finds the assistant's part: what is inside is rendered.
fn without_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inside, after)) = tag.split_once("%}") else { break };
        let name = inside.trim_matches(['-', '+']).trim();
        let inside = match name {
            "generation" => inside.replace(name, "if true"),
            "endgeneration" => inside.replace(name, "endif"),
            _ => inside.to_owned(),
        };
        out.extend([before, "{%", &inside, "%}"]);
        rest = after;
    }
    out + rest
}
