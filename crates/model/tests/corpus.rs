//! Replays the inputs of `tests/corpus`, which the fuzzer `fuzz-checkpoint` begins with: files that once took minutes, all memory or the process, and
//! their relatives. None may panic, hang or take more memory than it says.

#[path = "../examples/fuzz-checkpoint.rs"]
#[expect(dead_code, reason = "the fuzzer's own loop")]
mod fuzzer;

use std::path::Path;

use fuzzer::{GGUF, copy, open};

/// What a file of the corpus stands in for, by the end of its name.
fn place(name: &str) -> &'static str {
    match name.split_once('.').map(|(_, kind)| kind) {
        Some("tokenizer.json") => "tokenizer.json",
        Some("config.json") => "config.json",
        Some("safetensors") => "model.safetensors",
        Some("gguf") => GGUF,
        _ => panic!("{name} stands in for no file of a model"),
    }
}

#[test]
fn every_model_with_one_of_these_files_is_refused() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(tests.join("corpus")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let model = folder.path().join("model");
        copy(&tests.join("fixtures/llama-tiny"), &model).unwrap();
        std::fs::copy(&path, model.join(place(&name))).unwrap();
        assert!(open(&model).is_err(), "{name}");
        count += 1;
    }
    assert!(count > 10, "the corpus is there");
}
