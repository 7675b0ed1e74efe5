//! The pipeline file as it is written: names, variables, axes and stages, with expressions not yet evaluated.

use super::places::{child, item};
use super::report::Report;
use super::yaml::Tree;
use palinode_error::{did_you_mean, one_of};

/// A pipeline as written.
#[derive(Debug, Default)]
pub struct Spec {
    pub name: String,
    pub description: Option<String>,
    pub strict: bool,
    pub strict_checks: bool,
    pub replicates: Option<Tree>,
    pub vars: Vec<(String, Tree)>,
    pub axes: Vec<(String, Tree)>,
    pub include: Option<Tree>,
    pub exclude: Option<Tree>,
    pub stages: Vec<StageSpec>,
}

/// A stage as written.
#[derive(Debug)]
pub struct StageSpec {
    pub id: String,
    pub uses: String,
    pub inputs: Vec<(String, String)>,
    pub with: Tree,
    pub retries: Tree,
    pub timeout: Tree,
}

impl StageSpec {
    /// Its path in the file.
    pub fn path(&self) -> String {
        child("stages", &self.id)
    }
}

const TOP: [&str; 9] =
    ["name", "description", "include", "numerics", "checks", "vars", "matrix", "replicates", "stages"];
/// Those of them that may be left out.
const OPTIONAL: [&str; 6] = ["description", "numerics", "checks", "vars", "matrix", "replicates"];
const STAGE: [&str; 5] = ["uses", "inputs", "with", "retries", "timeout"];

/// What a file is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A pipeline, with all that it includes.
    Whole,
    /// What others include: the rest may stand there.
    Part,
}

/// Whether a field that has a usual value says `strict`.
fn strict(value: &Tree, key: &str, usual: &str, report: &mut Report) -> bool {
    match text(value, key, report).as_deref() {
        Some("strict") => true,
        None => false,
        Some(other) if other == usual => false,
        Some(other) => {
            report.value(key, format!("`{key}` cannot be `{other}`"), |it| {
                let it = it.expected(format!("`{usual}` or `strict`"));
                match did_you_mean(other, [usual, "strict"]) {
                    Some(hint) => it.hint(hint),
                    None => it,
                }
            });
            false
        }
    }
}

/// Reads a pipeline from a tree; what is wrong is reported and left out.
pub fn read(tree: &Tree, form: Form, report: &mut Report) -> Spec {
    let mut spec = Spec::default();
    let Some(pairs) = pairs(tree, "", "the pipeline", report) else { return spec };
    for (key, value) in pairs {
        // What is left blank is not given.
        if *value == Tree::Null && OPTIONAL.contains(&key.as_str()) {
            continue;
        }
        match key.as_str() {
            "name" => spec.name = text(value, key, report).unwrap_or_default(),
            "description" => spec.description = text(value, key, report),
            "numerics" => spec.strict = strict(value, key, "portable", report),
            "checks" => spec.strict_checks = strict(value, key, "lenient", report),
            "replicates" => spec.replicates = Some(value.clone()),
            "vars" => spec.vars = named(value, key, "a variable", report),
            "matrix" => {
                for (name, value) in self::pairs(value, key, "`matrix`", report).unwrap_or_default() {
                    match name.as_str() {
                        "include" | "exclude" if *value == Tree::Null => {}
                        "include" => spec.include = Some(value.clone()),
                        "exclude" => spec.exclude = Some(value.clone()),
                        _ if identifier(name, &child(key, name), "an axis", report) => {
                            spec.axes.push((name.clone(), value.clone()));
                        }
                        _ => {}
                    }
                }
            }
            "stages" => {
                let stages = self::pairs(value, key, "`stages`", report).unwrap_or_default();
                spec.stages = stages.iter().filter_map(|(id, value)| stage(id, value, form, report)).collect();
            }
            _ => unknown(key, key, "a pipeline", &TOP, report),
        }
    }
    let missing = |name: &str| form == Form::Whole && !pairs.iter().any(|(key, _)| key == name);
    let named = pairs.iter().any(|(key, value)| key == "name" && *value != Tree::Null);
    if missing("name") {
        report.key("", "the pipeline has no name", |it| it.label("add a line").expected("`name: …`"));
    } else if named && spec.name.is_empty() {
        report.value("name", "the name is empty", |it| it.expected("a few words"));
    } else if spec.name.contains(char::is_control) {
        report.value("name", "the name has control characters in it", |it| it.expected("a few words on one line"));
    }
    if missing("stages") {
        report.key("", "the pipeline has no stages", |it| {
            it.label("add them").expected("`stages:` and one stage or more")
        });
    }
    spec
}

fn stage(id: &str, tree: &Tree, form: Form, report: &mut Report) -> Option<StageSpec> {
    let path = child("stages", id);
    let fine = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !fine || !id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let message = format!("`{id}` cannot be the name of a stage");
        report.key(&path, message, |it| it.expected("a letter, then letters, digits, `_` and `-`"));
        return None;
    }
    let mut stage = StageSpec {
        id: id.to_owned(),
        uses: String::new(),
        inputs: Vec::new(),
        with: Tree::Null,
        retries: Tree::Null,
        timeout: Tree::Null,
    };
    // It takes away the stage of that name of another file.
    if form == Form::Part && *tree == Tree::Null {
        return Some(stage);
    }
    let pairs = pairs(tree, &path, &format!("stage `{id}`"), report)?;
    for (key, value) in pairs {
        let path = child(&path, key);
        match key.as_str() {
            "uses" if *value == Tree::Null => {
                report.value(&path, "`uses` has no value", |it| it.expected("the name of a stage kind"));
            }
            "uses" => stage.uses = text(value, &path, report).unwrap_or_default(),
            "inputs" => {
                for (port, value) in self::pairs(value, &path, "`inputs`", report).unwrap_or_default() {
                    if *value == Tree::Null {
                        continue;
                    }
                    let from = text(value, &child(&path, port), report);
                    stage.inputs.extend(from.map(|from| (port.clone(), from)));
                }
            }
            "with" => stage.with = value.clone(),
            "retries" => stage.retries = value.clone(),
            "timeout" => stage.timeout = value.clone(),
            _ => unknown(key, &path, "a stage", &STAGE, report),
        }
    }
    if form == Form::Whole && !pairs.iter().any(|(key, _)| key == "uses") {
        let message = format!("stage `{id}` does not say what it uses");
        report.key(&path, message, |it| it.expected("`uses:` and the name of a stage kind"));
    }
    Some(stage)
}

fn unknown(key: &str, path: &str, owner: &str, known: &[&str], report: &mut Report) {
    let hint = did_you_mean(key, known.iter().copied());
    let expected = one_of(known.iter().copied());
    report.key(path, format!("{owner} has no key `{key}`"), |it| it.label("unknown key").expected(expected).hint(hint));
}

/// The pairs of a mapping; anything else is reported.
fn pairs<'a>(tree: &'a Tree, path: &str, what: &str, report: &mut Report) -> Option<&'a [(String, Tree)]> {
    let pairs = tree.pairs();
    if pairs.is_none() {
        report.value(path, format!("{what} is {}", tree.what()), |it| it.expected("a mapping (`key: value` lines)"));
    }
    pairs
}

fn text(tree: &Tree, path: &str, report: &mut Report) -> Option<String> {
    match tree {
        Tree::Text(text) => Some(text.clone()),
        Tree::Number(number) => Some(number.to_string()),
        Tree::Null => {
            report.value(path, format!("`{path}` has no value"), |it| it.expected("text"));
            None
        }
        other => {
            report.value(path, format!("`{path}` is {}", other.what()), |it| it.expected("text"));
            None
        }
    }
}

fn named(tree: &Tree, path: &str, what: &str, report: &mut Report) -> Vec<(String, Tree)> {
    let pairs = pairs(tree, path, &format!("`{path}`"), report).unwrap_or_default();
    pairs.iter().filter(|(name, _)| identifier(name, &child(path, name), what, report)).cloned().collect()
}

/// Names that expressions use have to be words of the expression language.
fn identifier(name: &str, path: &str, what: &str, report: &mut Report) -> bool {
    let fine = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !fine {
        let message = format!("`{name}` cannot be the name of {what}");
        report.key(path, message, |it| it.expected("a letter, then letters, digits and `_`"));
    }
    fine
}

/// Calls `visit` with the path and text of every text in a tree.
pub fn texts<'a>(tree: &'a Tree, path: &str, visit: &mut impl FnMut(&str, &'a str)) {
    match tree {
        Tree::Text(text) => visit(path, text),
        Tree::List(items) => {
            for (index, value) in items.iter().enumerate() {
                texts(value, &item(path, index), visit);
            }
        }
        Tree::Map(pairs) => {
            for (key, value) in pairs {
                texts(value, &child(path, key), visit);
            }
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Unfit(_) => {}
    }
}
