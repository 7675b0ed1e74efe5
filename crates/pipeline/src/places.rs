//! Where in the text each part of a pipeline stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, Span as Marks};

use crate::diagnostic::{Origin, Source, Span};

/// The place of one value.
#[derive(Clone, Debug)]
pub struct Place {
    source: Arc<Source>,
    key: Option<Span>,
    value: Span,
}

/// Places by path, such as `stages.solve.with.layers[2]`.
#[derive(Clone, Debug)]
pub struct Places {
    whole: Place,
    by_path: BTreeMap<String, Place>,
    /// Paths of values with an anchor, which other places may repeat.
    anchored: BTreeSet<String>,
    /// Paths of keys that stand twice, with the place of the second.
    pub duplicates: Vec<(String, Span)>,
}

/// The path of `key` below `path`.
pub fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path of item `index` of `path`.
pub fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Whether `known` is `path` or stands below it.
fn within(known: &str, path: &str) -> bool {
    path.is_empty() || known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Where a second document begins in a text, if one does.
pub fn second_document(source: &Arc<Source>) -> Option<Span> {
    let walk = Walk::new(source);
    let events = Parser::new_from_str(&source.text).map_while(Result::ok);
    let mut begins = events.filter(|(event, _)| matches!(event, Event::DocumentStart(_)));
    begins.nth(1).map(|(_, marks)| walk.span(marks))
}

impl Places {
    /// Finds the places in a text. One that does not parse has none: the caller has reported it already.
    pub fn of(source: &Arc<Source>) -> Self {
        let start = source.span(0, source.text.lines().next().unwrap_or_default().len());
        let whole = Place { source: Arc::clone(source), key: None, value: start };
        let mut walk = Walk::new(source);
        for event in Parser::new_from_str(&source.text) {
            let Ok((event, marks)) = event else { break };
            walk.event(&event, marks);
        }
        Self { whole, by_path: walk.by_path, anchored: walk.anchored, duplicates: walk.duplicates }
    }

    /// Of a pipeline that is built in code, with no place but that of the whole.
    pub fn of_code(whole: &Arc<Source>) -> Self {
        let value = whole.span(0, whole.text.len());
        let whole = Place { source: Arc::clone(whole), key: None, value };
        Self { whole, by_path: BTreeMap::new(), anchored: BTreeSet::new(), duplicates: Vec::new() }
    }

    /// Puts `path` into a text of its own, all of it. What stands around a path is put before what stands in it.
    pub fn set_whole(&mut self, path: &str, source: &Arc<Source>) {
        let line = source.text.lines().next().unwrap_or_default().len();
        let span = source.span(0, line);
        self.set(path, source, span, span);
    }

    /// The place of a value: its text where that fits on one line, else its key. A path that does not stand in the text has
    /// the place of the nearest part around it.
    pub fn value(&self, path: &str) -> (&Arc<Source>, Span) {
        let (exact, place) = self.nearest(path);
        (&place.source, if exact { place.value } else { place.key.unwrap_or(place.value) })
    }

    /// The place of a key, or of an item of a list.
    pub fn key(&self, path: &str) -> (&Arc<Source>, Span) {
        let (_, place) = self.nearest(path);
        (&place.source, place.key.unwrap_or(place.value))
    }

    /// Puts `path` and all below it into another text.
    pub fn set(&mut self, path: &str, source: &Arc<Source>, key: Span, value: Span) {
        self.by_path.retain(|known, _| !within(known, path));
        self.by_path.insert(path.to_owned(), Place { source: Arc::clone(source), key: Some(key), value });
    }

    /// The path of what was set from outside: the value at a path, or one in it.
    pub fn set_within(&self, path: &str) -> Option<String> {
        let set = |(known, place): &(&String, &Place)| within(known, path) && place.source.origin == Origin::Override;
        self.by_path.iter().find(set).map(|(known, _)| known.clone())
    }

    /// Whether the value at a path, or one in it, has an anchor.
    pub fn is_anchored(&self, path: &str) -> bool {
        self.anchored.iter().any(|known| within(known, path))
    }

    /// The same text, with no place in it yet.
    pub fn empty(&self) -> Self {
        let anchored = self.anchored.clone();
        Self { whole: self.whole.clone(), by_path: BTreeMap::new(), anchored, duplicates: Vec::new() }
    }

    /// Takes the place of `path` alone from another text.
    pub fn take_one(&mut self, path: &str, from: &Self) {
        if let Some(place) = from.by_path.get(path) {
            self.by_path.insert(path.to_owned(), place.clone());
        }
    }

    /// Takes the places of `path` and all below it from another text.
    pub fn take_all(&mut self, path: &str, from: &Self) {
        self.by_path.retain(|known, _| !within(known, path));
        // Paths below one another do not stand beside each other in the order of texts: `a-b` comes between `a` and `a.b`.
        let taken = from.by_path.range(path.to_owned()..).take_while(|(known, _)| known.starts_with(path));
        let taken = taken.filter(|(known, _)| within(known, path));
        self.by_path.extend(taken.map(|(known, place)| (known.clone(), place.clone())));
    }

    fn nearest(&self, path: &str) -> (bool, &Place) {
        let mut at = path;
        loop {
            if let Some(place) = self.by_path.get(at) {
                return (at.len() == path.len(), place);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => return (false, &self.whole),
            }
        }
    }
}

enum Frame {
    List { path: String, next: usize },
    Map { path: String, seen: BTreeSet<String>, key: Option<(String, Span)> },
}

/// Follows the events of a document; iterative, so that deep nesting costs memory and not the stack.
struct Walk<'a> {
    source: &'a Arc<Source>,
    /// Byte offset of each character; empty when the text is ASCII and they are the same.
    bytes: Vec<usize>,
    frames: Vec<Frame>,
    by_path: BTreeMap<String, Place>,
    anchored: BTreeSet<String>,
    duplicates: Vec<(String, Span)>,
}

impl<'a> Walk<'a> {
    fn new(source: &'a Arc<Source>) -> Self {
        let text = &source.text;
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Self {
            source,
            bytes,
            frames: Vec::new(),
            by_path: BTreeMap::new(),
            anchored: BTreeSet::new(),
            duplicates: Vec::new(),
        }
    }

    fn event(&mut self, event: &Event<'_>, marks: Marks) {
        let span = self.span(marks);
        match event {
            Event::Scalar(text, _, anchor, _) => {
                if let Some(Frame::Map { key: key @ None, path, seen }) = self.frames.last_mut() {
                    if !seen.insert(text.to_string()) {
                        self.duplicates.push((child(path, text), span));
                    }
                    *key = Some((text.to_string(), span));
                } else {
                    let path = self.value(span);
                    self.anchor(&path, *anchor);
                }
            }
            Event::Alias(_) => {
                self.value(span);
            }
            Event::SequenceStart(anchor, _) => {
                let path = self.value(span);
                self.anchor(&path, *anchor);
                self.frames.push(Frame::List { path, next: 0 });
            }
            Event::MappingStart(anchor, _) => {
                let path = self.value(span);
                self.anchor(&path, *anchor);
                self.frames.push(Frame::Map { path, seen: BTreeSet::new(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Frame::List { path, .. } | Frame::Map { path, .. }) = self.frames.pop() {
                    self.close(&path, span);
                }
            }
            _ => {}
        }
    }

    /// Notes an anchor, where there is one.
    fn anchor(&mut self, path: &str, anchor: usize) {
        if anchor > 0 {
            self.anchored.insert(path.to_owned());
        }
    }

    /// Notes the place of the value that begins here and gives its path.
    fn value(&mut self, span: Span) -> String {
        let (path, key) = match self.frames.last_mut() {
            None => (String::new(), None),
            Some(Frame::List { path, next }) => {
                *next += 1;
                (item(path, *next - 1), None)
            }
            Some(Frame::Map { path, key, .. }) => match key.take() {
                Some((name, span)) => (child(path, &name), Some(span)),
                // A mapping or list as a key: serde_yaml refuses the document.
                None => (child(path, "?"), None),
            },
        };
        let place = Place { source: Arc::clone(self.source), key, value: span };
        self.by_path.entry(path.clone()).or_insert(place);
        path
    }

    /// A list or mapping ended: show all of it if it stands on one line, else its key.
    fn close(&mut self, path: &str, end: Span) {
        let Some(place) = self.by_path.get_mut(path) else { return };
        let until = end.offset + end.len;
        let whole = self.source.text.get(place.value.offset..until).unwrap_or_default();
        let flow = whole.starts_with(['[', '{']);
        if flow && !whole.contains('\n') {
            place.value.len = whole.len();
        } else if let Some(key) = place.key {
            place.value = key;
        }
    }

    fn span(&self, marks: Marks) -> Span {
        let byte = |index: usize| {
            if self.bytes.is_empty() {
                index.min(self.source.text.len())
            } else {
                self.bytes.get(index).copied().unwrap_or(self.source.text.len())
            }
        };
        let offset = byte(marks.start.index());
        if offset == self.source.text.len() {
            return self.source.span(offset, 0);
        }
        let end = byte(marks.end.index()).max(offset);
        let text = self.source.text.get(offset..end).unwrap_or_default();
        // Plain scalars may take the white space after them along.
        let len = text.lines().next().unwrap_or_default().trim_end().len();
        Span { offset, len, line: marks.start.line(), column: marks.start.col() + 1 }
    }
}
