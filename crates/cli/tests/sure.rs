//! Second moments that say how sure they are, and samples that end by themselves (`tokens: auto`), through the program.

mod here;

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use here::Here;
use serde_json::Value;

const PIPELINE: &str = "\
name: sure
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: [1, 2], SAMPLE } }
";

fn here(sample: &str) -> Here {
    let here = Here::new();
    here.write("p.yaml", &PIPELINE.replace("SAMPLE", sample));
    here
}

fn halves(facts: &Value, layer: usize, what: &str) -> f64 {
    facts["layers"][layer]["halves"][what].as_f64().unwrap_or_else(|| panic!("{facts}"))
}

#[test]
fn a_sample_ends_where_halves_agree() {
    let auto = here("tokens: auto, tolerance: 0.15");
    let said = auto.palinode(0, &["plan", "p.yaml"]);
    assert!(said.contains("moments"), "{said}");
    let said = auto.palinode(0, &["run", "p.yaml"]);
    assert!(said.contains("both halves of the text differ, relative to C: layer 1 0."), "{said}");
    let facts = auto.facts("moments");
    let documents = facts["documents"].as_u64().unwrap();
    assert!(documents.is_multiple_of(64) && documents < 3000, "{documents}");
    // Ten tokens for each of 768 dimensions, and no layer is further off than that.
    assert!(facts["layers"][0]["tokens"].as_u64().unwrap() >= 7680, "{facts}");
    let most = halves(&facts, 0, "moment").max(halves(&facts, 1, "moment"));
    assert!(most <= 0.15 && halves(&facts, 0, "update") > most, "{facts}");

    // A fixed number of documents says the same of itself, but for how sums are put together.
    let fixed = here(&format!("samples: {documents}"));
    fixed.palinode(0, &["run", "p.yaml"]);
    let other = fixed.facts("moments");
    for (layer, what) in [(0, "moment"), (1, "moment"), (0, "update"), (1, "update")] {
        let (one, two) = (halves(&facts, layer, what), halves(&other, layer, what));
        assert!((one - two).abs() <= 0.011 * one, "{facts} {other}");
    }

    // It is the first unit after which that is so.
    if documents > 128 {
        let before = here(&format!("samples: {}", documents - 64));
        before.palinode(0, &["run", "p.yaml"]);
        let before = before.facts("moments");
        let tokens = before["layers"][0]["tokens"].as_u64().unwrap();
        let most = halves(&before, 0, "moment").max(halves(&before, 1, "moment"));
        assert!(most > 0.1495 || tokens < 7680, "{before}");
    }
}

#[test]
fn too_little_text_is_said() {
    let here = here("samples: 300, tokens: auto, tolerance: 0.001");
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(said.contains("all 300 documents were used, and have halves that differ by 0."), "{said}");
    assert_eq!(here.facts("moments")["documents"], 300);
    // What was kept of fewer documents is no part of another sample.
    here.write("p.yaml", &PIPELINE.replace("SAMPLE", "samples: 310, tokens: auto, tolerance: 0.001"));
    here.palinode(0, &["run", "p.yaml"]);
    assert_eq!(here.facts("moments")["documents"], 310);
}

/// Stopped by a signal or killed, it ends at the same document with the same bits.
#[test]
fn interrupted_it_ends_at_the_same_document() {
    let sample = "tokens: auto, tolerance: 0.05";
    let whole = here(sample);
    whole.palinode(0, &["run", "p.yaml"]);
    let expect = content(&whole);
    let other = here(sample);
    let mut stopped = 0;
    for (wait, signal) in [(300, "INT"), (500, "KILL"), (700, "INT"), (900, "TERM"), (1300, "INT")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.env_remove("PALINODE_STORE").current_dir(&other.0).args(["run", "p.yaml"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(wait));
        let pid = child.id().to_string();
        Command::new("kill").args(["-s", signal, &pid]).stderr(Stdio::null()).status().unwrap();
        stopped += u32::from(!child.wait().unwrap().success());
    }
    assert!(stopped > 0, "nothing was interrupted");
    other.palinode(0, &["run", "p.yaml"]);
    assert_eq!(content(&other), expect);
}

fn content(here: &Here) -> Value {
    let shown: Value = serde_json::from_str(&here.palinode(0, &["show", "moments", "--json"])).unwrap();
    shown["results"]["moments"]["output"].clone()
}

#[test]
fn what_cannot_be_asked_for_is_said() {
    for (sample, words) in [
        ("tolerance: 0.1", "`tolerance` says nothing without `tokens: auto`"),
        ("tokens: 10f, tolerance: 0.1", "`tolerance` says nothing without `tokens: auto`"),
        ("tokens: auto, tolerance: 0", "tolerance"),
        ("tokens: auto, tolerance: -1", "tolerance"),
        ("tokens: automatic", "a number of tokens, a multiple of f such as 10f, or auto"),
        ("tokens: 0", "1 or more, a multiple of f such as 10f, or auto"),
    ] {
        let said = here(sample).palinode(3, &["plan", "p.yaml"]);
        assert!(said.contains(words) && said.contains("p.yaml:4"), "{sample}: {said}");
    }
}
