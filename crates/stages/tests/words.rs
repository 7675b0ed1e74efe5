//! Words that must not come back, each with the word that stands in its place; and links of the documentation, which must lead
//! to a file.
//!
//! Code, comments and documentation use one word for one thing. Texts that people read (documentation, help, messages) use
//! present-day English on top of that. A word is found as a whole word, also as a part of a name: `lanes` in `MOST_LANES` and in
//! `DealtLanes`, but not in `planes`.

use std::fs;
use std::path::{Path, PathBuf};

/// Words of our own making for which the field has a name: not in code, not in comments, not in texts.
const NAMES: [(&str, &str); 19] = [
    ("lane", "worker"),
    ("lanes", "worker pool"),
    ("forks", "shared-prefix batch"),
    ("starved", "out of memory"),
    ("finder", "optimizer cache"),
    ("preimage", "fingerprint"),
    ("given_requests", "inline_requests"),
    ("at_once", "parallel_requests, or batch_tokens"),
    ("card", "GPU"),
    ("cards", "GPUs"),
    ("processor", "CPU"),
    ("processors", "CPUs"),
    ("perform", "execute"),
    ("performs", "executes"),
    ("performed", "executed"),
    ("performing", "executing"),
    ("least lately", "least recently"),
    ("for want of", "for lack of, or say what is missing"),
    ("wherefrom", "where … from"),
];

/// Turns of phrase that a reader has to parse twice: not in texts that people read.
const PHRASES: [(&str, &str); 11] = [
    ("told", "reported, shown, given, read from"),
    ("asked", "requested, evaluated, or say who does what"),
    ("tells of", "shows, describes"),
    ("tell of", "show, describe"),
    ("heeded", "used"),
    ("nobody", "say who does what"),
    ("whoever", "say who"),
    ("is up to", "depends on, or say who decides"),
    ("as it stands", "as it is then, or leave it out"),
    ("by its end", "with its exit status"),
    ("what it takes", "what it needs"),
];

/// Places where a word has another meaning, or is a name that is not ours to choose: file, word, reason.
const ALLOWED: [(&str, &str, &str); 25] = [
    ("crates/store/src/manifest.rs", "preimage", "a field's name on disk"),
    ("crates/engine/src/action.rs", "preimage", "a field's name on disk"),
    ("python/palinode/_artifact.py", "preimage", "a field's name on disk"),
    ("crates/cli/src/commands/graph/text.rs", "lane", "a column of a drawn graph, as in version control"),
    ("crates/cli/src/commands/graph/text.rs", "lanes", "columns of a drawn graph"),
    ("crates/kernels/src/tile.rs", "lanes", "a constant of the library of vectors"),
    ("CHANGELOG.md", "at_once", "the old name of a parameter, which is still read"),
    ("crates/pipeline/src/renamed.rs", "at_once", "the old name of a parameter, as an example"),
    ("crates/stages/src/edit/sequence.rs", "at_once", "the old name of a parameter, which is still read"),
    (
        "crates/stages/src/edit/targets.rs",
        "at_once",
        "the old name of a parameter, which is still read; a field of keys",
    ),
    ("crates/stages/src/judge/preflight.rs", "at_once", "the old name of a parameter, which is still read"),
    ("crates/stages/tests/units.rs", "at_once", "the test that the old name is still read"),
    ("CHANGELOG.md", "card", "a model card, as the Hub calls it"),
    ("crates/cli/tests/cards.rs", "card", "a model card, as the Hub calls it"),
    ("crates/stages/src/sinks/export/card.rs", "card", "a model card, as the Hub calls it"),
    ("crates/stages/src/sinks/export/mod.rs", "card", "a model card, as the Hub calls it"),
    ("crates/report/templates/edits.html", "cards", "a way to lay out a page, each row a card"),
    ("scripts/gpu_check/__main__.py", "processor", "a function of Python's platform module"),
    ("scripts/make_family_fixtures.py", "processor", "a field of tokenizer.json, by the tokenizers library"),
    ("scripts/make_family_fixtures.py", "processors", "a module of the tokenizers library"),
    ("scripts/make_gguf_fixtures.py", "processor", "a field of tokenizer.json, by the tokenizers library"),
    ("scripts/make_gguf_fixtures.py", "processors", "a module of the tokenizers library"),
    ("crates/model/src/checkpoint/gguf/tokenizer.rs", "processor", "the post-processor of tokenizer.json"),
    ("crates/model/tests/hostile.rs", "processor", "the post-processor of tokenizer.json"),
    ("crates/model/src/tokens/text.rs", "processor", "the post-processor of tokenizer.json"),
];

/// Where we look, from the root of the repository, and what we read there.
const FOLDERS: [&str; 12] = [
    ".ci",
    ".github",
    "benches",
    "crates",
    "docs",
    "examples",
    "pipelines",
    "python",
    "scripts",
    "tests",
    "tools",
    ".",
];
const ENDINGS: [&str; 9] = ["rs", "md", "yaml", "yml", "py", "sh", "toml", "html", "cff"];
const NAMELESS: [&str; 2] = ["run", "justfile"];
/// Folders with what we did not write, what is built, and this list itself.
const SKIPPED: [&str; 7] = ["target", "vendor", "fixtures", "snapshots", "venv", "out", "__pycache__"];

#[test]
fn words_that_were_replaced_do_not_come_back() {
    let mut found: Vec<String> = Vec::new();
    let mut needed = [false; ALLOWED.len()];
    for (path, text) in files() {
        let mut look = |text: &str, words: &[(&'static str, &'static str)]| {
            for (at, line) in text.lines().enumerate() {
                let line_lower = line.to_lowercase();
                for (word, instead) in words {
                    if occurrences(line, &line_lower, word) == 0 {
                        continue;
                    }
                    let allowed = ALLOWED.iter().position(|(file, known, _)| *file == path && known == word);
                    if let Some(allowed) = allowed {
                        needed[allowed] = true;
                        continue;
                    }
                    found.push(format!("{path}:{}: `{word}`: write {instead}\n    {}", at + 1, line.trim()));
                }
            }
        };
        look(&text, &NAMES);
        look(&read_by_people(&path, &text), &PHRASES);
    }

    let useless: Vec<_> = ALLOWED.iter().zip(needed).filter(|(_, needed)| !needed).map(|(entry, _)| entry).collect();
    assert!(useless.is_empty(), "these entries of ALLOWED are no longer needed: {useless:#?}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// How often a word stands in a line as a whole word: letters and digits do not go on before or behind it, or go on with another
/// word of a name in camel case.
fn occurrences(line: &str, lower: &str, word: &str) -> usize {
    if lower.len() != line.len() {
        // A letter whose small form has another length: places in the two do not correspond.
        return occurrences(lower, lower, word);
    }
    let letters = line.as_bytes();
    let whole = |at: usize| {
        let (first, last) = (letters[at], letters[at + word.len() - 1]);
        let (before, after) = (at.checked_sub(1).map(|i| letters[i]), letters.get(at + word.len()).copied());
        let begins =
            before.is_none_or(|b| !b.is_ascii_alphanumeric() || b.is_ascii_lowercase() && first.is_ascii_uppercase());
        let ends =
            after.is_none_or(|a| !a.is_ascii_alphanumeric() || a.is_ascii_uppercase() && last.is_ascii_lowercase());
        begins && ends
    };
    lower.match_indices(word).filter(|(at, _)| whole(*at)).count()
}

/// Of a file, what people read who use the program, on the lines where it stands. Of Rust sources: messages (text between quotes
/// that has a space in it, outside tests) and, of the command line and the stages, the comments that become help.
fn read_by_people(path: &str, text: &str) -> String {
    if [".md", ".yaml", ".html"].iter().any(|ending| path.ends_with(ending)) {
        return text.to_owned();
    }
    if !path.ends_with(".rs") || !path.contains("/src/") {
        return String::new();
    }
    let source = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let help = path.starts_with("crates/cli/src/c") || path.starts_with("crates/stages/src/");
    texts(source, help)
}

/// Texts between quotes, and outer doc comments if wanted; everything else of a source is left out, apart from the ends of lines.
fn texts(source: &str, docs: bool) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        // How long the piece is that begins here, and whether people read it.
        let (length, read) = if rest.starts_with("//") {
            let is_doc = rest.starts_with("///") && !rest.starts_with("////");
            (rest.find('\n').unwrap_or(rest.len()), docs && is_doc)
        } else if let Some(raw) = raw_text(rest) {
            (raw, true)
        } else if next == '"' {
            let mut escaped = false;
            let end = rest.bytes().skip(1).position(|byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            });
            (end.map_or(rest.len(), |end| end + 2), true)
        } else if rest.starts_with("'\"'") {
            (3, false)
        } else if rest.starts_with(r#"'\"'"#) {
            (4, false)
        } else {
            (next.len_utf8(), false)
        };
        let (piece, after) = rest.split_at(length);
        // A text without a space is a name: a key, a field, a file.
        if read && piece.contains([' ', '\n']) {
            out.push_str(piece);
            out.push(' ');
        } else {
            out.extend(piece.chars().filter(|letter| *letter == '\n'));
        }
        rest = after;
    }
    out
}

/// The length of the raw text (`r"…"`, `r#"…"#`) at the beginning of `source`, if there is one.
fn raw_text(source: &str) -> Option<usize> {
    let hashes = source.strip_prefix('r')?.bytes().take_while(|byte| *byte == b'#').count();
    source[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let from = 2 + hashes;
    Some(source[from..].find(&end).map_or(source.len(), |at| from + at + end.len()))
}

#[test]
fn texts_are_found_in_sources() {
    let source = "/// Help told.\nlet a = \"one \\\"told\\\" two\"; // told\nlet b = r#\"raw \"told\" too\"#;\nlet c = '\"'; told(\"told\");\n";
    let found: Vec<usize> =
        texts(source, true).lines().map(|line| occurrences(line, &line.to_lowercase(), "told")).collect();
    assert_eq!(found, [1, 1, 1, 0]);
    assert_eq!(texts(source, false).lines().next().map(str::trim), Some(""));
}

#[test]
fn words_are_whole() {
    for (line, word, times) in [
        ("planes", "lanes", 0),
        ("MOST_LANES, DealtLanes, lanes::map", "lanes", 3),
        ("a wildcard, a card", "card", 1),
        ("performance", "perform", 0),
        ("GPUs of a data processor: Δ", "processor", 1),
    ] {
        assert_eq!(occurrences(line, &line.to_lowercase(), word), times, "{word} in {line}");
    }
}

#[test]
fn links_and_paths_lead_to_files() {
    let root = root();
    let mut broken = Vec::new();
    for (path, text) in files().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root.join(&path).parent().map(Path::to_path_buf).unwrap_or_default();
        for (_, after) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = after.split(')').next().unwrap_or_default();
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            let file = if file.is_empty() { root.join(&path) } else { folder.join(file) };
            let there = file.exists() && (anchor.is_empty() || has_anchor(&file, anchor));
            if !there {
                broken.push(format!("{path}: {target}"));
            }
        }
        // The glossary says where each thing is in the sources.
        if path == "docs/glossary.md" {
            let named = text.split('`').filter(|name| name.starts_with("crates/"));
            broken.extend(named.filter(|name| !root.join(name).exists()).map(|name| format!("{path}: {name}")));
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere: {broken:#?}");
}

/// Whether a heading of the file, or an `id` in it, has this anchor, as the usual renderers of Markdown make them.
fn has_anchor(file: &Path, anchor: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let of = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    text.contains(&format!("id=\"{anchor}\""))
        || text.lines().filter(|line| line.starts_with('#')).any(|line| of(line.trim_start_matches('#')) == anchor)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file that we wrote, by its path from the root of the repository, with its text.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for folder in FOLDERS {
        walk(&root, Path::new(folder), folder != ".", &mut found);
    }
    assert!(found.len() > 100, "the repository's files are where they are looked for");
    found.sort();
    found
}

fn walk(root: &Path, folder: &Path, deep: bool, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder == Path::new(".") { PathBuf::from(&name) } else { folder.join(&name) };
        if entry.path().is_dir() {
            if deep && !SKIPPED.contains(&name.as_str()) {
                walk(root, &path, deep, found);
            }
            continue;
        }
        let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        let ours = ENDINGS.contains(&ending.as_str()) || NAMELESS.contains(&name.as_str());
        if ours
            && !path.ends_with("stages/tests/words.rs")
            && let Ok(text) = fs::read_to_string(root.join(&path))
        {
            found.push((path.to_string_lossy().replace('\\', "/"), text));
        }
    }
}
