//! The solver alone.

use palinode_golden::Folder;

#[path = "../../../../crates/math/tests/solver/mod.rs"]
mod solver;

#[test]
fn updates_from_given_inputs() {
    // Layer 1 alone has no second moment that is stored whole, so the two experiments there are left to `whole_edits`.
    for (name, count) in [("gpt2", 16), ("gptj-tiny", 10), ("llama-tiny", 10)] {
        assert_eq!(solver::updates(&Folder::given().folder(name)), count, "{name}");
    }
}

#[test]
fn rome_from_its_left_vector() {
    for (name, count) in [("gpt2", 2), ("gptj-tiny", 1), ("llama-tiny", 1)] {
        assert_eq!(solver::rome(&Folder::given().folder(name)), count, "{name}");
    }
}
