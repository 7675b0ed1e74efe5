//! The dependency rule of ARCHITECTURE.md: between crates checked against what cargo says, between files against what they
//! say themselves.

mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use circles::{Crate, lex};
use serde_json::Value;

/// Which of our crates each of them may use.
const RULE: [(&str, &[&str]); 20] = [
    // The words in which all others tell what went wrong.
    ("palinode-error", &[]),
    ("palinode-fingerprint", &[]),
    // A store knows no run and no pipeline.
    ("palinode-store", &["palinode-error", "palinode-fingerprint"]),
    // Text in, checked graph out.
    ("palinode-pipeline", &["palinode-error"]),
    ("palinode-engine", &["palinode-error", "palinode-fingerprint", "palinode-store", "palinode-pipeline"]),
    ("palinode-math", &[]),
    // Arithmetic on slices: it knows no model and no tensor.
    ("palinode-kernels", &[]),
    ("palinode-model", &["palinode-kernels"]),
    ("palinode-data", &[]),
    ("palinode-hub", &[]),
    // It knows a server and its replies, and no answer of a model.
    ("palinode-judge", &[]),
    ("palinode-edit", &["palinode-math", "palinode-model", "palinode-data"]),
    ("palinode-eval", &["palinode-model", "palinode-data"]),
    // Data in, text out: a report knows no store, no stage and no metric.
    ("palinode-report", &[]),
    (
        // Stages know what the files in their artifacts mean, so they are who reads them for a report.
        "palinode-stages",
        &[
            "palinode-engine",
            "palinode-math",
            "palinode-model",
            "palinode-data",
            "palinode-hub",
            "palinode-judge",
            "palinode-edit",
            "palinode-eval",
            "palinode-report",
        ],
    ),
    // What programs stand on.
    ("palinode", &["palinode-engine", "palinode-stages"]),
    // A page for a browser, on top of what every program can read of a store.
    ("palinode-ui", &["palinode", "palinode-report"]),
    // A report is data; the command line has it drawn.
    ("palinode-cli", &["palinode", "palinode-report", "palinode-ui"]),
    ("demo-model", &["palinode-model"]),
    // It reads golden numbers; only its tests use ours.
    ("palinode-golden", &[]),
];

/// Packages of others that belong to one crate, or to a few, and why that is so.
const HOME: [(&[&str], &[&str]); 16] = [
    // The store and the pipeline file have one reader each.
    (&["sled"], &["palinode-store"]),
    (&["serde_yaml", "petgraph", "saphyr-parser"], &["palinode-pipeline"]),
    (&["blake3"], &["palinode-fingerprint", "palinode-store"]),
    // One language of expressions: in pipeline files, in the templates of reports, and in those of chat models, who write it.
    (&["minijinja"], &["palinode-pipeline", "palinode-report", "palinode-model"]),
    // Tensors: the engine and the mathematics never see one.
    (&["burn"], &["palinode-model", "palinode-edit", "palinode-eval", "demo-model"]),
    // One file looks at the numbers of a tensor where they lie.
    (&["burn-flex", "burn-tensor"], &["palinode-model"]),
    (&["gemm", "pulp"], &["palinode-kernels"]),
    // One crate knows what a GPU is.
    (&["cubecl-cuda", "cudarc"], &["palinode-model"]),
    (&["tokenizers"], &["palinode-model", "demo-model"]),
    // Published second moments have one reader, and so have published weights of words; results travel in archives of the kind of
    // the first.
    (&["npyz"], &["palinode-edit", "palinode-data"]),
    (&["zip"], &["palinode-edit", "palinode-store"]),
    (&["faer"], &["palinode-math"]),
    // The network has two doors: downloads, which are a phase of their own, and the judge's server, which one stage asks where a pipeline
    // names it. Packed files have one reader.
    (&["ureq"], &["palinode-hub", "palinode-judge"]),
    // Who listens, and what keeps others out, is known in one place.
    (&["httparse", "getrandom"], &["palinode-ui"]),
    (&["parquet", "zstd", "snap"], &["palinode-data"]),
    // Only the command line prints, reads arguments, or ends the process.
    (&["clap", "miette", "indicatif", "comfy-table", "ctrlc", "tracing-subscriber"], &["palinode-cli", "demo-model"]),
];

/// Files of one crate that use each other in a circle, and why they may. The list only shrinks: a circle that is not in it is
/// to be opened, most often by giving what both sides need a file of its own.
const CIRCLES: [(&str, &[&str], &str); 1] = [(
    "cli",
    &["cli.rs", "commands/completions.rs"],
    "completions are made from the whole command line, themselves included",
)];

/// Texts of libraries with the flag of a program that is not ours: file, text, whose flag it is.
const FOREIGN: [(&str, &str, &str); 3] = [
    ("data/src/stream.rs", "zstd --long", "a flag of zstd"),
    ("model/src/device/mod.rs", "`cargo build --release --features cuda`", "flags of cargo"),
    ("stages/src/machine/devices.rs", "cargo build --release --features cuda", "flags of cargo"),
];

/// The files that speak to a program that is not ours, whose flags are all theirs.
const SPEAKS: [&str; 3] = [
    "engine/src/executor/cluster/clerk.rs",
    "engine/src/executor/cluster/setup.rs",
    "engine/src/executor/cluster/slurm.rs",
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let uses = package["dependencies"].as_array().expect("dependencies").iter();
            // What tests use is their own business.
            let uses =
                uses.filter(|dependency| dependency["kind"].is_null()).map(|dependency| text(&dependency["name"]));
            (text(&package["name"]), uses.collect())
        })
        .collect()
}

#[test]
fn crates_use_what_the_rule_allows() {
    let found = dependencies();
    let known: BTreeSet<&str> = RULE.iter().map(|(name, _)| *name).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "every crate has a rule");
    for (name, allowed) in RULE {
        let ours: Vec<&str> = found[name].iter().map(String::as_str).filter(|used| known.contains(used)).collect();
        for used in ours {
            assert!(allowed.contains(&used), "{name} must not use {used}: see ARCHITECTURE.md");
        }
    }
}

#[test]
fn packages_stay_at_home() {
    for (name, uses) in dependencies() {
        for (packages, homes) in HOME {
            for package in packages {
                let at_home = homes.contains(&name.as_str());
                assert!(at_home || !uses.contains(*package), "{name} must not use {package}: see ARCHITECTURE.md");
            }
        }
    }
}

/// Names of files.
type Files = BTreeSet<String>;

#[test]
fn files_use_each_other_one_way() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found: BTreeSet<(String, Files)> = BTreeSet::new();
    for folder in std::fs::read_dir(crates).expect("the folder of crates").flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        found.extend(Crate::read(&folder.path().join("src")).circles().into_iter().map(|files| (name.clone(), files)));
    }
    let known: BTreeSet<(String, Files)> = CIRCLES
        .iter()
        .map(|(name, files, _)| ((*name).to_owned(), files.iter().map(|&file| file.to_owned()).collect()))
        .collect();
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(new.is_empty(), "files use each other in a circle: open it, or say in CIRCLES why it may stay: {new:#?}");
    assert!(gone.is_empty(), "these circles are open: strike them from CIRCLES: {gone:#?}");
}

/// What of a text belongs to the command line: a flag, a command, an exit code.
fn of_the_command_line<'a>(text: &'a str, commands: &[String]) -> Option<&'a str> {
    let word = |from: usize| {
        let end = text[from..].find(|c: char| !c.is_ascii_lowercase() && c != '-').map_or(text.len(), |end| from + end);
        &text[from..end]
    };
    for (at, _) in text.match_indices("--") {
        let alone = text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '-');
        if alone && text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()) {
            return Some(word(at));
        }
    }
    for (at, name) in text.match_indices("palinode ") {
        if commands.iter().any(|command| command == word(at + name.len())) {
            return Some(&text[at..at + name.len() + word(at + name.len()).len()]);
        }
    }
    let lower = text.to_ascii_lowercase();
    lower.find("exit code").map(|at| &text[at..at + "exit code".len()])
}

#[test]
fn libraries_know_no_command_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cli = std::fs::read_to_string(root.join("cli/src/cli.rs")).expect("cli.rs");
    let commands: Vec<String> = cli
        .lines()
        .filter_map(|line| line.trim().split_once("(commands::"))
        .map(|(name, _)| name.rsplit("::").next().unwrap_or(name).to_ascii_lowercase())
        .collect();
    assert!(commands.len() > 20, "the commands are read from cli.rs: {commands:?}");
    let check = |text: &str, expect: Option<&str>| assert_eq!(of_the_command_line(text, &commands), expect, "{text}");
    check("use --device cpu", Some("--device"));
    check("see `palinode runs`", Some("palinode runs"));
    check("ended with exit code 4", Some("exit code"));
    check("a -- b, a--b, --", None);
    check("palinode rewrites facts", None);

    let mut found = Vec::new();
    let mut needed = [false; FOREIGN.len()];
    for (name, text) in sources(&root) {
        for literal in lex::literals(&text) {
            let foreign = FOREIGN.iter().position(|(file, part, _)| *file == name && literal.contains(part));
            let rest = foreign.map_or(literal.clone(), |at| {
                needed[at] = true;
                literal.replace(FOREIGN[at].1, "")
            });
            let theirs = |what: &&str| SPEAKS.contains(&name.as_str()) && what.starts_with("--");
            if let Some(what) = of_the_command_line(&rest, &commands).filter(|what| !theirs(what)) {
                found.push(format!("{name}: `{what}` in {literal:?}"));
            }
        }
    }
    let why = "flags, commands and exit codes are the command line's: give a Hint, and its words to command_error.rs";
    assert!(found.is_empty(), "{why}\n{}", found.join("\n"));
    assert!(needed.iter().all(|needed| *needed), "strike from FOREIGN what is no longer needed: {needed:?}");
}

/// The sources of the libraries, by their paths below the folder of crates.
fn sources(crates: &Path) -> Vec<(String, String)> {
    let mut folders: Vec<_> =
        std::fs::read_dir(crates).expect("the folder of crates").flatten().map(|e| e.path()).collect();
    folders.retain(|folder| !folder.ends_with("cli"));
    let mut folders: Vec<_> = folders.into_iter().map(|folder| folder.join("src")).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(crates).unwrap_or(&path).display().to_string();
                sources.push((name, std::fs::read_to_string(&path).expect("a source is text")));
            }
        }
    }
    sources
}

#[test]
fn circles_are_found_however_they_are_written() {
    let check = |files: &[(&str, &str)], expect: &[&[&str]]| {
        let texts: Vec<(String, String)> =
            files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        let expect: BTreeSet<Files> =
            expect.iter().map(|files| files.iter().map(|&file| file.to_owned()).collect()).collect();
        assert_eq!(Crate::of(&texts).circles(), expect, "{files:?}");
    };
    let both: &[&[&str]] = &[&["a.rs", "b.rs"]];
    // By name, by path, by way of what the root or a folder passes on.
    check(
        &[("lib.rs", ""), ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", "use super::a::A; pub struct B;")],
        both,
    );
    check(
        &[("lib.rs", ""), ("a.rs", "pub fn f() { crate::b::g() }"), ("b.rs", "use crate::a; pub fn g() { a::f() }")],
        both,
    );
    let root = "mod a; mod b; pub use {a::A, b::{B, g}};";
    check(
        &[("lib.rs", root), ("a.rs", "use crate::{B, g}; pub struct A(B);"), ("b.rs", "pub struct B(crate::A);")],
        both,
    );
    check(&[("lib.rs", root), ("a.rs", "pub struct A;"), ("b.rs", "use crate::*; pub struct B;")], &[]);
    let folder = "mod deep; pub use deep::Deep; pub struct Top;";
    check(&[("lib.rs", ""), ("m/mod.rs", folder), ("m/deep.rs", "use super::Top; pub struct Deep(Top);")], &[]);
    let folder = format!("{folder} impl Top {{ fn deep(self) -> Deep {{ Deep(self) }} }}");
    check(
        &[("lib.rs", ""), ("m/mod.rs", &folder), ("m/deep.rs", "use super::Top; pub struct Deep(pub Top);")],
        &[&["m/deep.rs", "m/mod.rs"]],
    );
    // By way of a third; one that only uses them is not among them.
    check(
        &[
            ("main.rs", "mod a; use a::A;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "use crate::a::A;"),
        ],
        &[&["a.rs", "b.rs", "c.rs"]],
    );
    // What is said in texts and comments, or in tests, is not used.
    check(
        &[
            ("lib.rs", ""),
            (
                "a.rs",
                "// crate::b::B\n/* crate::b::B */ pub struct A; const T: &str = \"crate::b::B\"; const R: &str = r#\"crate::b::\"B\"#;",
            ),
            ("b.rs", "use crate::a::A; pub struct B<'a>(&'a A, char); const C: char = '\"';"),
        ],
        &[],
    );
    check(
        &[
            ("lib.rs", ""),
            ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("b.rs", "use crate::a::A;"),
        ],
        &[],
    );
}
