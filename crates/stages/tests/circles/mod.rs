//! Which files of a crate use each other in a circle.
//!
//! A file uses another when it names something that is defined there, in a `use` or in a path. What a module passes on with
//! `pub use` is followed to where it is defined: to pass on is not to use. So a circle is two files that cannot be read, tested
//! or moved one without the other, however the paths between them are written. Tests inside files do not count.

pub mod lex;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use lex::{Token, defines, tokens};

/// A module's path from the root of its crate: none for the root itself.
type Module = Vec<String>;

/// A name that a file brings in: `use path as name`; `*` for everything.
struct Import {
    path: Vec<String>,
    name: String,
    passed_on: bool,
}

struct File {
    name: String,
    imports: Vec<Import>,
    /// Paths of two names or more outside of `use`.
    paths: Vec<Vec<String>>,
    /// Words outside of `use`.
    words: BTreeSet<String>,
    tokens: Vec<Token>,
}

/// The files of one crate by module.
pub struct Crate(BTreeMap<Module, File>);

impl Crate {
    /// Reads the files below `src`.
    pub fn read(src: &Path) -> Self {
        let mut texts = Vec::new();
        let mut folders = vec![src.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "rs") {
                    let name = path.strip_prefix(src).unwrap_or(&path).display().to_string();
                    texts.push((name, fs::read_to_string(&path).unwrap_or_default()));
                }
            }
        }
        Self::of(&texts)
    }

    /// From names such as `store/gc.rs`, and texts. Without a `lib.rs`, a `main.rs` is the root.
    pub fn of(texts: &[(String, String)]) -> Self {
        let root = if texts.iter().any(|(name, _)| name == "lib.rs") { "lib" } else { "main" };
        let file = |(name, text): &(String, String)| {
            let path = name.strip_suffix(".rs").unwrap_or(name);
            let mut module: Module = path.split('/').map(str::to_owned).collect();
            if path == root || path.ends_with("/mod") {
                module.pop();
            }
            (module, File::read(name.clone(), text))
        };
        Self(texts.iter().map(file).collect())
    }

    /// Every set of files that all use each other, directly or by way of others of the set.
    pub fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let uses: BTreeMap<&Module, BTreeSet<Module>> =
            self.0.keys().map(|module| (module, self.used_by(module))).collect();
        let reach = |from: &Module| {
            let mut seen: BTreeSet<&Module> = BTreeSet::new();
            let mut open: Vec<&Module> = uses[from].iter().collect();
            while let Some(at) = open.pop() {
                if seen.insert(at) {
                    open.extend(&uses[at]);
                }
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.0.keys().map(|module| (module, reach(module))).collect();
        let circle = |module: &&Module| {
            let back = reached[*module].iter().filter(|other| reached[**other].contains(module));
            back.map(|other| self.0[*other].name.clone()).collect::<BTreeSet<_>>()
        };
        self.0.keys().map(|module| circle(&module)).filter(|circle| circle.len() > 1).collect()
    }

    fn used_by(&self, module: &Module) -> BTreeSet<Module> {
        let file = &self.0[module];
        let mut used = BTreeSet::new();
        for import in &file.imports {
            // What is passed on is used here only if it is also named here.
            if !import.passed_on || file.words.contains(&import.name) {
                used.extend(self.resolve(module, &import.path, 0));
            }
        }
        for path in &file.paths {
            // A path may begin with a module that was brought in.
            let import = file.imports.iter().find(|import| import.name == path[0]);
            let whole: Option<Vec<String>> =
                import.map(|import| import.path.iter().chain(&path[1..]).cloned().collect());
            used.extend(self.resolve(module, whole.as_ref().unwrap_or(path), 0));
        }
        used.remove(module);
        used
    }

    /// The module whose file defines what a path in the file of `from` stands for; `None` for what is not of this crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (Module::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {}
            first if self.0.contains_key(&child(from, first)) => {}
            _ => return None,
        }
        while let Some((name, after)) = rest.split_first() {
            if name == "super" {
                at.pop();
            } else if self.0.contains_key(&child(&at, name)) {
                at.push(name.clone());
            } else {
                return Some(self.defined(&at, name, depth));
            }
            rest = after;
        }
        Some(at)
    }

    /// Where the item that `module` has under this name is defined.
    fn defined(&self, module: &Module, name: &str, depth: usize) -> Module {
        const DEEPEST: usize = 8;
        let Some(file) = self.0.get(module).filter(|_| depth < DEEPEST) else { return module.clone() };
        if defines(&file.tokens, name) {
            return module.clone();
        }
        let named = file.imports.iter().find(|import| import.name == name);
        if let Some(found) = named.and_then(|import| self.resolve(module, &import.path, depth + 1)) {
            return found;
        }
        let globs = file.imports.iter().filter(|import| import.name == "*");
        for from in globs.filter_map(|import| self.resolve(module, &import.path, depth + 1)) {
            if self.0.get(&from).is_some_and(|file| defines(&file.tokens, name)) {
                return from;
            }
        }
        module.clone()
    }
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

impl File {
    fn read(name: String, text: &str) -> Self {
        let tokens = tokens(text);
        let mut file =
            Self { name, imports: Vec::new(), paths: Vec::new(), words: BTreeSet::new(), tokens: Vec::new() };
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                Token::Word(word) if word == "use" => {
                    let passed_on =
                        matches!(
                            at.checked_sub(1).map(|before| &tokens[before]),
                            Some(Token::Word(word)) if word == "pub"
                        ) || matches!(at.checked_sub(1).map(|before| &tokens[before]), Some(Token::Sign(')')));
                    at = tree(&tokens, at + 1, &[], passed_on, &mut file.imports);
                }
                Token::Word(word) => {
                    let mut path = vec![word.clone()];
                    at += 1;
                    while let (Some(Token::Sep), Some(Token::Word(next))) = (tokens.get(at), tokens.get(at + 1)) {
                        path.push(next.clone());
                        at += 2;
                    }
                    file.words.extend(path.iter().cloned());
                    if path.len() > 1 {
                        file.paths.push(path);
                    }
                }
                _ => at += 1,
            }
        }
        file.tokens = tokens;
        file
    }
}

/// Reads what follows `use`, or stands between its braces; gives the place behind it.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], passed_on: bool, imports: &mut Vec<Import>) -> usize {
    let mut path = prefix.to_vec();
    let mut add = |path: &[String], name: Option<&str>| {
        let path: Vec<String> = if path.last().is_some_and(|last| last == "self") {
            path[..path.len() - 1].to_vec()
        } else {
            path.to_vec()
        };
        let name = name.map(str::to_owned).or_else(|| path.last().cloned());
        imports.extend(name.map(|name| Import { path, name, passed_on }));
    };
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Word(word) if word == "as" => {
                add(&path, tokens.get(at).and_then(Token::word));
                path.clear();
                at += 1;
            }
            Token::Word(word) => path.push(word.clone()),
            Token::Sign('*') => {
                add(&path, Some("*"));
                path.clear();
            }
            Token::Sign('{') => {
                loop {
                    at = tree(tokens, at, &path, passed_on, imports);
                    match tokens.get(at - 1) {
                        Some(Token::Sign(',')) => {}
                        _ => break,
                    }
                }
                return after_braces(tokens, at);
            }
            Token::Sign(',' | '}' | ';') => {
                if path.len() > prefix.len() {
                    add(&path, None);
                }
                return at;
            }
            _ => {}
        }
    }
    at
}

/// The place behind the `,`, `}` or `;` that follows a closing brace.
fn after_braces(tokens: &[Token], at: usize) -> usize {
    match tokens.get(at) {
        Some(Token::Sign(',' | '}' | ';')) => at + 1,
        _ => at,
    }
}
