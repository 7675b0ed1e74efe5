//! The demo's model, which comes with a corpus.

use std::path::Path;

use palinode_engine::Digest;

/// The corpus that the demo's model was trained on.
pub const CORPUS: &str = include_str!("../../../../examples/demo-model/corpus.txt");
/// Its weights, by size and digest: `corpus_goes_with_its_model` holds the file against them.
const WEIGHTS: (u64, &str) = (6_378_704, "e41193e85ffb35bf138c22b4f8da7fc26bdc1507775362514c802ccb471508fa");

/// The corpus that belongs to the model in a folder: the embedded one for the demo's model, `None` for every other. Second moments of another
/// model on that little text would describe nothing that its users care for.
pub fn corpus_of(model: &Path) -> Option<&'static str> {
    let weights = model.join("model.safetensors");
    if weights.metadata().ok()?.len() != WEIGHTS.0 {
        return None;
    }
    let digest = Digest::of(&std::fs::read(weights).ok()?);
    (digest.to_string() == WEIGHTS.1).then_some(CORPUS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus_goes_with_its_model() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model");
        assert!(corpus_of(&examples.join("model")).is_some());
        assert!(corpus_of(&examples).is_none());
        assert!(corpus_of(Path::new("nowhere")).is_none());
    }
}
