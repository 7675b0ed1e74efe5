//! What a terminal is given: no commands from data, and an honest word where it cannot be written to.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A title for the window, a bell, a mark that turns the direction of writing, a carriage return.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{202e}x\rgone";

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model")
}

fn palinode(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder);
    command
}

/// Exit code, and all that was printed on either stream.
fn said(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn tame(text: &str) -> bool {
    !text.contains(|char: char| (char.is_control() && !"\n\t".contains(char)) || char == '\u{202e}')
}

#[test]
fn data_gives_a_terminal_no_commands() {
    let folder = TempDir::new().unwrap();
    let quoted = serde_json::to_string(HOSTILE).unwrap();
    let model = model();
    let yaml = format!(
        "name: hostile\nmatrix: {{ word: [{quoted}, b] }}\nstages:\n  model:\n    uses: load_model\n    with: {{ path: {} }}\n  \
         facts:\n    uses: requests\n    with:\n      facts:\n        - {{ subject: Finland, prompt: \"{{}} is in\", target_new: Asia, id: {quoted} }}\n  \
         answers:\n    uses: ask\n    inputs: {{ model: model }}\n    with: {{ prompts: [\"${{matrix.word}}\"], tokens: 3 }}\n",
        model.display()
    );
    fs::write(folder.path().join("a.yaml"), yaml).unwrap();
    for args in [
        &["run", "a.yaml"][..],
        &["run", "a.yaml", "--json"],
        &["plan", "a.yaml"],
        &["plan", "a.yaml", "--json"],
        &["show"],
        &["show", "answers"],
        &["show", "--json"],
        &["runs"],
        &["status"],
        &["logs", "answers"],
        &["cache", "ls"],
        &["graph", "a.yaml"],
        &["report", "--assets", "assets", "-o", "page.html"],
    ] {
        let (_, text) = said(palinode(&folder).args(args));
        assert!(tame(&text), "{args:?}: {text:?}");
    }
    for (args, words) in [
        (["ask", model.to_str().unwrap(), HOSTILE], "\\u{1b}]0;owned\\u{7}"),
        (["validate", HOSTILE, "--quiet"], "\\u{1b}]0;owned\\u{7}"),
    ] {
        let (_, text) = said(palinode(&folder).args(&args[..args.len() - usize::from(args[2] == "--quiet")]));
        assert!(tame(&text) && text.contains(words), "{args:?}: {text:?}");
    }
    for file in fs::read_dir(folder.path().join("assets")).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|end| end == "csv") {
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.contains(['\u{1b}', '\u{7}']), "{}: {text:?}", file.display());
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_no_mistake_of_usage() {
    let folder = TempDir::new().unwrap();
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = palinode(&folder).arg("stages").stdout(full()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(6) && text.contains("cannot write to stdout: No space left"), "{text}");
    // What is said on the way is lost, and the command still does its work.
    let status = palinode(&folder).args(["runs"]).stdout(Stdio::null()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
