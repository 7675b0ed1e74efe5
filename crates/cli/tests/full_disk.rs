//! Out of disk: each run stops with the store's exit code, and together they yield what an uninterrupted run does.
//!
//! Linux only: it mounts small file systems in a namespace of its own (unshare), which not every container allows. So it is no part of
//! `cargo test`; `cargo test --release --workspace --test full_disk` runs it, and fails where it cannot.

mod interrupted;

use std::fs;
use std::process::Command;

use interrupted::{folder, no_unit_was_done_twice, results, uninterrupted};

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
    let output = unshare.current_dir(dir.path()).output().expect("unshare (util-linux) runs");
    let (said, trouble) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!said.is_empty(), "this machine allows no file system in a namespace of its own: {trouble}");
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
