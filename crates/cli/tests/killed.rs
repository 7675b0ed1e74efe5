//! Killed at any moment, or out of disk: the next run goes on, yields what an uninterrupted one does, and does nothing twice.
//!
//! The number of kills is small here; `PALINODE_KILLS=100 cargo test --release --workspace --test killed -- --nocapture` is
//! the long form. `PALINODE_SEED` picks other moments.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use palinode_engine::{Digest, Event, Runs, Store};
use tempfile::TempDir;

const PIPELINE: &str = "
name: killed
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 6 } }
  contexts: { uses: templates, inputs: { model: model }, with: { generate: [{ count: 3, length: 10 }], seed: 1 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: [1, 2], samples: 1500 } }
  targets: { uses: targets, inputs: { model: model, requests: edits, templates: contexts }, with: { layer: 2, steps: 20 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: memit, lambda: 100 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits } }
  out: { uses: export, inputs: { model: update }, with: { path: out } }
  edited:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with: { targets: { layer: 2, steps: 20 }, solve: { objective: emmet, batch_size: 2 } }
  after: { uses: evaluate, inputs: { model: edited, requests: edits }, with: { every: 2 } }
";

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap()
}

/// A folder with the pipeline.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.yaml"), PIPELINE.replace("DEMO", demo().to_str().unwrap())).unwrap();
    dir
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.current_dir(dir).env_remove("PALINODE_STORE").env_remove("PALINODE_LOG");
    command
        .args(["run", "p.yaml", "--store", "store"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The contents of every result, and of every file that was written.
fn results(dir: &Path) -> BTreeMap<String, Digest> {
    let run = Runs::of(&dir.join("store")).open("latest").unwrap();
    let mut results = BTreeMap::new();
    for stage in run.stages {
        for published in &stage.published {
            let file = fs::read(dir.join(&published.path)).unwrap();
            results.insert(published.path.display().to_string(), Digest::of(&file));
        }
        results.insert(
            stage.instance.clone(),
            stage.content.unwrap_or_else(|| panic!("{} has no result", stage.instance)),
        );
    }
    results
}

/// What an uninterrupted run yields, and how long it takes.
fn uninterrupted() -> (BTreeMap<String, Digest>, Duration) {
    let dir = folder();
    let started = Instant::now();
    let output = command(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (results(dir.path()), started.elapsed())
}

/// Numbers that are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect(name))
}

#[test]
fn killed_runs_go_on() {
    let kills = number("PALINODE_KILLS", 8);
    let mut dice = Dice(number("PALINODE_SEED", 0x9e37_79b9));
    let (expected, whole) = uninterrupted();
    let (mut killed, mut harmed, mut finished) = (0, 0, 0);
    while killed < kills {
        let dir = folder();
        let store = dir.path().join("store");
        loop {
            let mut child = command(dir.path()).spawn().unwrap();
            // Past what is left of it too, so that every moment has its chance.
            let wait = dice.below(whole.as_millis() as u64 * 2 / 3);
            std::thread::sleep(Duration::from_millis(wait));
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert!(output.status.code().is_none(), "it failed: {}", String::from_utf8_lossy(&output.stderr));
            killed += 1;
            if dice.below(3) == 0 {
                harmed += u64::from(harm_index(&store.join("index"), &mut dice));
            }
            if killed >= kills {
                let output = command(dir.path()).output().unwrap();
                assert!(output.status.success(), "it does not go on: {}", String::from_utf8_lossy(&output.stderr));
                break;
            }
        }
        finished += 1;
        assert_eq!(results(dir.path()), expected, "after {killed} kills");
        let verified = Store::look(&store).unwrap().verify();
        assert_eq!(verified.damage, []);
        no_unit_was_done_twice(&store);
    }
    println!(
        "{killed} kills, {harmed} damaged indexes, {finished} runs brought to their end: all as an uninterrupted run"
    );
}

/// Cuts a file of the index short, or writes over some of its bytes.
fn harm_index(index: &Path, dice: &mut Dice) -> bool {
    let files: Vec<PathBuf> = fs::read_dir(index).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let files: Vec<PathBuf> = files.into_iter().filter(|path| path.is_file()).collect();
    let Some(path) = files.get(dice.below(files.len() as u64) as usize) else { return false };
    let mut bytes = fs::read(path).unwrap();
    if bytes.is_empty() {
        return false;
    }
    if dice.below(2) == 0 {
        bytes.truncate(dice.below(bytes.len() as u64) as usize);
    } else {
        for _ in 0..16 {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 0x41;
        }
    }
    fs::write(path, bytes).unwrap();
    true
}

/// A unit is told of once it is kept; what was kept is never worked on again.
fn no_unit_was_done_twice(store: &Path) {
    let runs = Runs::of(store);
    let mut done = HashSet::new();
    for run in runs.names() {
        for (_, event) in runs.events(&run) {
            if let Event::UnitDone { unit, instance, .. } = event {
                assert!(done.insert(unit), "a unit of {instance} was done twice");
            }
        }
    }
    assert!(!done.is_empty());
}

/// In a small file system that grows: each run stops with the store's exit code and a sentence, and what it finished counts.
#[test]
fn a_full_disk_loses_nothing() {
    let dir = folder();
    let mount = dir.path().join("store");
    fs::create_dir(&mount).unwrap();
    let script = "set -e; mount -t tmpfs -o size=2m tmpfs store; \
        for size in 5 6 8 10 12 14 16 20 32; do mount -o remount,size=${size}m store; \
        code=0; \"$0\" run p.yaml --store store --quiet 2> said || code=$?; echo \"$size $code $(tr '\\n' ' ' < said)\"; done; \
        \"$0\" cache verify --store store >&2; mkdir kept; cp -r store/. kept";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_palinode")]);
    let output = match unshare.current_dir(dir.path()).output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: no small file system can be made here: {error}"),
    };
    let (said, trouble) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.is_empty() {
        return println!("skipped: no small file system can be made here: {trouble}");
    }
    assert!(output.status.success(), "{said}{trouble}");
    let codes: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once(' ')?.1.split_once(' ')).collect();
    let full = codes.iter().filter(|(code, _)| *code == "6").count();
    assert!(full > 0 && codes.last().is_some_and(|(code, _)| *code == "0"), "{said}");
    for (code, why) in codes {
        let plain = why.contains("free space") || why.contains("No space left") || why.contains("free some");
        assert!(code == "0" || (code == "6" && plain), "{code}: {why}");
    }
    fs::remove_dir(&mount).unwrap();
    fs::rename(dir.path().join("kept"), &mount).unwrap();
    assert_eq!(results(dir.path()), uninterrupted().0);
    no_unit_was_done_twice(&mount);
    println!("{full} times out of disk, then as an uninterrupted run:\n{said}");
}
