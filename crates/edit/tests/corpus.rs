//! Replays the inputs of `tests/corpus`, which the fuzzer `fuzz-npz` begins with: files that once took minutes, all memory or the process, and
//! their relatives. None may panic, hang or take more memory than it says.

#[path = "../examples/fuzz-npz.rs"]
#[expect(dead_code, reason = "the fuzzer's own loop")]
mod fuzzer;

use std::path::Path;

#[test]
fn every_file_is_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        assert!(fuzzer::open(&path).is_err(), "{}", path.display());
        count += 1;
    }
    assert!(count > 5, "the corpus is there");
}
