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
    let name = format!("{}.yaml", out.replace('/', "-"));
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
    assert!(said.contains("made on the model that had it, and left as it was made: edits 9, 10, 11, 12"), "{said}");
    // All of them, in another order than they were put on.
    let said = here.palinode(0, &["revert", "a/update.safetensors", "abc", "--output", "bc"]);
    assert!(said.contains("taken off: 4 edits") && said.contains("model with the 8 edits that are left: bc"), "{said}");
    let said = here.palinode(0, &["revert", "abc/update.safetensors", "bc", "--base", "base", "--output", "b-again"]);
    assert!(said.contains("the weights are those of --base, with what is left added once"), "{said}");
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
    // Over several layers, what is left has to be measured again: that takes a command of its own.
    edited(&here, "first.json", "wide", (EMMET, "[0, 1, 2]"));
    let said = here.palinode(4, &["apply", "other/update.safetensors", "wide", "--output", "no"]);
    assert!(said.contains("this update supersedes it: take it off first"), "{said}");
    here.palinode(0, &["revert", "wide", "--edit", "1", "--output", "narrower"]);
    here.palinode(0, &["apply", "other/update.safetensors", "narrower", "--output", "wide-both"]);
    assert_eq!(success(&here, "wide-both", "other.json"), 1.0);
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

/// Edits in rounds of two, `more` among the parameters of the solve.
fn in_rounds(here: &Here, facts: &str, out: &str, (more, layers): (&str, &str)) {
    let name = format!("{out}.yaml");
    pipeline(here, &name, (facts, "base", out), (MEMIT, layers));
    let text = here.read(&name);
    let (before, _) = text.split_once("  targets:").unwrap();
    let sequence = "  update:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 2, steps: 30, learning_rate: 0.05, clamp: 2, weight_decay: 0.1, parallel_requests: 1 }
      solve: { objective: memit, lambda: 100, batch_size: 2, MORE }
  out: { uses: export, inputs: { model: update }, with: { path: OUT } }
";
    here.write(&name, &(before.to_owned() + &sequence.replace("MORE", more).replace("OUT", out)));
    here.palinode(0, &["run", &name]);
}

#[test]
fn the_last_round_of_a_sequence() {
    let here = with_model();
    let all = records();
    facts(&here, "six.json", &all[..6]);
    facts(&here, "five.json", &all[..5]);
    in_rounds(&here, "six.json", "six", ("history: 1", "[2]"));
    in_rounds(&here, "five.json", "five", ("history: 1", "[2]"));
    let said = here.palinode(0, &["edits", "six"]);
    assert!(said.contains("6 edits, of which 2 can be taken off by themselves: 5 to 6; the ledger"), "{said}");
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

/// The last round is solved again on the model that the earlier ones left, whose keys are measured again where they are preserved.
#[test]
fn the_last_round_of_a_sequence_over_three_layers() {
    let layers = [0, 1, 2];
    let mut found_with = Vec::new();
    for more in ["history: 0", "history: 1"] {
        let here = with_model();
        let all = records();
        facts(&here, "six.json", &all[..6]);
        facts(&here, "five.json", &all[..5]);
        in_rounds(&here, "six.json", "six", (more, "[0, 1, 2]"));
        in_rounds(&here, "five.json", "five", (more, "[0, 1, 2]"));
        let alone = weights(&here, "five", &layers);
        assert!(far(&weights(&here, "six", &layers), &alone) > 1e-3, "the sixth changes nothing");
        for (place, base) in [("off", None), ("off-base", Some("base"))] {
            let mut args = vec!["revert", "six", "--edit", "6", "--output", place];
            args.extend(base.iter().flat_map(|base| ["--base", *base]));
            let said = here.palinode(0, &args);
            assert!(said.contains("solved again: layers 0, 1, 2"), "{said}");
            let found = far(&weights(&here, place, &layers), &alone);
            assert!(found < 1e-6, "{more}, {place}: {found:e}");
            println!("{more}, {place}: {found:.1e}");
        }
        // What is left knows its rounds: the other one of the last round comes off too, and then the round before is not the last.
        here.palinode(0, &["revert", "off", "--edit", "5", "--output", "four"]);
        let said = here.palinode(4, &["revert", "off", "--edit", "4", "--output", "no"]);
        assert!(said.contains("it was made in round 2 of 3, and 1 edit came later"), "{said}");
        let said = here.palinode(4, &["revert", "six", "--edit", "6", "--output", "no", "--store", "nowhere"]);
        assert!(said.contains("the last round of the sequence, in six.yaml") && said.contains("--store"), "{said}");
        found_with.push(alone);
    }
    assert!(far(&found_with[0], &found_with[1]) > 1e-5, "the history changes nothing");
}

/// A pipeline that reads an update and exports it again, with what stands between, as `STAGES`.
const LOADED: &str = "
name: loaded
stages:
  model: { uses: load_model, with: { path: 'MODEL' } }
  update: { uses: load_update, inputs: { model: model }, with: { path: UPDATE } }
STAGES  out: { uses: export, inputs: { model: LAST }, with: { path: OUT } }
";

fn loaded(here: &Here, (model, update): (&str, &str), (stages, last): (&str, &str), out: &str) -> String {
    let text = LOADED.replace("MODEL", model).replace("UPDATE", update).replace("STAGES", stages);
    here.write("loaded.yaml", &text.replace("LAST", last).replace("OUT", out));
    here.palinode(0, &["run", "loaded.yaml"])
}

#[test]
fn an_update_that_is_loaded_brings_its_ledger_along() {
    let here = with_model();
    let all = records();
    facts(&here, "a.json", &all[..4]);
    facts(&here, "b.json", &all[4..8]);
    edited(&here, "a.json", "a", (MEMIT, "[2]"));
    edited(&here, "b.json", "b", (EMMET, "[0, 1, 2]"));
    let lines = |place: &str| listed(&here, place)["edits"].as_array().unwrap().clone();
    for (out, layers) in [("a", &[2][..]), ("b", &[0, 1, 2])] {
        let again = format!("{out}-again");
        let said = loaded(&here, ("base", &format!("{out}/update.safetensors")), ("", "update"), &again);
        assert!(!said.contains("ledger"), "{said}");
        assert!(bytes(&here, &again) == bytes(&here, out));
        // Who made them and when is as it was.
        assert_eq!(lines(&again), lines(out));
        for place in [out, &again] {
            here.palinode(0, &["revert", place, "--edit", "2", "--output", &format!("{place}-off")]);
        }
        let found =
            far(&weights(&here, &format!("{again}-off"), layers), &weights(&here, &format!("{out}-off"), layers));
        assert!(found < 1e-9, "{out}: {found:e}");
    }
    // Numbers stay, also those of what others were taken off before.
    here.palinode(0, &["revert", "a/update.safetensors", "--edit", "1", "--output", "less"]);
    loaded(&here, ("base", "less/update.safetensors"), ("", "update"), "less-again");
    let numbers = |place: &str| lines(place).iter().map(|edit| edit["number"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(numbers("less-again"), [2, 3, 4]);
    // Onto an edited model, whose own come first.
    here.palinode(0, &["apply", "b/update.safetensors", "a", "--output", "ab"]);
    pipeline(&here, "c.yaml", ("a.json", "ab", "abc"), (MEMIT, "[2]"));
    here.palinode(0, &["run", "c.yaml"]);
    loaded(&here, ("ab", "abc/update.safetensors"), ("", "update"), "abc-again");
    assert_eq!(lines("abc-again"), lines("abc"));
    here.palinode(0, &["revert", "abc-again", "--edit", "10", "--output", "abc-off"]);

    // With the requests at hand, README.md lists them; others are not those that were written.
    facts(&here, "one.json", &all[..1]);
    for (asked, code) in [("a.json", 0), ("one.json", 4)] {
        let edits = format!("  edits: {{ uses: load_requests, with: {{ path: {asked}, dataset: counterfact }} }}\n");
        let text = LOADED.replace("MODEL", "base").replace("UPDATE", "a/update.safetensors").replace("STAGES", &edits);
        let text = text.replace("{ model: LAST }", "{ model: update, requests: edits }").replace("OUT", "told");
        here.write("told.yaml", &text);
        let said = here.palinode(code, &["run", "told.yaml"]);
        assert_eq!(said.contains("the requests are not those that were written"), code == 4, "{said}");
    }
    let subject = all[3]["requested_rewrite"]["subject"].as_str().unwrap();
    assert!(here.read("told/README.md").contains(subject));

    // After-care: they are listed, and none comes off by itself.
    let rect = ("  rect: { uses: rect, inputs: { update: update } }\n", "rect");
    let said = loaded(&here, ("base", "a/update.safetensors"), rect, "treated");
    assert!(said.contains("was treated by `rect` since: its edits are listed"), "{said}");
    assert_eq!(numbers("treated"), [1, 2, 3, 4]);
    assert_eq!(lines("treated")[1]["prompt"], lines("a")[1]["prompt"]);
    let said = here.palinode(4, &["revert", "treated", "--edit", "2", "--output", "no"]);
    assert!(said.contains("was treated by `rect`") && said.contains("in loaded.yaml"), "{said}");
    // What was treated before stays so.
    loaded(&here, ("base", "treated/update.safetensors"), ("", "update"), "treated-again");
    let said = here.palinode(4, &["revert", "treated-again", "--edit", "2", "--output", "no"]);
    assert!(said.contains("was treated by `rect`"), "{said}");

    // Without a ledger, or with another one's, that is said.
    fs::create_dir(here.0.path().join("alone")).unwrap();
    for (ledger, words) in
        [(None, "there is no ledger.safetensors beside it"), (Some("b"), "beside it is of another update")]
    {
        let at = |folder: &str, name: &str| here.0.path().join(folder).join(name);
        fs::copy(at("a", "update.safetensors"), at("alone", "update.safetensors")).unwrap();
        if let Some(other) = ledger {
            fs::copy(at(other, "ledger.safetensors"), at("alone", "ledger.safetensors")).unwrap();
        }
        let said = loaded(&here, ("base", "alone/update.safetensors"), ("", "update"), "bare");
        assert!(said.contains(words) && said.contains("known by name alone"), "{said}");
        let said = here.palinode(0, &["edits", "bare"]);
        assert!(said.contains("4 edits, which can be taken off together, and not one by one"), "{said}");
    }
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
        ("update", "99", ["none of the 4 edits of out/update is `99`", "`palinode edits out/update` lists them"]),
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
    assert!(said.contains("4 edits; there is no ledger of them"), "{said}");
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
    let said = here.palinode(0, &["revert", "out/update", "--edit", "2", "--force", "--output", "forced"]);
    assert!(said.contains("! the model may not be what this says: the weights in out/update were changed"), "{said}");
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
    let damages: [(&str, Damage); 19] = [
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
        ("factors that do not fit each other", |header, _| {
            let (name, _) = header.as_object().unwrap().iter().find(|(name, _)| name.ends_with(".right")).unwrap();
            let name = name.clone();
            let shape: Vec<u64> = serde_json::from_value(header[&name]["shape"].clone()).unwrap();
            header[&name]["shape"] = serde_json::json!([1, shape[0] * shape[1]]);
        }),
        ("factors of another weight", |header, _| {
            let (name, _) = header.as_object().unwrap().iter().find(|(name, _)| name.ends_with(".left")).unwrap();
            let name = name.clone();
            let shape: Vec<u64> = serde_json::from_value(header[&name]["shape"].clone()).unwrap();
            header[&name]["shape"] = serde_json::json!([shape[1], shape[0]]);
        }),
        ("numbers without end", |_, said| {
            said["next"] = u64::MAX.into();
            said["updates"][0]["edits"][2]["number"] = u64::MAX.into();
        }),
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
        let on = ["apply", "three/update.safetensors", "base", "--output", "out", "--overwrite"];
        for args in [&model[..], &update[..], &list[..], &on[..]] {
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

/// What someone who wants to undo an edit may try.
#[test]
fn wrong_turns_are_told() {
    let here = with_model();
    let all = records();
    facts(&here, "a.json", &all[..4]);
    facts(&here, "b.json", &all[4..8]);
    edited(&here, "a.json", "out/a", (MEMIT, "[2]"));
    edited(&here, "b.json", "out/b", (EMMET, "[0, 1, 2]"));
    let path = |name: &str| here.0.path().join(name);
    let copied = |from: &str, to: &str, names: &[&str]| {
        fs::create_dir_all(path(to)).unwrap();
        for name in names {
            fs::copy(path(from).join(name), path(to).join(name)).unwrap();
        }
    };
    // A model that was never edited, and the folder around edited ones.
    let said = here.palinode(4, &["edits", "base"]);
    assert!(said.contains("base has neither ledger.safetensors nor palinode.json"), "{said}");
    let said = here.palinode(4, &["edits", "out"]);
    assert!(said.contains("did you mean `out/a`, `out/b`?"), "{said}");
    assert_eq!(here.palinode(0, &["edits", "out/a/palinode.json"]), here.palinode(0, &["edits", "out/a"]));
    // Neither an edit nor a model, or both.
    let said = here.palinode(2, &["revert", "out/a", "--output", "no"]);
    assert!(said.contains("`palinode edits out/a` lists the edits"), "{said}");
    let said = here.palinode(2, &["revert", "out/a", "out/a", "--edit", "1", "--output", "no"]);
    assert!(said.contains("with --edit, one place is named"), "{said}");
    // Folders stand for the update in them.
    here.palinode(0, &["revert", "out/a", "out/a", "--base", "base", "--output", "off"]);
    assert!(bytes(&here, "off") == bytes(&here, "base"));
    here.palinode(0, &["apply", "out/a", "base", "--output", "on"]);
    assert!(bytes(&here, "on") == bytes(&here, "out/a"));
    here.palinode(0, &["apply", "out/b", "out/a", "--output", "ab"]);
    let said = here.palinode(4, &["apply", "ab", "base", "--output", "no"]);
    assert!(said.contains("ab is a folder, and has no update.safetensors"), "{said}");
    // Another file than the update.
    let said = here.palinode(4, &["revert", "out/a/ledger.safetensors", "out/a", "--output", "no"]);
    assert!(said.contains("it is a ledger") && said.contains("update.safetensors beside it"), "{said}");
    let said = here.palinode(4, &["apply", "out/a/model.safetensors", "base", "--output", "no"]);
    assert!(said.contains("it is no update that `export` wrote"), "{said}");
    let said = here.palinode(4, &["revert", "out/b", "out/a", "--output", "no"]);
    assert!(said.contains("out/a was edited with another update") && said.contains("`palinode edits`"), "{said}");
    let said = here.palinode(0, &["revert", "out/b", "out/a", "--force", "--output", "subtracted"]);
    assert!(said.contains("! it may not be the unedited one: out/a was edited with another update"), "{said}");
    assert!(!said.contains("unedited model"), "{said}");
    let said = here.palinode(4, &["apply", "out/a", "out", "--output", "no"]);
    assert!(said.contains("out is no model: it has no config.json"), "{said}");
    // A slip in a subject, and several in one.
    let subject = all[1]["requested_rewrite"]["subject"].as_str().unwrap();
    let said = here.palinode(4, &["revert", "out/a", "--edit", &format!("{subject}x"), "--output", "no"]);
    assert!(said.contains(&format!("did you mean `{subject}`?")), "{said}");
    let said = here.palinode(4, &["revert", "out/a", "--edit", "1,2", "--output", "no"]);
    here.palinode(4, &["revert", "out/a", "--edit", "-1", "--output", "no"]);
    assert!(said.contains("none of the 4 edits of out/a is `1,2`") && said.contains("an --edit of its own"), "{said}");
    // What came off is said by what it says: the number of one may be the name of another.
    let said = here.palinode(0, &["revert", "out/a", "--edit", "2", "--output", "less"]);
    assert!(said.contains("taken off: edit 2 (1): ") && said.contains(subject) && said.contains(" → "), "{said}");
    // An update by itself over several layers takes the model.
    let said = here.palinode(4, &["revert", "out/b/update.safetensors", "--edit", "1", "--output", "no"]);
    assert!(said.contains("name the unedited model's folder with --base; or what would have to run"), "{said}");
    let said =
        here.palinode(4, &["revert", "out/b/update.safetensors", "--edit", "1", "--base", "out/a", "--output", "no"]);
    assert!(said.contains("out/a is not the model") && said.contains("name the model that it was made for"), "{said}");
    let update = ["revert", "out/b/update.safetensors", "--edit", "1", "--base", "base", "--output", "b-less"];
    here.palinode(0, &update);

    // An edited model that was copied without its ledger.
    copied(
        "out/a",
        "copy",
        &["model.safetensors", "config.json", "tokenizer.json", "palinode.json", "update.safetensors"],
    );
    let said = here.palinode(0, &["edits", "copy"]);
    assert!(said.contains("there is no ledger of them, so only the whole update can be taken off"), "{said}");
    let said = here.palinode(4, &["revert", "copy", "--edit", "1", "--output", "no"]);
    assert!(said.contains("copy has no ledger.safetensors"), "{said}");
    here.palinode(0, &["revert", "copy", "copy", "--base", "base", "--output", "copy-off"]);
    // An update without its ledger is put on as a whole, which is said.
    let said = here.palinode(0, &["apply", "copy", "out/b", "--output", "copy-on"]);
    assert!(said.contains("copy/update.safetensors has no ledger.safetensors of its own beside it"), "{said}");

    // A ledger that lies beside other weights.
    copied("base", "other", &["model.safetensors", "config.json", "tokenizer.json"]);
    copied("out/a", "other", &["ledger.safetensors"]);
    let said = here.palinode(0, &["edits", "other"]);
    assert!(said.contains("! the weights beside the ledger are others than it is of"), "{said}");
    assert_eq!(listed(&here, "other")["fits"], false);
    assert_eq!(listed(&here, "out/a")["fits"], true);
    let said = here.palinode(0, &["apply", "out/b", "other", "--output", "other-b"]);
    assert!(said.contains("the ledger.safetensors in other is of other weights than the model has"), "{said}");
    assert_eq!(listed(&here, "other-b")["edits"].as_array().unwrap().len(), 4);
    // An update that is forced onto an edited model leaves the ledger of what is there.
    here.palinode(0, &["revert", "out/a", "--edit", "1", "--output", "three"]);
    pipeline(&here, "c.yaml", ("b.json", "three", "c"), (MEMIT, "[2]"));
    here.palinode(0, &["run", "c.yaml"]);
    here.palinode(4, &["apply", "c/update.safetensors", "out/a", "--output", "no"]);
    here.palinode(0, &["apply", "c/update.safetensors", "out/a", "--force", "--output", "forced"]);
    assert_eq!(listed(&here, "forced")["edits"].as_array().unwrap().len(), 8);
    here.palinode(0, &["revert", "c/update.safetensors", "forced", "--base", "base", "--output", "a-again"]);
    assert!(bytes(&here, "a-again") == bytes(&here, "out/a"));
    // Forced onto weights of which nothing is known, those are what it comes off to.
    here.palinode(0, &["apply", "out/b", "copy", "--force", "--output", "b-forced"]);
    let said = here.palinode(4, &["revert", "out/b", "b-forced", "--base", "base", "--output", "no"]);
    assert!(said.contains("base is not the model that the update was made for"), "{said}");
    here.palinode(0, &["revert", "out/b", "b-forced", "--base", "copy", "--output", "copy-again"]);
    assert!(bytes(&here, "copy-again") == bytes(&here, "copy"));

    // A ledger that is cut off: nothing is listed, and the way on is said.
    let whole = fs::read(path("out/a/ledger.safetensors")).unwrap();
    for cut in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(path("out/a/ledger.safetensors"), &whole[..cut]).unwrap();
        for args in [&["edits", "out/a"][..], &["revert", "out/a", "out/a", "--output", "no"]] {
            let said = here.palinode(4, args);
            assert!(said.contains("ledger.safetensors: ") && said.contains("move the file elsewhere"), "{cut}: {said}");
        }
    }
    fs::remove_file(path("out/a/ledger.safetensors")).unwrap();
    here.palinode(0, &["revert", "out/a", "out/a", "--base", "base", "--output", "at-last"]);
    assert!(!path("no").exists());
}
