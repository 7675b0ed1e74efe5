//! `path=value`: changes to a pipeline from outside its file.

use std::sync::Arc;

use super::report::Report;
use super::yaml::{self, Tree};
use crate::diagnostic::{Diagnostic, Source};
use palinode_error::{did_you_mean, one_of};

/// Applies one `path=value` to the tree. The value is YAML; the path is dotted, with `[n]` for items of lists.
pub fn apply(tree: &mut Tree, text: &str, report: &mut Report) {
    let source = Source::of_override(text);
    let Some((path, value)) = text.split_once('=') else {
        let mistake = Diagnostic::new(&source, source.span(0, text.len()), "there is no `=`");
        report.mistakes.add(mistake.expected("`path=value`, such as `stages.solve.with.lambda=15000`"));
        return;
    };
    let value_span = source.span(path.len() + 1, value.len());
    let mut value = match yaml::parse(value) {
        Ok(value) => value,
        Err(error) => {
            report.mistakes.add(Diagnostic::new(
                &source,
                value_span,
                format!("the value is not YAML: {}", error.message),
            ));
            return;
        }
    };
    let mut unfit = None;
    value.take_unfit("", &mut |_, wrong| unfit = Some(wrong));
    if let Some(wrong) = unfit {
        report.mistakes.add(Diagnostic::new(&source, value_span, format!("the value {wrong}")));
        return;
    }
    let path = path.trim();
    if path.is_empty() {
        let mistake = Diagnostic::new(&source, source.span(0, text.len()), "there is no path before the `=`");
        report.mistakes.add(mistake.expected("`path=value`, such as `stages.solve.with.lambda=15000`"));
        return;
    }
    match put(tree, "", path, value, &source) {
        Ok(()) => {
            let last = path.rfind(['.', '[']).map_or(0, |at| at + 1);
            report.places.set(path, &source, source.span(last, path.len() - last), value_span);
        }
        Err(mistake) => report.mistakes.add(*mistake),
    }
}

fn put(tree: &mut Tree, done: &str, rest: &str, value: Tree, source: &Arc<Source>) -> Result<(), Box<Diagnostic>> {
    if rest.is_empty() {
        *tree = value;
        return Ok(());
    }
    let at = source.text.len().min(source.text.find('=').unwrap_or_default()).saturating_sub(rest.len());
    let wrong = |len: usize, message: String| Box::new(Diagnostic::new(source, source.span(at, len), message));
    if let Some(index) = rest.strip_prefix('[') {
        let (index, after) = index.split_once(']').ok_or_else(|| wrong(rest.len(), "`]` is missing".to_owned()))?;
        let Tree::List(items) = tree else {
            return Err(wrong(rest.len(), format!("`{done}` is {}, not a list", tree.what())));
        };
        let most = items.len();
        let item = index.parse::<usize>().ok().and_then(|index| items.get_mut(index));
        let item = item.ok_or_else(|| wrong(index.len() + 2, format!("`{done}` has {most} items, counted from 0")))?;
        return put(item, &format!("{done}[{index}]"), after.strip_prefix('.').unwrap_or(after), value, source);
    }
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (key, after) = rest.split_at(end);
    let after = after.strip_prefix('.').unwrap_or(after);
    if *tree == Tree::Null {
        *tree = Tree::Map(Vec::new());
    }
    let Tree::Map(pairs) = tree else {
        return Err(wrong(rest.len(), format!("`{done}` is {}, not a mapping", tree.what())));
    };
    if !pairs.iter().any(|(name, _)| name == key) {
        // Only parameters and parts of a stage can be new: anything else that is not there is a slip of the fingers.
        let depth = done.split('.').filter(|word| !word.is_empty()).count();
        let top = done.split('.').next().unwrap_or_default();
        if !(top == "stages" && depth >= 2) {
            let names = || pairs.iter().map(|(name, _)| name.as_str());
            let owner = if done.is_empty() { "the pipeline".to_owned() } else { format!("`{done}`") };
            let mistake = wrong(key.len(), format!("{owner} has no `{key}` to set"));
            return Err(Box::new(mistake.expected(one_of(names())).hint(did_you_mean(key, names()))));
        }
        pairs.push((key.to_owned(), Tree::Null));
    }
    let place = pairs.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value);
    let done = super::places::child(done, key);
    place.map_or(Ok(()), |place| put(place, &done, after, value, source))
}
