//! Replays the inputs of `tests/corpus`, which the fuzzer `fuzz-pipeline` begins with: files that once took minutes, all memory or the process, and
//! their relatives. None may panic, hang or take more memory than it says.

#[path = "../examples/fuzz-pipeline.rs"]
#[expect(dead_code, reason = "the fuzzer's own loop")]
mod fuzzer;

use fuzzer::{check, corpus, files};

#[test]
fn every_pipeline_is_answered() {
    let paths = files(&corpus());
    assert!(paths.len() > 10, "the corpus is there");
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap_or_default().display().to_string();
        let answer = check(&corpus(), &text, &[]);
        assert_eq!(answer, Ok(false), "{name}: expected mistakes that have a place");
    }
}
