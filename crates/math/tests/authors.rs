//! The solver against the authors' code on the small models, whose tensors are fixtures. The trained GPT-2's are compared by
//! tests/golden.

mod solver;

use palinode_golden::Folder;

fn fixtures(name: &str) -> Folder {
    Folder::at(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).folder(name)
}

#[test]
fn updates_from_given_inputs() {
    // MEMIT and EMMET, one and four edits at once, on one layer and on two, with and without regularisation.
    for name in ["gptj-tiny", "llama-tiny"] {
        assert_eq!(solver::updates(&fixtures(name)), 10, "{name}");
    }
}

#[test]
fn rome_from_its_left_vector() {
    for name in ["gptj-tiny", "llama-tiny"] {
        assert_eq!(solver::rome(&fixtures(name)), 1, "{name}");
    }
}
