//! Feeds broken pipelines to the parser until it panics, hangs or points outside a file.
//!
//! ```sh
//! cargo run --release -p palinode-engine --example fuzz-pipeline -- --minutes 10
//! ```
//!
//! Runs on a stable toolchain and needs no coverage: inputs are pipelines of the tests' toy stages and those of `tests/corpus`, broken by
//! mutations that know YAML's and the expression language's marks. `tests/corpus.rs` replays the corpus. What fails is saved, with the seed that made it; an input that kills the
//! process (a stack that overflows) is in `fuzz-last.txt`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use palinode_engine::{Diagnostics, Pipeline, Source};

/// Longer than any honest pipeline of this size takes.
const HANG: Duration = Duration::from_secs(5);

/// Longest input.
const LONGEST: usize = 16 << 10;

const SEEDS: &[&str] = &[
    "name: a\nvars: {n: 3, list: [1, 2], text: 'x'}\nmatrix:\n  x: [1, 2]\n  y: \"${vars.list}\"\n  exclude: [{x: 1, y: 2}]\n  include: [{x: 9, y: 9}]\nstages:\n  greeting: {uses: text, with: {value: \"${vars.text}${matrix.x}\", repeat: \"${vars.n}\"}}\n  both:\n    uses: join\n    inputs: {text: greeting, other: greeting}\n    with: {between: \"${matrix.y}\", keep: 1}\n  letters: {uses: count, inputs: {text: both}}\n  out: {uses: write, inputs: {text: both}, with: {path: \"out/${matrix.x}-${matrix.y}\"}}\n",
    "name: b\ninclude: part.yaml\nstages:\n  bare: {uses: join, inputs: {text: shared}}\n",
    "name: c\nvars:\n  a: &anchor [1, 2]\n  b: *anchor\n  c: \"${range(vars.a[-1])}\"\nstages:\n  s: {uses: text, with: {value: |\n    many\n    lines\n  }}\n",
    "name: d\nmatrix: {kind: [text, read]}\nstages:\n  s: {uses: \"${matrix.kind}\", with: {value: hi}}\n  t: {uses: join, inputs: {text: \"${'s' if matrix.kind == 'text' else 's'}\"}, retries: 2, timeout: 1 min}\n",
];

const WORDS: &[&str] = &[
    "${",
    "}",
    "$${",
    "${vars.n}",
    "${matrix.x}",
    "${range(99)}",
    "${vars",
    "${1 // 0}",
    "${vars.list[9]}",
    "${x|y}",
    "${{}}",
    "${(((((((((",
    "${9999999999 * 9999999999}",
    "${range(0, 99999999999)}",
    "${'é' * 9}",
    ": ",
    ":\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "#",
    "|",
    ">",
    "&a ",
    "*a",
    "<<: ",
    "!t ",
    "---\n",
    "...\n",
    "? ",
    "\t",
    "\u{feff}",
    "\u{0}",
    "\u{85}",
    "é",
    "𝄞",
    "\u{301}",
    "~",
    "null",
    "true",
    ".inf",
    "-.nan",
    "0x1f",
    "1e999",
    "-1",
    "18446744073709551616",
    "name",
    "vars",
    "matrix",
    "stages",
    "uses",
    "inputs",
    "with",
    "include",
    "exclude",
    "retries",
    "timeout",
    "text",
    "join",
    "read",
    "part.yaml",
    "fuzz.yaml",
    "greeting",
    "  ",
    "\n",
    "\r\n",
    "\n\n    ",
];

const SETS: &[&str] =
    &["vars.n=", "stages.greeting.with.value=", "vars.list[0]=", "matrix.x=", "stages.", "=", "", "a[", "a.b[0].c="];

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

fn main() {
    let (minutes, seed) = arguments();
    let dir = std::env::temp_dir().join("palinode-fuzz");
    std::fs::create_dir_all(&dir).expect("a folder for inputs");
    for part in files(&corpus().join("parts")) {
        let to = dir.join("parts").join(part.file_name().unwrap_or_default());
        std::fs::create_dir_all(dir.join("parts")).and_then(|()| std::fs::copy(&part, to)).expect("files to include");
    }
    std::fs::write(dir.join("part.yaml"), "vars: {n: 1}\nstages:\n  shared: {uses: text, with: {value: hi}}\n")
        .expect("a file to include");
    let last = dir.join("fuzz-last.txt");
    let mut dice = Dice(seed);
    let (begun, mut tried, mut fine, mut failed) = (Instant::now(), 0u64, 0u64, 0u64);
    let mut pool: Vec<String> = SEEDS.iter().map(|&seed| seed.to_owned()).collect();
    let known = files(&corpus()).into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
    pool.extend(known.filter(|text| text.len() < LONGEST));
    std::panic::set_hook(Box::new(|_| {}));
    while begun.elapsed() < Duration::from_secs(60 * minutes) {
        let (text, set) = input(&mut dice, &pool);
        std::fs::write(&last, format!("--set {set:?}\n{text}")).expect("the input is kept");
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&dir, &text, &set)));
        tried += 1;
        let wrong = match &outcome {
            Ok(Ok(sound)) => {
                fine += u64::from(*sound);
                // Inputs that get far are broken further.
                if (*sound || dice.below(50) == 0) && text.len() < LONGEST / 4 {
                    let at = dice.below(256);
                    if pool.len() > 256 { pool[at].clone_from(&text) } else { pool.push(text.clone()) }
                }
                (start.elapsed() > HANG).then(|| format!("took {:?}", start.elapsed()))
            }
            Ok(Err(wrong)) => Some(wrong.clone()),
            Err(panic) => Some(format!("panicked: {}", words(panic.as_ref()))),
        };
        if let Some(wrong) = wrong {
            failed += 1;
            let path = dir.join(format!("failure-{seed}-{tried}.txt"));
            let mut saved = format!("# {wrong}\n# --set {set:?}\n");
            let _ = write!(saved, "{text}");
            std::fs::write(&path, saved).expect("the failure is kept");
            println!("{wrong}: {}", path.display());
        }
        if tried % 20_000 == 0 {
            println!("{tried} tried, {fine} sound, {failed} failed");
        }
    }
    println!("{tried} tried, {fine} sound, {failed} failed in {:?} with seed {seed}", begun.elapsed());
    std::process::exit(i32::from(failed > 0));
}

/// Inputs that once did harm, or would have.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The files of a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn arguments() -> (u64, u64) {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse().ok()
    };
    (value("--minutes").unwrap_or(1), value("--seed").unwrap_or(1))
}

/// A broken pipeline, and sometimes an override.
fn input(dice: &mut Dice, pool: &[String]) -> (String, Vec<String>) {
    let mut text = pool[dice.below(pool.len())].clone();
    for _ in 0..=dice.below(6) {
        mutate(&mut text, dice, pool);
    }
    text.truncate(text.floor_char_boundary(LONGEST));
    let set = (dice.below(4) == 0).then(|| format!("{}{}{}", dice.pick(SETS), dice.pick(WORDS), dice.pick(WORDS)));
    (text, set.into_iter().collect())
}

fn mutate(text: &mut String, dice: &mut Dice, pool: &[String]) {
    let place = |text: &str, dice: &mut Dice| text.floor_char_boundary(dice.below(text.len() + 1));
    let at = place(text, dice);
    match dice.below(9) {
        0..=2 => text.insert_str(at, dice.pick(WORDS)),
        3 => {
            let end = text.floor_char_boundary((at + 1 + dice.below(12)).min(text.len()));
            text.replace_range(at..end.max(at), dice.pick(WORDS));
        }
        4 => {
            let end = text.floor_char_boundary((at + dice.below(40)).min(text.len())).max(at);
            text.replace_range(at..end, "");
        }
        5 => {
            let mut lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                let (from, to) = (dice.below(lines.len()), dice.below(lines.len()));
                match dice.below(3) {
                    0 => lines.swap(from, to),
                    1 => lines.insert(to, lines[from]),
                    _ => drop(lines.remove(from)),
                }
                *text = lines.join("\n");
            }
        }
        6 => {
            let other = &pool[dice.below(pool.len())];
            let from = place(other, dice);
            text.truncate(at);
            text.push_str(&other[from..]);
        }
        7 => {
            let deep = 1 << dice.below(9);
            let open = ["[", "{a: ", "- ", "${(", "a:\n "][dice.below(5)];
            text.insert_str(at, &open.repeat(deep));
        }
        _ => {
            let line = text[..at].rfind('\n').map_or(0, |at| at + 1);
            text.insert_str(line, &" ".repeat(dice.below(5)));
        }
    }
}

/// Loads the pipeline. Whether it is sound, or what is wrong with what was said about it.
pub fn check(dir: &Path, text: &str, set: &[String]) -> Result<bool, String> {
    let name: PathBuf = dir.join("fuzz.yaml");
    let source = Source::new(name.display().to_string(), text);
    match Pipeline::load(&source, dir, set, &common::catalogue()) {
        Ok(pipeline) => {
            let resolved = pipeline.resolved();
            if resolved.is_empty() { Err("a sound pipeline has no resolved form".to_owned()) } else { Ok(true) }
        }
        Err(mistakes) => said(&mistakes).map(|()| false),
    }
}

/// Everything that is said has to stand somewhere.
fn said(mistakes: &Diagnostics) -> Result<(), String> {
    if mistakes.0.is_empty() {
        return Err("refused without a mistake".to_owned());
    }
    for mistake in &mistakes.0 {
        let (span, text) = (mistake.span, &mistake.source.text);
        if text.get(span.offset..span.offset + span.len).is_none() {
            return Err(format!("`{}` points outside the file", mistake.message));
        }
        if span.line == 0 || span.column == 0 || span.line > text.matches('\n').count() + 1 {
            return Err(format!("`{}` is in line {} of {}", mistake.message, span.line, text.lines().count()));
        }
    }
    if mistakes.to_string().is_empty() { Err("nothing is said".to_owned()) } else { Ok(()) }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|&text| text.to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
