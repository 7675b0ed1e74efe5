//! Where the system refuses threads or memory: a message and an exit code, no panic and no hang.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A user without processes: the limit counts those of a user, and knows none for root.
const STRANGER: &str = "63217";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let program = folder.path().join("palinode");
        // By another process: one that this one starts in a thread beside would hold the copy open, which then cannot be executed.
        assert!(
            Command::new("cp").args([Path::new(env!("CARGO_BIN_EXE_palinode")), &program]).status().unwrap().success()
        );
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model");
        fs::create_dir(folder.path().join("model")).unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(model.join(name), folder.path().join("model").join(name)).unwrap();
        }
        Self(folder)
    }

    /// Exit code, and all that was printed, of a shell line that another user runs under a limit.
    fn shell(&self, limit: &str, line: &str) -> (i32, String) {
        let line = format!("{limit} && {line}");
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = if root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups", "bash", "-c", &line]);
            command
        } else {
            let mut command = Command::new("bash");
            command.args(["-c", &line]);
            command
        };
        command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.0).stdin(Stdio::null());
        let output = command.output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&all).into_owned())
    }
}

/// The largest number of processes of the user under which not even a shell can start two more.
fn bites(place: &Place, processes: usize) -> bool {
    let (code, _) = place.shell(&format!("ulimit -u {processes}"), "(sleep 0.1 & sleep 0.1 & wait) && echo well");
    code != 0
}

#[test]
fn threads_that_cannot_be_started_are_a_message() {
    let place = Place::new();
    assert!(
        bites(&place, 1),
        "the limit of processes does not bite: run this as root, or as a user with few processes"
    );
    assert!(!bites(&place, 60), "sixty are enough");
    fs::write(
        place.0.path().join("p.yaml"),
        "name: p\nstages:\n  model: { uses: load_model, with: { path: model } }\n",
    )
    .unwrap();
    // Between those with which nothing starts, and those that are enough, lie the ones that run out in the middle of something.
    for processes in [1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 16, 20] {
        let limit = format!("ulimit -u {processes}");
        for command in [
            "stages",
            "run nothing.yaml",
            "run p.yaml",
            "status p.yaml",
            "ask model 'Finland is' --tokens 1",
            "validate nothing.yaml",
            "cache ls",
        ] {
            let (code, said) = place.shell(&limit, &format!("exec ./palinode {command}"));
            assert!([0, 2, 3, 4, 7].contains(&code), "{processes} {command}: {code} {said}");
            assert!(!said.contains("panicked") && !said.contains("bug in Palinode"), "{processes} {command}: {said}");
        }
    }
    let (code, said) = place.shell("ulimit -u 2", "exec ./palinode ask model 'Finland is' --tokens 1");
    assert!(code == 7 && said.contains("cannot start a thread") && said.contains("ulimit -u"), "{code} {said}");
    let (code, said) = place.shell("ulimit -u 200", "exec ./palinode ask model 'Finland is' --tokens 1");
    assert_eq!(code, 0, "{said}");
}
