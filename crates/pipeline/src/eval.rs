//! Values of trees with expressions in them, and the names that they mention; what does not work is reported.

use serde_json::Value;

use super::expr::{ExprError, Mention, Scope, Template};
use super::places::{child, item};
use super::report::Report;
use super::yaml::Tree;

/// The value of a tree with its expressions evaluated; `None` when one has none, which is reported.
pub fn eval(tree: &Tree, path: &str, scope: &Scope, report: &mut Report) -> Option<Value> {
    Some(match tree {
        Tree::Text(text) => {
            let value = Template::parse(text).and_then(|template| template.eval(scope));
            return value.map_err(|error| fault(error, path, report)).ok();
        }
        Tree::List(items) => {
            let values: Vec<_> =
                items.iter().enumerate().map(|(index, tree)| eval(tree, &item(path, index), scope, report)).collect();
            Value::Array(values.into_iter().collect::<Option<_>>()?)
        }
        Tree::Map(pairs) => {
            let values: Vec<_> = pairs
                .iter()
                .map(|(name, tree)| eval(tree, &child(path, name), scope, report).map(|value| (name.clone(), value)))
                .collect();
            Value::Object(values.into_iter().collect::<Option<_>>()?)
        }
        plain => plain.to_value(),
    })
}

/// The names in a text; one that does not parse is reported and has none.
pub fn mentions(text: &str, path: &str, report: &mut Report) -> Vec<Mention> {
    let mentions = Template::parse(text).and_then(|template| template.mentions());
    mentions.map_err(|error| fault(error, path, report)).unwrap_or_default()
}

fn fault(error: ExprError, path: &str, report: &mut Report) {
    report.part(path, &error.expr, error.message, |mut it| {
        it.expected = error.expected;
        it
    });
}
