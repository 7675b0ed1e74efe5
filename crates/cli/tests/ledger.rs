//! Edits as a ledger, through the program: listed, put on top of each other, and taken off one by one.

mod here;

use std::fs;

use here::{Here, demo};
use serde_json::Value;

/// A pipeline whose solve is `SOLVE`, of the requests in the file FACTS, on the model MODEL, exported to OUT.
const PIPELINE: &str = "
name: ledger
stages:
  model: { uses: load_model, with: { path: 'MODEL' } }
  edits: { uses: load_requests, with: { path: FACTS, dataset: counterfact } }
  contexts: { uses: templates, with: { groups: [['{}'], ['It is so. {}', 'They say: {}']] } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: LAYERS, samples: 1000 } }
  plan: { uses: distribute, with: { strategy: STRATEGY, layers: LAYERS } }
  targets:
    uses: targets
    inputs: { model: model, requests: edits, templates: contexts }
    with: { layer: 2, steps: 40, learning_rate: 0.05, clamp: 2, weight_decay: 0.1, parallel_requests: 1 }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: SOLVE
  out: { uses: export, inputs: { model: update }, with: { path: OUT } }
";

/// How well a model does at some facts.
const SCORES: &str = "
name: scores
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts: { uses: load_requests, with: { path: FACTS, dataset: counterfact } }
  scores: { uses: evaluate, inputs: { model: model, requests: facts } }
";

const MEMIT: &str = "{ objective: memit, lambda: 100 }";
const EMMET: &str = "{ objective: emmet, lambda: 100, emmet_lambda: 0.1 }";

/// The demo's records.
fn records() -> Vec<Value> {
    let text = fs::read_to_string(demo().join("requests.json")).unwrap();
    serde_json::from_str::<Vec<Value>>(&text).unwrap()
}

/// A folder with the demo's model in single precision, since the demo's own is in half precision, which is no measure of 1e-6.
fn with_model() -> Here {
    let here = Here::new();
    let (from, to) = (demo().join("model"), here.0.path().join("base"));
    fs::create_dir(&to).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let half = fs::read(from.join("model.safetensors")).unwrap();
    let (mut header, start) = header(&half);
    for tensor in header.as_object_mut().unwrap().values_mut().filter(|tensor| tensor["dtype"] == "F16") {
        tensor["dtype"] = "F32".into();
        let ends = [0, 1].map(|i| 2 * tensor["data_offsets"][i].as_u64().unwrap());
        tensor["data_offsets"] = serde_json::json!(ends);
    }
    let header = header.to_string();
    let mut single = (header.len() as u64).to_le_bytes().to_vec();
    single.extend(header.as_bytes());
    single.extend(half[start..].chunks_exact(2).flat_map(|b| wide(u16::from_le_bytes([b[0], b[1]])).to_le_bytes()));
    fs::write(to.join("model.safetensors"), single).unwrap();
    here
}

/// The value of 16 bits.
fn wide(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 1023) / 1024.0);
    let size = if exponent == 0 { fraction * 2f32.powi(-14) } else { (1.0 + fraction) * 2f32.powi(exponent - 15) };
    if half >> 15 == 1 { -size } else { size }
}

/// The header of a safetensors file, and where its data begin.
fn header(bytes: &[u8]) -> (Value, usize) {
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..start]).unwrap(), start)
}

/// The same file with another header.
fn with_header(header: &Value, whole: &[u8], start: usize) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &whole[start..]].concat()
}

fn facts(here: &Here, name: &str, records: &[Value]) {
    here.write(name, &serde_json::to_string(records).unwrap());
}

/// A pipeline's file.
fn pipeline(here: &Here, name: &str, (facts, model, out): (&str, &str, &str), (solve, layers): (&str, &str)) {
    let strategy = if layers.contains(',') { "memit" } else { "single" };
    let text = PIPELINE
        .replace("MODEL", model)
        .replace("FACTS", facts)
        .replace("STRATEGY", strategy)
        .replace("LAYERS", layers)
        .replace("SOLVE", solve)
        .replace("OUT", out);
    here.write(name, &text);
}

/// Exports an edit of the demo's model.
fn edited(here: &Here, facts: &str, out: &str, how: (&str, &str)) {
    let name = format!("{out}.yaml");
    pipeline(here, &name, (facts, "base", out), how);
    here.palinode(0, &["run", &name]);
}

/// ES of a model.
fn success(here: &Here, model: &str, facts: &str) -> f64 {
    here.write("scores.yaml", &SCORES.replace("MODEL", model).replace("FACTS", facts));
    here.palinode(0, &["run", "scores.yaml"]);
    here.facts("scores")["metrics"]["ES"].as_f64().unwrap()
}

fn bytes(here: &Here, folder: &str) -> Vec<u8> {
    fs::read(here.0.path().join(folder).join("model.safetensors")).unwrap()
}

/// The values of the edited weights, the down-projections of these layers.
fn weights(here: &Here, folder: &str, layers: &[usize]) -> Vec<f64> {
    let bytes = bytes(here, folder);
    let (header, start) = header(&bytes);
    let of = |layer: &usize| {
        let suffix = format!("h.{layer}.mlp.c_proj.weight");
        let (_, tensor) = header.as_object().unwrap().iter().find(|(name, _)| name.ends_with(&suffix)).unwrap();
        let at = |i: usize| start + tensor["data_offsets"][i].as_u64().unwrap() as usize;
        bytes[at(0)..at(1)].to_vec()
    };
    let values: Vec<u8> = layers.iter().flat_map(of).collect();
    values.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

/// `‖a − b‖ / ‖b‖`, Frobenius.
fn far(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

fn listed(here: &Here, path: &str) -> Value {
    serde_json::from_str(&here.palinode(0, &["edits", path, "--json"])).unwrap()
}

/// Takes number 7 off 32 edits, and compares with a solve that never had it.
fn seventh_of_32(solve: &str, layers: &str) -> Here {
    let here = with_model();
    let all = &records()[..32];
    let others: Vec<Value> =
        all.iter().enumerate().filter(|(at, _)| *at != 6).map(|(_, record)| record.clone()).collect();
    facts(&here, "all.json", all);
    facts(&here, "others.json", &others);
    facts(&here, "seventh.json", &all[6..7]);
    edited(&here, "all.json", "all", (solve, layers));
    edited(&here, "others.json", "others", (solve, layers));

    let list = listed(&here, "all");
    assert_eq!(list["edits"].as_array().unwrap().len(), 32);
    let seventh = &list["edits"][6];
    assert_eq!((seventh["number"].as_u64(), seventh["update"].as_u64()), (Some(7), Some(1)));
    assert_eq!(seventh["file"], "all.yaml");
    assert!(seventh["when"].as_str().unwrap().starts_with("20"));
    let answer = all[6]["requested_rewrite"]["target_new"]["str"].as_str().unwrap();
    assert_eq!(seventh["target"].as_str().unwrap(), answer.trim());

    let numbers: Vec<usize> = serde_json::from_str(layers).unwrap();
    let alone = weights(&here, "others", &numbers);
    assert!(far(&weights(&here, "all", &numbers), &alone) > 1e-3, "the seventh changes nothing");
    for (place, base) in [("off", None), ("off-base", Some("base"))] {
        let mut args = vec!["revert", "all", "--edit", "7", "--output", place];
        args.extend(base.iter().flat_map(|base| ["--base", *base]));
        let said = here.palinode(0, &args);
        assert!(said.contains("31 edits that are left"), "{said}");
        let how = if numbers.len() == 1 { "exactly" } else { "solved again: layers 0, 1, 2" };
        assert!(said.contains(how), "{said}");
        let found = far(&weights(&here, place, &numbers), &alone);
        assert!(found < 1e-6, "{place}: {found:e}");
        println!("{place}: {found:.1e}");
        let list = listed(&here, place);
        let left: Vec<u64> = list["edits"].as_array().unwrap().iter().map(|e| e["number"].as_u64().unwrap()).collect();
        assert_eq!(left, (1..=32).filter(|n| *n != 7).collect::<Vec<u64>>());
    }
    assert_eq!(success(&here, "all", "seventh.json"), 1.0);
    assert_eq!(success(&here, "off", "seventh.json"), 0.0, "the fact is not back");
    let (before, after) = (success(&here, "all", "others.json"), success(&here, "off", "others.json"));
    assert!(after >= before, "ES of the others: {before} before, {after} after");
    here
}

#[test]
fn one_of_32_at_one_layer() {
    for solve in [MEMIT, EMMET] {
        let here = seventh_of_32(solve, "[2]");
        // An update by itself, applied, is the same.
        here.palinode(0, &["revert", "all/update.safetensors", "--edit", "7", "--output", "update"]);
        here.palinode(0, &["apply", "update/update.safetensors", "base", "--output", "applied"]);
        assert!(bytes(&here, "applied") == bytes(&here, "off-base"));
        // Another one, by its subject, from what is left; and all that is left of a list.
        let subject = records()[0]["requested_rewrite"]["subject"].as_str().unwrap().to_owned();
        let said = here.palinode(0, &["revert", "off", "--edit", &subject, "--edit", "9", "--output", "less"]);
        assert!(said.contains("29 edits that are left"), "{said}");
        let mut all = vec!["revert".to_owned(), "off".into(), "--output".into(), "none".into()];
        let left = (1..=32).filter(|n| *n != 7).flat_map(|n| ["--edit".to_owned(), n.to_string()]);
        all.extend(left);
        all.extend(["--base".to_owned(), "base".into()]);
        let args: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(here.palinode(0, &args).contains("unedited model"));
        assert!(bytes(&here, "none") == bytes(&here, "base"));
    }
}

#[test]
fn one_of_32_over_three_layers() {
    let here = seventh_of_32(EMMET, "[0, 1, 2]");
    // What it takes is the second moments, which are in the store.
    let said = here.palinode(4, &["revert", "all", "--edit", "7", "--output", "no", "--store", "nowhere"]);
    assert!(said.contains("the second moments of layer 0 are not in the store nowhere"), "{said}");
    assert!(said.contains("what would have to run") && said.contains("all.yaml"), "{said}");
    assert!(!here.0.path().join("no").exists());
}

#[test]
fn stacked_and_taken_off_in_another_order() {
    let here = with_model();
    let all = records();
    for (name, part) in [("a", &all[..4]), ("b", &all[4..8]), ("c", &all[8..12])] {
        facts(&here, &format!("{name}.json"), part);
    }
    edited(&here, "a.json", "a", (MEMIT, "[2]"));
    edited(&here, "b.json", "b", (EMMET, "[0, 1, 2]"));
    here.palinode(0, &["apply", "b/update.safetensors", "a", "--output", "ab"]);
    // And one that is made on the model that has both.
    pipeline(&here, "c.yaml", ("c.json", "ab", "abc"), (MEMIT, "[2]"));
    here.palinode(0, &["run", "c.yaml"]);
    let list = listed(&here, "abc");
    let updates: Vec<u64> =
        list["edits"].as_array().unwrap().iter().map(|edit| edit["update"].as_u64().unwrap()).collect();
    assert_eq!(updates, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    let said = here.palinode(0, &["edits", "abc"]);
    assert!(said.contains("12 edits, each of them can be taken off by itself; the ledger takes"), "{said}");

    // One edit of the lowest.
    let said = here.palinode(0, &["revert", "abc", "--edit", "2", "--output", "less"]);
    assert!(said.contains("edits 9, 10, 11, 12 was made on the model that had it") || said.contains("stand"), "{said}");
    // All of them, in another order than they were put on.
    here.palinode(0, &["revert", "a/update.safetensors", "abc", "--output", "bc"]);
    here.palinode(0, &["revert", "abc/update.safetensors", "bc", "--base", "base", "--output", "b-again"]);
    assert!(bytes(&here, "b-again") == bytes(&here, "b"), "what is left is not the one put onto the base");
    here.palinode(0, &["revert", "b/update.safetensors", "b-again", "--base", "base", "--output", "unedited"]);
    assert!(bytes(&here, "unedited") == bytes(&here, "base"));
    // Without the base, what came of it is said.
    here.palinode(0, &["revert", "abc/update.safetensors", "bc", "--output", "b-near"]);
    let said = here.palinode(0, &["revert", "b/update.safetensors", "b-near", "--output", "near"]);
    let same = bytes(&here, "near") == bytes(&here, "base");
    assert!(said.contains(if same { "bit for bit" } else { "within rounding" }), "{said}");
    assert!(far(&weights(&here, "near", &[0, 1, 2]), &weights(&here, "base", &[0, 1, 2])) < 1e-6);
}

/// The demo's own model is in half precision, which loses more than a twentieth of small edits: those weights are wider for as long as an
/// edit is in them. Taken off, in whatever order, what is left has the bits of the unedited model.
#[test]
fn weights_that_an_edit_made_wider() {
    let here = Here::new();
    let all = records();
    let base = demo().join("model").to_str().unwrap().to_owned();
    let small = "{ objective: memit, lambda: 1e6 }";
    for (name, part, layers) in [("a", &all[..4], "[2]"), ("b", &all[4..8], "[0, 1, 2]")] {
        facts(&here, &format!("{name}.json"), part);
        pipeline(&here, &format!("{name}.yaml"), (&format!("{name}.json"), &base, name), (small, layers));
        let said = here.palinode(0, &["run", &format!("{name}.yaml")]);
        assert!(said.contains("is written in F32: rounding to F16 would lose"), "{said}");
    }
    let said = here.palinode(0, &["apply", "b/update.safetensors", "a", "--output", "ab"]);
    assert!(said.contains("load the model in float32"), "{said}");
    let original = fs::read(demo().join("model/model.safetensors")).unwrap();
    let tensor = |file: &[u8], layer: usize| {
        let (header, start) = header(file);
        let suffix = format!("h.{layer}.mlp.c_proj.weight");
        let (_, tensor) = header.as_object().unwrap().iter().find(|(name, _)| name.ends_with(&suffix)).unwrap();
        let at = |i: usize| start + tensor["data_offsets"][i].as_u64().unwrap() as usize;
        (tensor["dtype"].as_str().unwrap().to_owned(), file[at(0)..at(1)].to_vec())
    };
    let types = |folder: &str| [0, 1, 2].map(|layer| tensor(&bytes(&here, folder), layer).0);
    assert_eq!(types("a"), ["F16", "F16", "F32"]);
    assert_eq!(types("ab"), ["F32", "F32", "F32"]);
    // The upper one off: only the weight that the lower one changed stays wide, and holds that change alone.
    here.palinode(0, &["revert", "b/update.safetensors", "ab", "--output", "a-again"]);
    assert_eq!(types("a-again"), ["F16", "F16", "F32"]);
    for layer in [0, 1] {
        assert!(tensor(&bytes(&here, "a-again"), layer) == tensor(&original, layer), "layer {layer}");
    }
    let noted: Value = serde_json::from_str(&here.read("a-again/palinode.json")).unwrap();
    let noted = noted["rounding"].as_array().unwrap();
    assert!(noted.len() == 1 && noted[0]["stored"] == "F16" && noted[0]["written"] == "F32", "{noted:?}");
    let said = here.palinode(0, &["revert", "a/update.safetensors", "a-again", "--output", "none"]);
    assert!(bytes(&here, "none") == original && said.contains("bit for bit"), "{said}");
    // Edit by edit, and the lower one first.
    let said = here.palinode(0, &["revert", "ab", "--edit", "1", "--edit", "2", "--edit", "3", "--output", "less"]);
    assert_eq!(types("less"), ["F32", "F32", "F32"], "{said}");
    here.palinode(0, &["revert", "less", "--edit", "4", "--output", "b-again"]);
    let said = here.palinode(0, &["revert", "b/update.safetensors", "b-again", "--output", "nothing"]);
    assert!(bytes(&here, "nothing") == original && said.contains("bit for bit"), "{said}");
    // With the unedited model at hand, what is left is added to it anew.
    here.palinode(0, &["revert", "a/update.safetensors", "ab", "--base", &base, "--output", "b-anew"]);
    assert!(bytes(&here, "b-anew") == bytes(&here, "b"));
}

#[test]
fn a_later_edit_of_a_fact_supersedes_the_earlier_one() {
    let here = with_model();
    let all = records();
    let mut other = all[0].clone();
    other["requested_rewrite"]["target_new"]["str"] = all[0]["requested_rewrite"]["target_true"]["str"].clone();
    other["requested_rewrite"]["target_true"]["str"] = all[0]["requested_rewrite"]["target_new"]["str"].clone();
    facts(&here, "first.json", &all[..4]);
    facts(&here, "other.json", &[other]);
    edited(&here, "first.json", "first", (MEMIT, "[2]"));
    // Made for the unedited model: the earlier one comes off first.
    edited(&here, "other.json", "other", (MEMIT, "[2]"));
    let said = here.palinode(0, &["apply", "other/update.safetensors", "first", "--output", "both"]);
    assert!(said.contains("superseded, and taken off: edit 1 (0)"), "{said}");
    assert_eq!(success(&here, "both", "other.json"), 1.0);
    // Made on the edited model: it stands on what is there.
    pipeline(&here, "on.yaml", ("other.json", "first", "on"), (MEMIT, "[2]"));
    here.palinode(0, &["run", "on.yaml"]);
    assert_eq!(success(&here, "on", "other.json"), 1.0);
    assert_eq!(listed(&here, "on")["edits"][0]["superseded_by"], 5);
    let said = here.palinode(4, &["revert", "on", "--edit", "1", "--output", "no"]);
    assert!(said.contains("edit 1 was superseded by edit 5") && said.contains("what would have to run"), "{said}");
    // Without the later one, the earlier one is back.
    here.palinode(0, &["revert", "on", "--edit", "5", "--output", "back"]);
    assert_eq!(success(&here, "back", "first.json"), success(&here, "first", "first.json"));
    here.palinode(0, &["revert", "on", "--edit", "1", "--edit", "5", "--output", "neither"]);
}

#[test]
fn the_last_round_of_a_sequence() {
    let here = with_model();
    let all = records();
    facts(&here, "six.json", &all[..6]);
    facts(&here, "five.json", &all[..5]);
    let of = |facts: &str, out: &str| {
        let name = format!("{out}.yaml");
        pipeline(&here, &name, (facts, "base", out), (MEMIT, "[2]"));
        let text = here.read(&name);
        let (before, _) = text.split_once("  targets:").unwrap();
        let sequence = "  update:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 2, steps: 30, learning_rate: 0.05, clamp: 2, weight_decay: 0.1, parallel_requests: 1 }
      solve: { objective: memit, lambda: 100, history: 1, batch_size: 2 }
";
        here.write(
            &name,
            &format!(
                "{before}{sequence}  out: {{ uses: export, inputs: {{ model: update }}, with: {{ path: {out} }} }}\n"
            ),
        );
        here.palinode(0, &["run", &name]);
    };
    of("six.json", "six");
    of("five.json", "five");
    here.palinode(0, &["revert", "six", "--edit", "6", "--output", "off"]);
    let found = far(&weights(&here, "off", &[2]), &weights(&here, "five", &[2]));
    assert!(found < 1e-6, "{found:e}");
    // What rounds came after does not come off by itself.
    let said = here.palinode(4, &["revert", "six", "--edit", "3", "--output", "no"]);
    assert!(
        said.contains("edit 3 (2) cannot be taken off by itself: it was made in round 2 of 3, and 2 edits came later"),
        "{said}"
    );
    assert!(
        said.contains("what would have to run, without it: rounds 2 to 3 of the sequence (4 edits), in six.yaml"),
        "{said}"
    );
    // The whole last round does, and then the next one.
    let said = here.palinode(0, &["revert", "six", "--edit", "5", "--edit", "6", "--output", "four"]);
    assert!(said.contains("4 edits that are left"), "{said}");
}

#[test]
fn what_does_not_come_off_says_what_would_have_to_run() {
    let here = with_model();
    facts(&here, "all.json", &records()[..4]);
    let export = |stage: &str, more: &str| {
        format!(
            "  out-{stage}: {{ uses: export, inputs: {{ model: {stage} }}, with: {{ path: out/{stage}{more} }} }}\n"
        )
    };
    pipeline(&here, "p.yaml", ("all.json", "base", "out/update"), (MEMIT, "[2]"));
    let text = here.read("p.yaml")
        + "  rect: { uses: rect, inputs: { update: update } }\n"
        + "  tuned: { uses: finetune, inputs: { model: model, requests: edits }, with: { layer: 2, epochs: 1 } }\n"
        + &export("rect", "")
        + &export("tuned", "")
        + "  bare: { uses: export, inputs: { model: update }, with: { path: out/bare, ledger: false } }\n";
    here.write("p.yaml", &text);
    here.palinode(0, &["run", "p.yaml"]);
    for (folder, edit, words) in [
        ("rect", "2", ["was treated by `rect`", "the solve and `rect`, in p.yaml"]),
        ("tuned", "2", ["found the change by gradient", "`finetune`, in p.yaml"]),
        ("bare", "2", ["has no ledger.safetensors", "ledger: true"]),
        ("update", "99", ["has no edit `99`", "4 edits are listed"]),
    ] {
        let said = here.palinode(4, &["revert", &format!("out/{folder}"), "--edit", edit, "--output", "no"]);
        for word in words {
            assert!(said.contains(word), "{folder}: no {word:?} in {said}");
        }
        assert!(!here.0.path().join("no").exists());
    }
    // All edits of any of them come off.
    for folder in ["rect", "tuned"] {
        let (place, out) = (format!("out/{folder}"), format!("off-{folder}"));
        let update = format!("{place}/update.safetensors");
        here.palinode(0, &["revert", &update, &place, "--output", &out]);
        let four = ["--edit", "1", "--edit", "2", "--edit", "3", "--edit", "4"];
        here.palinode(0, &[&["revert", &place, "--output", &format!("{out}-2")][..], &four].concat());
        assert!(bytes(&here, &out) == bytes(&here, &format!("{out}-2")));
    }
    let said = here.palinode(0, &["edits", "out/bare"]);
    assert!(said.contains("4 edits; there is no ledger.safetensors"), "{said}");
    assert!(here.read("out/update/README.md").contains("`ledger.safetensors`"));
    assert!(!here.read("out/bare/README.md").contains("`ledger.safetensors`"));
    // Nothing is written over, and nothing is taken off weights that were changed.
    let said = here.palinode(4, &["revert", "out/update", "--edit", "2", "--output", "out/bare"]);
    assert!(said.contains("out/bare"), "{said}");
    let path = here.0.path().join("out/update/model.safetensors");
    let mut changed = fs::read(&path).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&path, changed).unwrap();
    let said = here.palinode(4, &["revert", "out/update", "--edit", "2", "--output", "no"]);
    assert!(said.contains("were changed since") && said.contains("--force"), "{said}");
}

/// An update that knows nothing of its edits is put on and taken off as a whole.
#[test]
fn an_update_without_the_names_of_its_edits() {
    let here = with_model();
    let all = records();
    facts(&here, "a.json", &all[..2]);
    facts(&here, "b.json", &all[2..4]);
    edited(&here, "a.json", "a", (MEMIT, "[2]"));
    edited(&here, "b.json", "b", (MEMIT, "[2]"));
    // As another program may write it.
    let path = here.0.path().join("b/update.safetensors");
    let whole = fs::read(&path).unwrap();
    let (mut header, start) = header(&whole);
    let mut said: Value = serde_json::from_str(header["__metadata__"]["palinode"].as_str().unwrap()).unwrap();
    said["requests"] = Value::Null;
    header["__metadata__"]["palinode"] = said.to_string().into();
    fs::write(here.0.path().join("nameless.safetensors"), with_header(&header, &whole, start)).unwrap();
    here.palinode(0, &["apply", "nameless.safetensors", "a", "--output", "ab"]);
    assert_eq!(listed(&here, "ab")["edits"].as_array().unwrap().len(), 2);
    here.palinode(0, &["revert", "nameless.safetensors", "ab", "--base", "base", "--output", "a-again"]);
    assert!(bytes(&here, "a-again") == bytes(&here, "a"));
}

/// Whatever a damaged ledger says, it is refused or taken at its word, and no command panics.
#[test]
fn a_damaged_ledger_is_no_panic() {
    type Damage = fn(&mut Value, &mut Value);
    let damages: [(&str, Damage); 16] = [
        ("no format", |_, said| said["format"] = "ledger.v9".into()),
        ("no updates", |_, said| said["updates"] = Value::Null),
        ("a system that is no square", |header, _| {
            header["0.solved.0.system"]["shape"] = serde_json::json!([1, 9]);
        }),
        ("a system that is none", |header, _| header["0.solved.0.system"]["shape"] = serde_json::json!([9])),
        ("keys for a system", |header, _| {
            let system = header.as_object_mut().unwrap().remove("0.solved.0.system").unwrap();
            header["0.solved.0.keys"] = system;
        }),
        ("no system", |header, _| drop(header.as_object_mut().unwrap().remove("0.solved.0.system"))),
        ("fewer strengths", |_, said| drop(said["updates"][0]["columns"]["mu"].as_array_mut().unwrap().pop())),
        ("a column of no request", |_, said| said["updates"][0]["columns"]["requests"][1] = serde_json::json!([])),
        ("a column of another request", |_, said| {
            said["updates"][0]["columns"]["requests"][1] = serde_json::json!([99]);
        }),
        ("fewer edits", |_, said| drop(said["updates"][0]["edits"].as_array_mut().unwrap().pop())),
        ("no edits", |_, said| said["updates"][0]["edits"] = serde_json::json!([])),
        ("fewer weights", |_, said| said["updates"][0]["weights"] = serde_json::json!([])),
        ("rounds that go back", |_, said| {
            let round = |edits: usize| serde_json::json!({ "edits": edits, "rank": {} });
            said["updates"][0]["rounds"] = serde_json::json!([round(9), round(2), round(1)]);
        }),
        ("a round behind the last edit", |_, said| {
            said["updates"][0]["rounds"] =
                serde_json::json!([{ "edits": 99, "rank": {} }, { "edits": 100, "rank": {} }]);
        }),
        ("another layer", |_, said| said["updates"][0]["provenance"]["layers"][0]["layer"] = 99.into()),
        ("no parameters", |_, said| said["updates"][0]["provenance"]["objective"] = Value::Null),
    ];
    let here = with_model();
    facts(&here, "three.json", &records()[..3]);
    edited(&here, "three.json", "three", (MEMIT, "[2]"));
    let path = here.0.path().join("three/ledger.safetensors");
    let whole = fs::read(&path).unwrap();
    let (header, start) = header(&whole);
    let told = |what: &str| {
        let model = ["revert", "three", "--edit", "2", "--output", "out", "--overwrite"];
        let update = ["revert", "three/update.safetensors", "--edit", "2", "--output", "out", "--overwrite"];
        let list = ["edits", "three"];
        for args in [&model[..], &update[..], &list[..]] {
            let (code, said, problems) = here::palinode(&here.0, args);
            assert!([0, 2, 4, 5].contains(&code), "{what}: {args:?} ends with {code}: {said}{problems}");
        }
    };
    for cut in [0, 7, 8, 9, start, usize::midpoint(start, whole.len()), whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        told(&format!("cut at {cut}"));
    }
    for (what, damage) in damages {
        let mut header = header.clone();
        let mut said: Value = serde_json::from_str(header["__metadata__"]["palinode"].as_str().unwrap()).unwrap();
        damage(&mut header, &mut said);
        header["__metadata__"]["palinode"] = said.to_string().into();
        fs::write(&path, with_header(&header, &whole, start)).unwrap();
        told(what);
    }
}
