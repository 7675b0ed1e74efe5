//! Inputs that change while a stage reads them: nothing that was computed from them is kept, and it is said.
//!
//! The program is stopped in the middle of a stage, at a moment that its events tell; so no clock decides what is tested.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use palinode::{Digest, Runs};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PIPELINE: &str = "
name: changed
stages:
  model: { uses: load_model, with: { path: model } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1], samples: 704 } }
";

struct Bench(TempDir);

/// How a command ended.
struct Said {
    code: i32,
    all: String,
}

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model");
        fs::create_dir(bench.path("model")).unwrap();
        for file in fs::read_dir(demo.join("model")).unwrap().map(|file| file.unwrap().path()) {
            fs::copy(&file, bench.path("model").join(file.file_name().unwrap())).unwrap();
        }
        fs::copy(demo.join("corpus.txt"), bench.path("corpus.txt")).unwrap();
        fs::write(bench.path("p.yaml"), PIPELINE).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        for name in ["PALINODE_STORE", "PALINODE_LOG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1").current_dir(&self.0).args(["run", "p.yaml", "--json"]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, more: &[&str]) -> Said {
        end(self.start(more), String::new())
    }

    /// Runs, and does `act` while `moments` is at work and some of its documents are read.
    fn run_while(&self, more: &[&str], act: impl FnOnce()) -> Said {
        let mut child = self.start(more);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut all = String::new();
        // Not every step is told, so that any beyond the first will do.
        let begun = r#""event":"progress","instance":"moments","what":"documents","done":"#;
        let at_work = |line: &str| line.split_once(begun).is_some_and(|(_, done)| !done.starts_with("0,"));
        while !all.lines().next_back().is_some_and(at_work) {
            assert!(out.read_line(&mut all).unwrap() > 0, "it ended before it was at work: {all}");
        }
        // With --isolate, what reads the files is a process of its own, which waits once nobody reads what it says.
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::STOP).unwrap();
        act();
        kill_process(pid, Signal::CONT).unwrap();
        out.read_to_string(&mut all).unwrap();
        end(child, all)
    }

    /// What the stages yielded in the latest run.
    fn contents(&self, store: &str) -> Vec<Option<Digest>> {
        let run = Runs::of(&self.path(store)).open("latest").unwrap();
        run.stages.iter().map(|stage| stage.content).collect()
    }
}

fn end(child: Child, mut all: String) -> Said {
    let output = child.wait_with_output().unwrap();
    all += &String::from_utf8_lossy(&output.stdout);
    all += &String::from_utf8_lossy(&output.stderr);
    Said { code: output.status.code().unwrap_or(-1), all }
}

/// Other words of the same length, in place: the file is the one that it was.
fn overwrite(path: &Path) {
    let text = fs::read(path).unwrap();
    let other: Vec<u8> = text.iter().map(|byte| if *byte == b'e' { b'o' } else { *byte }).collect();
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.write_all(&other).unwrap();
}

/// Another file in its place.
fn replace(path: &Path) {
    let part = path.with_extension("part");
    fs::copy(path, &part).unwrap();
    let mut bytes = fs::read(&part).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&part, bytes).unwrap();
    fs::rename(&part, path).unwrap();
}

fn change(bench: &Bench, more: &[&str], file: &str, act: impl FnOnce(&Path)) {
    let path = bench.path(file);
    let before = fs::read(&path).unwrap();
    let said = bench.run_while(more, || act(&path));
    assert_eq!(said.code, 8, "{file}: {}", said.all);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(said.all.contains(name) && said.all.contains("while `moments` read it"), "{file}: {}", said.all);
    // With the old contents and with the new ones it yields what a store of its own does: no unit and no result is of the wrong ones.
    let after = fs::read(&path).unwrap();
    for (number, contents) in [&before, &after].into_iter().enumerate() {
        fs::write(&path, contents).unwrap();
        let said = bench.run(more);
        assert!(said.code == 0 && !said.all.contains("\"outcome\":\"failed\""), "{file}: {}", said.all);
        let fresh = format!("fresh{number}");
        let own = bench.run(&["--store", &fresh]);
        assert_eq!(own.code, 0, "{file}: {}", own.all);
        assert_eq!(bench.contents(".palinode"), bench.contents(&fresh), "{file}, contents {number}");
    }
}

#[test]
fn a_corpus_that_is_overwritten() {
    change(&Bench::new(), &[], "corpus.txt", overwrite);
}

#[test]
fn a_corpus_that_is_overwritten_under_a_worker() {
    change(&Bench::new(), &["--isolate"], "corpus.txt", overwrite);
}

#[test]
fn a_model_that_is_replaced() {
    change(&Bench::new(), &["--blocks", "streamed"], "model/model.safetensors", replace);
}

/// What was written in between and is as before: the stage goes on from what it had by then, and is right.
#[test]
fn a_corpus_that_is_written_anew() {
    let bench = Bench::new();
    let path = bench.path("corpus.txt");
    let said = bench.run_while(&[], || {
        let before = fs::read(&path).unwrap();
        overwrite(&path);
        fs::write(&path, before).unwrap();
    });
    assert_eq!(said.code, 0, "{}", said.all);
    assert!(said.all.contains("corpus.txt was written while `moments` read it"), "{}", said.all);
    assert_eq!(bench.run(&["--store", "fresh"]).code, 0);
    assert_eq!(bench.contents(".palinode"), bench.contents("fresh"));
}
