//! Exported folders explain themselves: a card that says what was edited, how, with what success and how to undo it, the same on every machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const PIPELINE: &str = r#"
name: card
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: "a | b", target_true: peso }
  contexts: { uses: templates, with: { groups: [["{}"], ["It is said. {}"]] } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: CORPUS, layers: [1], samples: 300 } }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
  targets: { uses: targets, inputs: { model: model, requests: facts, templates: contexts }, with: { layer: 1, steps: 4 } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: emmet }
  scores: { uses: evaluate, inputs: { model: update, requests: facts } }
  out:
    uses: export
    inputs: { model: update, requests: facts, targets: targets, templates: contexts, moments: moments, scores: scores }
    with: { path: out }
  bare: { uses: export, inputs: { model: update }, with: { path: bare, formats: [update] } }
"#;

struct Case(TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(TempDir::new().unwrap());
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
        let text = PIPELINE.replace("MODEL", demo.join("model").to_str().unwrap());
        std::fs::write(case.path("p.yaml"), text.replace("CORPUS", demo.join("corpus.txt").to_str().unwrap())).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, code: i32) -> String {
        let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
        program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.0);
        let output = program.args(["run", "p.yaml"]).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

#[test]
fn a_card_says_what_was_done_and_how_to_undo_it() {
    let (one, other) = (Case::new(), Case::new());
    one.run(0);
    other.run(0);
    let card = one.read("out/README.md");
    // Neither the place nor the day is in it.
    assert_eq!(card, other.read("out/README.md"));
    // The ledger alone says when.
    let marker = |case: &Case| {
        let mut marker: serde_json::Value = serde_json::from_str(&case.read("out/palinode.json")).unwrap();
        assert!(marker["files"].as_object_mut().unwrap().remove("ledger.safetensors").is_some());
        marker
    };
    assert_eq!(marker(&one), marker(&other));
    for path in [one.0.path(), Path::new(env!("CARGO_MANIFEST_DIR"))] {
        assert!(!card.contains(path.to_str().unwrap()), "{card}");
    }
    for words in [
        "library_name: transformers",
        "2 edited facts",
        "| 0 | Finland is located in the continent of | Africa | Europe |",
        "| 1 | The currency of Colombia is the | a ¦ b | peso |",
        "objective `emmet`",
        "| targets |",
        "steps `4`",
        "It is said. {}",
        "| corpus of the second moments |",
        "documents `300`",
        "| layer 1, down-projection | changed by",
        "## Scores",
        "| ES |",
        "## Undo the edit",
        "command `revert`",
        "subtract left · right",
    ] {
        assert!(card.contains(words), "{words}: {card}");
    }
    let note: serde_json::Value = serde_json::from_str(&one.read("out/palinode.json")).unwrap();
    let provenance = &note["provenance"];
    assert_eq!(provenance["targets"]["steps"], 4);
    assert_eq!(provenance["templates"][1][0], "It is said. {}");
    assert!(provenance["corpus"]["files"][0].is_string(), "{note}");
    // What the stage is not given, it does not say.
    let bare = one.read("bare/README.md");
    assert!(!bare.contains("## Scores") && !bare.contains("| targets |") && bare.contains("* 0\n* 1\n"), "{bare}");
}

#[test]
fn a_card_that_someone_wrote_stays() {
    let case = Case::new();
    case.run(0);
    let mine = "# My own card\n";
    std::fs::write(case.path("out/README.md"), mine).unwrap();
    let text = case.read("p.yaml").replace("steps: 4", "steps: 5");
    std::fs::write(case.path("p.yaml"), text).unwrap();
    let said = case.run(4);
    assert!(said.contains("README.md"), "{said}");
    assert_eq!(case.read("out/README.md"), mine);
}

#[test]
fn what_does_not_belong_to_the_edit_is_refused() {
    let case = Case::new();
    let text = case.read("p.yaml").replace(
        "  bare:",
        "  others: { uses: requests, with: { facts: [{ subject: Chile, prompt: '{} is', target_new: Thai }] } }\n  bare:",
    );
    let text = text.replace(
        "inputs: { model: update }, with: { path: bare",
        "inputs: { model: update, requests: others }, with: { path: bare",
    );
    std::fs::write(case.path("p.yaml"), text).unwrap();
    assert!(case.run(4).contains("the requests are not those that were written"));
}
