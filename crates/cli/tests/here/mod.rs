//! The program in a folder of its own, for tests that run it.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// The demo model's folder.
pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap()
}

/// A small model's folder.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(name)
}

/// Exit code, and what was printed on stdout and stderr.
pub fn palinode(folder: &TempDir, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder).args(args);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What was printed on stdout, without a mistake.
pub fn done(folder: &TempDir, args: &[&str]) -> String {
    let (code, said, problems) = palinode(folder, args);
    assert_eq!(code, 0, "{args:?}: {said}{problems}");
    said
}

/// The most probable next tokens and their probabilities.
pub fn next(said: &Value) -> Vec<(String, f64)> {
    let next = said["next"].as_array().unwrap().iter();
    next.map(|token| (token["token"].as_str().unwrap().to_owned(), token["p"].as_f64().unwrap())).collect()
}

/// A folder; `DEMO` in what is written stands for the demo model's.
pub struct Here(pub TempDir);

impl Here {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text.replace("DEMO", demo().to_str().unwrap())).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    /// What was said, after this exit code.
    pub fn palinode(&self, code: i32, args: &[&str]) -> String {
        let (ended, said, problems) = palinode(&self.0, args);
        assert_eq!(ended, code, "{args:?}: {said}{problems}");
        said + &problems
    }

    /// The facts of a stage's result.
    pub fn facts(&self, stage: &str) -> Value {
        let said = self.palinode(0, &["show", stage, "--json"]);
        let shown: Value = serde_json::from_str(&said).unwrap();
        shown["results"][stage]["output"]["meta"].clone()
    }
}
