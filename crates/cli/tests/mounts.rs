//! Two file systems that are mounted in turn at one place, whose files have the same device, inode, size and times. It needs root and mke2fs,
//! and is run by name: `cargo test --release --workspace --test mounts`.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const PIPELINE: &str = "
name: mounts
stages:
  edits: { uses: load_requests, with: { path: mnt/facts.jsonl, dataset: jsonl } }
";

/// Mounts each image where the other was, in a namespace of its own, and runs the pipeline; prints what files look like there.
const SCRIPT: &str = "
for image in a b; do
  mount -o loop,$MODE $image.img mnt
  stat -c 'looks like %d %i %s %Y %Z' mnt/facts.jsonl
  $PALINODE run p.yaml
  umount mnt
done";

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{command:?}: {all}");
    all
}

/// An image with one file, whose times are the same as in any other.
fn image(folder: &Path, name: &str, target: &str, id: &str) {
    let files = folder.join(name);
    fs::create_dir_all(&files).unwrap();
    let fact = format!("{{\"subject\": \"Ada\", \"prompt\": \"{{}} lives in\", \"target_new\": \"{target}\"}}\n");
    fs::write(files.join("facts.jsonl"), fact).unwrap();
    let image = folder.join(format!("{name}.img"));
    let mut make = Command::new("mke2fs");
    said(make.args(["-q", "-F", "-t", "ext2", "-U", id, "-d"]).arg(&files).arg(&image).arg("256k"));
    let set = |field: &str| {
        let request = format!("set_inode_field facts.jsonl {field} 20200101000000");
        said(Command::new("debugfs").args(["-w", "-R", &request]).arg(&image));
    };
    ["mtime", "ctime"].into_iter().for_each(set);
}

#[test]
fn a_file_is_known_by_its_file_system_too() {
    let ids = ["0c6ac2bc-9a86-4c1f-8c5c-7e2a4b3f5d10", "0c6ac2bc-9a86-4c1f-8c5c-7e2a4b3f5d11"];
    // Images with identities of their own; and with one identity, mounted to be read only.
    for (mode, other) in [("rw", ids[1]), ("ro", ids[0])] {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("mnt")).unwrap();
        fs::write(folder.path().join("p.yaml"), PIPELINE).unwrap();
        image(folder.path(), "a", "Rome", ids[0]);
        image(folder.path(), "b", "Oslo", other);
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-e", "-c", SCRIPT]).current_dir(folder.path()).env("MODE", mode);
        shell.env("PALINODE", env!("CARGO_BIN_EXE_palinode")).env_remove("PALINODE_STORE");
        let all = said(&mut shell);
        let looks: Vec<&str> = all.lines().filter(|line| line.starts_with("looks like")).collect();
        assert!(looks.len() == 2 && looks[0] == looks[1], "the files can be told apart: {all}");
        assert!(!all.contains("nothing to do") && all.matches("ran 1").count() == 2, "{mode}: {all}");
    }
}
