//! `include:` puts other files under a pipeline: their mappings are merged, and what is nearer to the pipeline wins.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::places::{Places, child, item, second_document};
use super::report::Report;
use super::yaml::{self, Tree};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use palinode_error::did_you_mean;
use palinode_error::plain;

/// The key that names other files.
pub const KEY: &str = "include";

/// A pipeline with all that it includes, and where everything stands.
///
/// # Errors
/// When a file cannot be read: what is missing would be missed everywhere, and those mistakes are nobody's.
pub fn read(source: &Arc<Source>, base: &Path, files: &dyn Files) -> Result<(Tree, Report), Diagnostics> {
    let own = base.join(Path::new(&source.name).file_name().unwrap_or_default());
    let open = vec![(files.identity(&own), source.name.clone())];
    let mut reader =
        Reader { files, open, broken: false, read: 0, unfit: Vec::new(), mistakes: Diagnostics(Vec::new()) };
    let read = reader.file(source, base);
    match read.filter(|_| !reader.broken) {
        Some((tree, places)) => Ok((tree, Report::new(places, reader.mistakes, reader.unfit))),
        None => Err(reader.mistakes.sorted(source)),
    }
}

struct Reader<'a> {
    files: &'a dyn Files,
    /// The files that are being read, each included by the one before: who they are, and their names.
    open: Vec<(PathBuf, String)>,
    /// Whether a file could not be read.
    broken: bool,
    /// How many files were included; one counts as often as it is.
    read: usize,
    /// Where numbers stand that are none.
    unfit: Vec<Span>,
    mistakes: Diagnostics,
}

impl Reader<'_> {
    /// A file that lies in `folder`, with what it includes; `None` when it is not YAML.
    fn file(&mut self, source: &Arc<Source>, folder: &Path) -> Option<(Tree, Places)> {
        let mut own = match parse(source) {
            Ok(tree) => tree,
            Err(mistake) => {
                self.mistakes.add(*mistake);
                self.broken = true;
                return None;
            }
        };
        let own_places = Places::of(source);
        own.take_unfit("", &mut |path, wrong| {
            let (source, span) = own_places.value(path);
            let written = source.text.get(span.offset..span.offset + span.len).unwrap_or_default();
            let message = format!("`{path}`, `{}`, {wrong}", written.chars().take(40).collect::<String>());
            self.mistakes.add(Diagnostic::new(source, span, message));
            self.unfit.push(span);
        });
        for (path, span) in &own_places.duplicates {
            let name = path.rsplit('.').next().unwrap_or_default();
            let message = format!("the key `{name}` is given twice");
            self.mistakes.add(Diagnostic::new(source, *span, message).label("again"));
        }
        let Some(included) = take(&mut own) else { return Some((own, own_places)) };
        let (mut tree, mut places) = (Tree::Map(Vec::new()), own_places.empty());
        for (path, name) in self.names(&included, &own_places) {
            if let Some((under, under_places)) = self.included(&path, &name, folder, &own_places) {
                merge(&mut tree, under, "", &mut places, &under_places);
            }
        }
        merge(&mut tree, own, "", &mut places, &own_places);
        Some((tree, places))
    }

    /// The names of included files, each with its path in the including one.
    fn names(&mut self, included: &Tree, places: &Places) -> Vec<(String, String)> {
        let items: Vec<(String, &Tree)> = match included {
            Tree::Null => Vec::new(),
            Tree::List(items) => items.iter().enumerate().map(|(index, tree)| (item(KEY, index), tree)).collect(),
            one => vec![(KEY.to_owned(), one)],
        };
        let mut names = Vec::new();
        for (path, tree) in items {
            match tree {
                Tree::Text(name) if name.contains("${") => {
                    let message = "files are included before variables are known";
                    self.wrong(places, &path, message, |it| it.expected("a plain file name"));
                }
                Tree::Text(name) if !name.is_empty() => names.push((path, name.clone())),
                other => {
                    let what = if matches!(other, Tree::Text(_)) { "empty" } else { other.what() };
                    let expected = "a file name, or a list of file names";
                    self.wrong(places, &path, format!("`{path}` is {what}"), |it| it.expected(expected));
                }
            }
        }
        names
    }

    /// The file that `name`, written at `path` in the text of `places`, stands for.
    fn included(&mut self, path: &str, name: &str, folder: &Path, places: &Places) -> Option<(Tree, Places)> {
        let full = folder.join(name);
        let includer = self.open.last().map(|(_, name)| name.clone()).unwrap_or_default();
        let shown = straight(&Path::new(&includer).with_file_name(name)).display().to_string();
        let identity = self.files.identity(&full);
        if let Some(at) = self.open.iter().position(|(known, _)| *known == identity) {
            let names: Vec<&str> = self.open[at..].iter().map(|(_, name)| name.as_str()).collect();
            let message = match names.as_slice() {
                [one] => format!("{one} includes itself"),
                [first, ..] => format!("files include each other in a circle: {} → {first}", names.join(" → ")),
                [] => String::new(),
            };
            self.wrong(places, path, message, |it| it.label("closes the circle"));
            return None;
        }
        self.read += 1;
        if self.read > MOST {
            let message = format!("more than {MOST} files are included");
            self.wrong(places, path, message, |it| it.label("with this one"));
            return None;
        }
        let text = match self.files.text(&full) {
            Ok(text) => text,
            Err(error) => {
                let near = self.near(&full, name);
                self.wrong(places, path, format!("cannot read {shown}: {}", plain(&error)), |it| {
                    it.expected("a file, found from the folder of this one").hint(near)
                });
                return None;
            }
        };
        self.open.push((identity, shown.clone()));
        let read = self.file(&Source::new(shown, text), full.parent().unwrap_or(folder));
        self.open.pop();
        let (tree, places) = read?;
        if tree.pairs().is_none() {
            let message = format!("an included file is {}", tree.what());
            self.wrong(&places, "", message, |it| it.expected("a mapping (`key: value` lines)"));
            return None;
        }
        Some((tree, places))
    }

    /// A file beside the missing one that was most likely meant.
    fn near(&self, full: &Path, name: &str) -> Option<String> {
        let names = self.files.names(full.parent()?).into_iter();
        let yaml = names.filter(|name| Path::new(name).extension().is_some_and(|end| end == "yaml" || end == "yml"));
        let names: Vec<String> = yaml.map(|file| Path::new(name).with_file_name(file).display().to_string()).collect();
        did_you_mean(name, names.iter().map(String::as_str))
    }

    /// A file that cannot be had.
    fn wrong(
        &mut self,
        places: &Places,
        path: &str,
        message: impl Into<String>,
        more: impl FnOnce(Diagnostic) -> Diagnostic,
    ) {
        let (source, span) = places.value(path);
        self.mistakes.add(more(Diagnostic::new(source, span, message)));
        self.broken = true;
    }
}

/// How deep brackets lie in each other in a text, at most: no pipeline comes near, and parsers take time that grows with its square.
const DEEPEST: usize = 1000;

/// Files that are included at most, each counted as often as it is: files that include two others each would else be read 2ⁿ times.
const MOST: usize = 1000;

/// The first bracket that lies too deep. Brackets in texts and comments count as well: they come in pairs, or are few.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEEPEST
    })
}

fn parse(source: &Arc<Source>) -> Result<Tree, Box<Diagnostic>> {
    if let Some(at) = too_deep(&source.text) {
        let message = format!("lists and mappings lie in each other more than {DEEPEST} deep");
        return Err(Box::new(Diagnostic::new(source, source.span(at, 1), message)));
    }
    yaml::parse(&source.text).map_err(|error| {
        Box::new(if let Some(span) = second_document(source) {
            Diagnostic::new(source, span, "another document begins here")
                .expected("one pipeline in a file")
                .hint("put the other one into a file of its own".to_owned())
        } else {
            let span = source.span(error.offset.unwrap_or(0), 1);
            Diagnostic::new(source, span, format!("this is not YAML: {}", error.message))
        })
    })
}

/// Takes `include` out of a file: it says how to read, and is no part of the pipeline.
fn take(tree: &mut Tree) -> Option<Tree> {
    let Tree::Map(pairs) = tree else { return None };
    let at = pairs.iter().position(|(key, _)| key == KEY)?;
    Some(pairs.remove(at).1)
}

/// Lays one tree over another. Mappings are merged key by key; a key written as `~` takes away what was there; anything else
/// replaces it.
fn merge(tree: &mut Tree, over: Tree, path: &str, places: &mut Places, from: &Places) {
    match (tree, over) {
        (Tree::Map(pairs), Tree::Map(above)) => {
            places.take_one(path, from);
            for (key, value) in above {
                let path = child(path, &key);
                if let Some(at) = pairs.iter().position(|(name, _)| *name == key) {
                    if value == Tree::Null && tilde(from, &path) {
                        pairs.remove(at);
                    } else {
                        merge(&mut pairs[at].1, value, &path, places, from);
                    }
                } else {
                    places.take_all(&path, from);
                    pairs.push((key, value));
                }
            }
        }
        // A key without a value adds nothing to a mapping that is there.
        (Tree::Map(_), Tree::Null) => {}
        (tree, over) => {
            places.take_all(path, from);
            *tree = over;
        }
    }
}

/// Whether the value at a path is written down as `~` or `null`, and not left blank.
fn tilde(places: &Places, path: &str) -> bool {
    let (source, span) = places.value(path);
    let written = source.text.get(span.offset..span.offset + span.len).unwrap_or_default();
    matches!(written, "~" | "null" | "Null" | "NULL")
}

/// A path without `a/..`, as a person would have written it.
fn straight(path: &Path) -> PathBuf {
    let mut straight = PathBuf::new();
    for part in path.components() {
        match (part, straight.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                straight.pop();
            }
            _ => straight.push(part),
        }
    }
    straight
}
