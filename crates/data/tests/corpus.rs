//! Replays the inputs of `tests/corpus`, which the fuzzer `fuzz` begins with: files that once took minutes, all memory or the process, and
//! their relatives. None may panic, hang or take more memory than it says.

#[path = "../examples/fuzz.rs"]
#[expect(dead_code, reason = "the fuzzer's own loop")]
mod fuzzer;

use std::path::Path;

#[test]
fn every_file_is_answered_by_every_reader() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let copy = folder.path().join("file");
        std::fs::copy(entry.unwrap().path(), &copy).unwrap();
        fuzzer::readers(&copy);
        count += 1;
    }
    assert!(count > 8, "the corpus is there");
}
