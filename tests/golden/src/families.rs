//! The small models of every family, one of every layout, position, window, norm and block shape there is.

use std::path::{Path, PathBuf};

/// Folders in crates/model/tests/fixtures. scripts/make_family_fixtures.py made each of them with its numbers; what is missing fails.
pub const FAMILIES: [&str; 37] = [
    "gpt2-tiny",
    "gptj-tiny",
    "gpt_neox-tiny",
    "gpt_neox-sequential-tiny",
    "llama-tiny",
    "llama2-tiny",
    "llama3-tiny",
    "mistral-tiny",
    "qwen2-tiny",
    "qwen3-tiny",
    "gemma-tiny",
    "gemma2-tiny",
    "gemma3-tiny",
    "phi-tiny",
    "phi3-tiny",
    "olmo-tiny",
    "olmo2-tiny",
    "smollm3-tiny",
    "granite-tiny",
    "cohere-tiny",
    "glm4-tiny",
    "exaone4-tiny",
    "ministral-tiny",
    "ministral3-tiny",
    "stablelm-tiny",
    "starcoder2-tiny",
    "llama-yarn-tiny",
    "gpt_neo-tiny",
    "opt-tiny",
    "bloom-tiny",
    "falcon-tiny",
    "falcon-alibi-tiny",
    "mpt-tiny",
    "mixtral-tiny",
    "qwen2_moe-tiny",
    "qwen3_moe-tiny",
    "olmoe-tiny",
];

/// The folder of one of them.
pub fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/model/tests/fixtures").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_lie_there_are_named() {
        let folders = std::fs::read_dir(family("")).unwrap().map(|entry| entry.unwrap().path());
        let mut lie: Vec<_> = folders.filter(|folder| folder.join("config.json").is_file()).collect();
        let mut named: Vec<_> = FAMILIES.into_iter().map(family).collect();
        lie.sort();
        named.sort();
        assert_eq!(lie, named);
    }
}
