//! The program on mixtures of experts.

mod here;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use ::palinode::{Digest, Event, Runs};
use here::{Here, done, fixture, next, palinode};
use serde_json::Value;
use tempfile::TempDir;

const MIXTURES: [&str; 4] = ["mixtral-tiny", "qwen2_moe-tiny", "qwen3_moe-tiny", "olmoe-tiny"];
const FACT: [&str; 6] = ["--subject", "The tall tower", "--prompt", "{} stands in", "--target", "Parma"];

fn path(name: &str) -> String {
    fixture(name).display().to_string()
}

/// One line, whatever its breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn mixtures_are_looked_at_asked_and_judged() {
    let folder = TempDir::new().unwrap();
    let shown = [
        "4 of 12 dimensions in each layer, of which a token uses 2",
        "4 of 8 dimensions in 2 of 3 layers, of which a token uses 2, and one of 12 that all tokens use",
        "6 of 8 dimensions in each layer, of which a token uses 2",
        "4 of 12 dimensions in each layer, of which a token uses 3",
    ];
    for (name, shown) in MIXTURES.into_iter().zip(shown) {
        let page = done(&folder, &["model", "inspect", &path(name)]);
        assert!(page.contains(shown), "{name}: {page}");
        assert!(page.contains("more for each layer: a sum for each of its experts"), "{name}: {page}");
        assert!(page.contains("more for each layer, of the experts that one key is routed to"), "{name}: {page}");
        assert!(page.contains(".experts.{}."), "{name}: {page}");
        assert_eq!(page.contains(".shared_expert.down_proj.weight"), name == "qwen2_moe-tiny", "{name}: {page}");
        let told = done(&folder, &["ask", &path(name), "The tall tower stands in", "--json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let sum: f64 = next(&told[0]["before"]).iter().map(|(_, p)| p).sum();
        assert!(sum > 0.0 && sum <= 1.0 + 1e-6, "{name}: {told}");
        let pipeline = format!(
            r#"
name: judged
stages:
  model: {{ uses: load_model, with: {{ path: "{}" }} }}
  fact: {{ uses: requests, with: {{ facts: [{{ prompt: "{{}} stands in", subject: "The tall tower", target_new: "Parma", target_true: "Rome" }}] }} }}
  contexts: {{ uses: templates, inputs: {{ model: model }}, with: {{ generate: [{{ count: 2, length: 6 }}], seed: 1 }} }}
  scores: {{ uses: evaluate, inputs: {{ model: model, requests: fact }}, with: {{ samples: 1 }} }}
"#,
            path(name)
        );
        fs::write(folder.path().join("judged.yaml"), pipeline).unwrap();
        done(&folder, &["run", "judged.yaml"]);
    }
}

/// The words of texts that second moments are measured on.
const WORDS: [&str; 12] =
    ["tower", "city", "poet", "player", "river", "town", "lake", "sea", "golf", "chess", "Latin", "Greek"];

/// What pipelines of edits begin with. Names in capitals are filled in.
const FACTS: &str = r#"
stages:
  model: { uses: load_model, with: { path: "MODEL" } }
  facts:
    uses: requests
    with:
      facts:
        - { prompt: "{} stands in", subject: "The tall tower", target_new: "Parma" }
        - { prompt: "{} plays", subject: "Some player", target_new: "golf" }
"#;

/// The rest of a pipeline that edits layers of a model by second moments of a corpus.
const EDITED: &str = r#"
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: texts.txt, layers: LAYERS, samples: SAMPLES } }
  plan: { uses: distribute, inputs: { model: model }, with: { strategy: memit, layers: LAYERS } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 1, steps: 10, parallel_requests: 1 } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, moments: moments, targets: targets, plan: plan }
    with: { objective: OBJECTIVE }
  scores: { uses: evaluate, inputs: { model: update, requests: facts }, with: { samples: 0 } }
  answers: { uses: ask, inputs: { model: update }, with: { prompts: ["The tall tower stands in"] } }
  out: { uses: export, inputs: { model: update }, with: { path: out, overwrite: true, formats: FORMATS } }
"#;

/// A pipeline of edits with this rest.
fn pipeline(rest: &str) -> String {
    format!("name: edits{FACTS}{}", rest.trim_start_matches('\n'))
}

/// Writes the pipeline, and a corpus with some hundred tokens for each expert.
fn edited(folder: &TempDir, with: &[(&str, &str)]) {
    let line = |i: usize| (0..12).map(|j| WORDS[(7 * i + 5 * j + i * j) % 12]).collect::<Vec<_>>().join(" ");
    fs::write(folder.path().join("texts.txt"), (0..60).map(|i| line(i) + "\n").collect::<String>()).unwrap();
    let usual =
        [("LAYERS", "[0, 1]"), ("OBJECTIVE", "memit, lambda: 10"), ("FORMATS", "[model, update]"), ("SAMPLES", "60")];
    let text = with.iter().chain(&usual).fold(pipeline(EDITED), |text, (name, value)| text.replace(name, value));
    fs::write(folder.path().join("edited.yaml"), text).unwrap();
}

fn read(folder: &TempDir, name: &str) -> Vec<u8> {
    fs::read(folder.path().join(name)).unwrap()
}

/// The header of a safetensors file.
fn header(bytes: &[u8]) -> Value {
    serde_json::from_slice(&bytes[8..8 + length(bytes)]).unwrap()
}

/// The tensors of a safetensors file; a header may say when it was written.
fn tensors(bytes: &[u8]) -> &[u8] {
    &bytes[8 + length(bytes)..]
}

fn length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// Measured, edited over two layers, exported, read again; the same change put onto the unedited model, and taken off.
#[test]
fn an_edit_of_experts_is_exported_applied_and_taken_off() {
    let expert = ["block_sparse_moe.experts.", "mlp.experts.", "mlp.experts.", "mlp.experts."];
    for (name, expert) in MIXTURES.into_iter().zip(expert) {
        let folder = TempDir::new().unwrap();
        edited(&folder, &[("MODEL", path(name).as_str())]);
        done(&folder, &["run", "edited.yaml"]);
        let changed = header(&read(&folder, "out/update.safetensors"));
        let changed: Vec<&String> = changed.as_object().unwrap().keys().filter(|key| *key != "__metadata__").collect();
        let of = |layer: usize| format!("model.layers.{layer}.{expert}");
        for layer in [0, 1] {
            assert!(
                changed.iter().any(|key| key.starts_with(&of(layer)) && key.ends_with(".left")),
                "{name}: {changed:?}"
            );
        }
        let shared = changed.iter().filter(|key| key.contains(".shared_expert.down_proj.weight.")).count();
        assert_eq!(shared, if name == "qwen2_moe-tiny" { 4 } else { 0 }, "{name}: {changed:?}");

        // What the pipeline's edited model says is what the exported one says.
        let ask = |model: &str| {
            let told = done(&folder, &["ask", model, "The tall tower stands in", "--json"]);
            next(&serde_json::from_str::<Value>(&told).unwrap()[0]["before"])
        };
        let (out, unedited) = (ask("out"), ask(&path(name)));
        assert_ne!(out, unedited, "{name}");
        done(&folder, &["apply", "out/update.safetensors", &path(name), "--output", "applied"]);
        assert!(read(&folder, "applied/model.safetensors") == read(&folder, "out/model.safetensors"), "{name}");
        done(&folder, &["revert", "out/update.safetensors", "applied", "--output", "reverted"]);
        for ((token, p), (other, q)) in ask("reverted").iter().zip(&unedited) {
            assert!(token == other && (p - q).abs() < 2e-3, "{name}: {token} {p}, {other} {q}");
        }
        // One edit of the two comes off, over both layers, solved again.
        let said = done(&folder, &["revert", "out", "--edit", "1", "--base", &path(name), "--output", "less"]);
        assert!(ask("less") != out, "{name}: {said}");
    }
}

/// One fact in one layer, by every objective.
const OBJECTIVES: &str = r#"
name: objectives
matrix: { objective: [rome, emmet, memit] }
stages:
  model: { uses: load_model, with: { path: "MODEL" } }
  fact:
    uses: requests
    with: { facts: [{ prompt: "{} stands in", subject: "The tall tower", target_new: "Parma", target_true: "Rome" }] }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: texts.txt, layers: [1], samples: 128 } }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
  targets: { uses: targets, inputs: { model: model, requests: fact }, with: { layer: 1, steps: 20, clamp: 4 } }
  update:
    uses: solve
    inputs: { model: model, requests: fact, moments: moments, targets: targets, plan: plan }
    with: { objective: "${matrix.objective}", lambda: 0.01 }
  before: { uses: evaluate, inputs: { model: model, requests: fact }, with: { samples: 0 } }
  after: { uses: evaluate, inputs: { model: update, requests: fact }, with: { samples: 0 } }
"#;

/// After an edit the new target is more probable, and the layer's output is nearer to the wanted one: at it, where that is a constraint.
#[test]
fn targets_become_more_probable() {
    for name in MIXTURES {
        let here = Here::new();
        measured(&here, name, "samples: 128");
        here.write("p.yaml", &OBJECTIVES.replace("MODEL", &path(name)));
        here.palinode(0, &["run", "p.yaml"]);
        let magnitude = |stage: &str| {
            let facts = here.facts(stage);
            facts["metrics"]["EM"].as_f64().unwrap_or_else(|| panic!("{name} {stage}: {facts}"))
        };
        let before = magnitude("before");
        for objective in ["rome", "emmet", "memit"] {
            let after = magnitude(&format!("after[objective={objective}]"));
            assert!(after > before, "{name} {objective}: {after} {before}");
            let facts = here.facts(&format!("update[objective={objective}]"));
            let distance =
                |what: &str| facts["metrics"][what].as_f64().unwrap_or_else(|| panic!("{name} {what}: {facts}"));
            let (before, after) = (distance("distance_before"), distance("distance_after"));
            let part = if objective == "memit" { 1.0 } else { 1e-4 };
            assert!(after < part * before, "{name} {objective}: {after} of {before}");
        }
    }
}

/// By the command for one fact, with second moments and without; what it says is what the exported model says.
#[test]
fn a_fact_is_written_into_experts() {
    let folder = TempDir::new().unwrap();
    edited(&folder, &[]);
    for name in MIXTURES {
        let model = path(name);
        for moments in [&["--corpus", "texts.txt", "--samples", "60"][..], &["--moments", "none"]] {
            let how = ["edit", &model, "--layer", "1", "--json", "--output", "out"];
            let told: Value = serde_json::from_str(&done(&folder, &[&how[..], moments, &FACT].concat())).unwrap();
            let page = fs::read_to_string(folder.path().join("out/README.md")).unwrap();
            assert!(page.contains("| layer 1, expert ") && page.contains(", down-projection |"), "{name}: {page}");
            let edited = next(&told["answers"][0]["after"]);
            assert_ne!(next(&told["answers"][0]["before"]), edited, "{name}");
            let said = done(&folder, &["ask", "out", "The tall tower stands in", "--json"]);
            let read = next(&serde_json::from_str::<Value>(&said).unwrap()[0]["before"]);
            for ((token, p), (other, q)) in read.iter().zip(&edited) {
                assert!(token == other && (p - q).abs() < 2e-3, "{name}: {token} {p}, {other} {q}");
            }
            fs::remove_dir_all(folder.path().join("out")).unwrap();
        }
    }
}

/// An expert that saw too little is named with its count, when it is measured and when an edit needs it.
#[test]
fn experts_that_saw_too_little_are_named() {
    let folder = TempDir::new().unwrap();
    edited(&folder, &[("MODEL", path("mixtral-tiny").as_str()), ("SAMPLES", "1"), ("LAYERS", "[1]")]);
    fs::write(folder.path().join("texts.txt"), "tower city\n").unwrap();
    let (code, said, problems) = palinode(&folder, &["run", "edited.yaml"]);
    assert_eq!(code, 5, "{said}{problems}");
    let all = flat(&(said + &problems));
    assert!(all.contains("layer 1: some experts saw fewer tokens than their keys have dimensions: expert"), "{all}");
    assert!(all.contains("of 12)"), "{all}");
    assert!(all.contains("layer 1: a key is routed to expert"), "{all}");
    assert!(all.contains("tokens of the corpus: they do not span the 12 dimensions of its keys"), "{all}");
}

/// What cannot hold or make the change of an expert says so.
#[test]
fn what_does_not_take_a_mixture_says_so() {
    let folder = TempDir::new().unwrap();
    let refused = |code: i32, wanted: &str| {
        let (found, said, problems) = palinode(&folder, &["run", "edited.yaml"]);
        assert_eq!(found, code, "{said}{problems}");
        assert!(flat(&problems).contains(wanted), "{wanted}: {problems}");
    };
    edited(&folder, &[("MODEL", path("mixtral-tiny").as_str()), ("FORMATS", "[peft]")]);
    refused(3, "every layer of Mixtral is a mixture of experts, whose changes an adapter for PEFT cannot hold");
    edited(&folder, &[("MODEL", path("qwen2_moe-tiny").as_str()), ("FORMATS", "[peft]")]);
    refused(4, "an adapter for PEFT cannot hold the change of an expert (layer 0)");
    edited(&folder, &[("MODEL", path("mixtral-tiny").as_str()), ("OBJECTIVE", "memit, preset: alphaedit")]);
    refused(3, "layer 0 of Mixtral is a mixture of 4 experts, which a projector does not take");
    let stages = [
        (3, "finetune", "{ model: model, requests: facts }", "{ layer: 1 }", "which `finetune` does not take"),
        (3, "ultraedit", "{ model: model, requests: facts }", "{ layers: [1] }", "which `ultraedit` does not take"),
        (
            3,
            "factor",
            "{ moments: moments }",
            "{}",
            "whose second moments are kept by expert: `factor` does not take them",
        ),
        (
            3,
            "export_moments",
            "{ model: model, moments: moments }",
            "{ path: npz }",
            "npz files have one sum for a layer",
        ),
    ];
    for (code, stage, inputs, with, wanted) in stages {
        edited(&folder, &[("MODEL", path("mixtral-tiny").as_str())]);
        let text = fs::read_to_string(folder.path().join("edited.yaml")).unwrap();
        let cut = text.find("  plan:").unwrap();
        let it = format!("  it: {{ uses: {stage}, inputs: {inputs}, with: {with} }}\n");
        fs::write(folder.path().join("edited.yaml"), text[..cut].to_owned() + &it).unwrap();
        refused(code, wanted);
    }
}

/// Rounds of edits, each on the model that the last one left, with what earlier ones wrote preserved.
#[test]
fn rounds_of_edits_of_experts() {
    let folder = TempDir::new().unwrap();
    edited(&folder, &[("MODEL", path("qwen3_moe-tiny").as_str()), ("LAYERS", "[1]")]);
    let text = fs::read_to_string(folder.path().join("edited.yaml")).unwrap();
    let (before, after) = (text.find("  targets:").unwrap(), text.find("  scores:").unwrap());
    let sequence = "  update:
    uses: sequence
    inputs: { model: model, requests: facts, moments: moments, plan: plan }
    with: { solve: { objective: memit, lambda: 10, history: 1, batch_size: 1 }, targets: { layer: 1, steps: 5, parallel_requests: 1 } }
";
    fs::write(folder.path().join("edited.yaml"), text[..before].to_owned() + sequence + &text[after..]).unwrap();
    done(&folder, &["run", "edited.yaml"]);
    // The last round comes off as a whole; with another one beside it, it would have to be solved again.
    done(&folder, &["revert", "out", "--edit", "2", "--output", "less"]);
    let (code, _, problems) = palinode(&folder, &["revert", "out", "--edit", "1", "--output", "none"]);
    assert!(code == 4 && flat(&problems).contains("it was made in round 1 of 2"), "{code} {problems}");
}

/// A layer with one feed-forward is edited as in any other model.
#[test]
fn a_dense_layer_of_a_mixture_is_edited() {
    let folder = TempDir::new().unwrap();
    let model = path("qwen2_moe-tiny");
    let how = ["edit", &model, "--moments", "none", "--layer", "2", "--json", "--output", "out"];
    let told: Value = serde_json::from_str(&done(&folder, &[&how[..], &FACT].concat())).unwrap();
    let edited = next(&told["answers"][0]["after"]);
    assert_ne!(next(&told["answers"][0]["before"]), edited);
    let said = done(&folder, &["ask", "out", "The tall tower stands in", "--json"]);
    let read = next(&serde_json::from_str::<Value>(&said).unwrap()[0]["before"]);
    for ((token, p), (other, q)) in read.iter().zip(&edited) {
        assert!(token == other && (p - q).abs() < 2e-3, "{token} {p}, {other} {q}");
    }
}

/// A pipeline that measures second moments of two layers over so much text.
fn measured(here: &Here, name: &str, sample: &str) {
    let text = format!(
        "name: sure\nstages:\n  model: {{ uses: load_model, with: {{ path: \"{}\" }} }}\n  moments: {{ uses: covariance, inputs: {{ model: model }}, with: \
         {{ corpus: texts.txt, layers: [0, 1], {sample} }} }}\n",
        path(name)
    );
    here.write("p.yaml", &text);
    let line = |i: usize| (0..12).map(|j| WORDS[(7 * i + 5 * j + i * i * j) % 12]).collect::<Vec<_>>().join(" ");
    here.write("texts.txt", &(0..320).map(|i| format!("{i} {}\n", line(i))).collect::<String>());
}

/// What was measured, to the last bit.
fn content(here: &Here) -> Value {
    let shown: Value = serde_json::from_str(&here.palinode(0, &["show", "moments", "--json"])).unwrap();
    shown["results"]["moments"]["output"].clone()
}

/// Second moments by expert say how sure they are, end by themselves, and go on from what was kept.
#[test]
fn second_moments_by_expert_have_halves() {
    for name in MIXTURES {
        let auto = Here::new();
        measured(&auto, name, "tokens: auto, tolerance: 100");
        let said = auto.palinode(0, &["run", "p.yaml"]);
        assert!(said.contains("both halves of the text differ, relative to C: layer 0 "), "{name}: {said}");
        let facts = auto.facts("moments");
        // Halves take two units, which are tokens enough.
        assert_eq!(facts["documents"], 128, "{name}: {facts}");
        let halves = |facts: &Value, layer: usize, what: &str| {
            facts["layers"][layer]["halves"][what].as_f64().unwrap_or_else(|| panic!("{name} {what}: {facts}"))
        };
        let fixed = Here::new();
        measured(&fixed, name, "samples: 128");
        fixed.palinode(0, &["run", "p.yaml"]);
        let other = fixed.facts("moments");
        for layer in [0, 1] {
            assert!(facts["layers"][layer]["experts"].is_array(), "{name}: {facts}");
            for what in ["moment", "update"] {
                let (one, two) = (halves(&facts, layer, what), halves(&other, layer, what));
                assert!(one > 0.0 && (one - two).abs() <= 0.011 * one, "{name}: {facts} {other}");
            }
        }

        // Over more documents it goes on from the sums that were kept, halves and all.
        let later = Here::new();
        measured(&later, name, "samples: 64");
        later.palinode(0, &["run", "p.yaml"]);
        measured(&later, name, "samples: 128");
        later.palinode(0, &["run", "p.yaml"]);
        assert_eq!(content(&later), content(&fixed), "{name}");

        measured(&auto, name, "tokens: auto, tolerance: 0.000001");
        let said = flat(&auto.palinode(0, &["run", "p.yaml"]));
        assert!(said.contains("all 320 documents were used, and have halves that differ by "), "{name}: {said}");
    }
}

/// The rest of a pipeline of edits of experts of every kind whose stages keep units, and edits in rounds with after-care.
const KILLED: &str = r#"
        - { prompt: "{} lies by", subject: "The old town", target_new: "sea" }
  contexts: { uses: templates, with: { groups: [["{}"], ["It is so. {}"]] } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: texts.txt, layers: [0, 1], samples: 320 } }
  plan: { uses: distribute, inputs: { model: model }, with: { strategy: memit, layers: [0, 1] } }
  targets: { uses: targets, inputs: { model: model, requests: facts, templates: contexts }, with: { layer: 1, steps: 10 } }
  emmet:
    uses: solve
    inputs: { model: model, requests: facts, moments: moments, targets: targets, plan: plan, templates: contexts }
    with: { objective: emmet, emmet_lambda: 0.1, lambda: 10, batch_size: 1 }
  memit_seq:
    uses: sequence
    inputs: { model: model, requests: facts, moments: moments, plan: plan, templates: contexts }
    with: { targets: { layer: 1, steps: 8 }, solve: { objective: memit, lambda: 10, history: 1, batch_size: 1 } }
  cared:
    uses: sequence
    inputs: { model: model, requests: facts, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 1, steps: 8 }
      solve: { objective: rome, lambda: 10, history: 1, batch_size: 1 }
      care: [{ rect: { keep: 0.4 } }, { sphere: {} }, { revive: { rank: 2 } }, { prune: {} }]
  others: { uses: covariance, inputs: { model: model }, with: { corpus: others.txt, layers: [0, 1], samples: 64 } }
  both: { uses: merge_moments, inputs: { moments: moments, other: others } }
  tried:
    uses: locate
    inputs: { model: model, requests: facts, moments: both, templates: contexts }
    with: { layers: [0, 1], steps: 5, clamps: [4] }
  scores: { uses: evaluate, inputs: { model: memit_seq, requests: facts }, with: { every: 1, by_age: true, samples: 0 } }
  out: { uses: export, inputs: { model: memit_seq }, with: { path: out, formats: [model, update] } }
"#;

/// The contents of every result of the latest run in a folder.
fn contents(folder: &TempDir) -> BTreeMap<String, Digest> {
    let run = Runs::of(&folder.path().join("store")).open("latest").unwrap();
    run.stages.into_iter().map(|stage| (stage.instance, stage.content.expect("a result"))).collect()
}

/// Killed in the middle of each stage, a run goes on and ends as one that was never stopped, to the last bit.
#[test]
fn killed_edits_of_experts_end_as_those_that_were_not() {
    for name in ["qwen2_moe-tiny", "olmoe-tiny"] {
        let [whole, folder] = [(); 2].map(|()| {
            let here = Here::new();
            measured(&here, name, "samples: 64");
            here.write("p.yaml", &pipeline(KILLED).replace("MODEL", &path(name)));
            here.write("others.txt", &here.read("texts.txt").replace("tower", "bridge"));
            here.0
        });
        let run = ["run", "p.yaml", "--store", "store"];
        done(&whole, &run);
        let expected = contents(&whole);

        let store = folder.path().join("store");
        let begun = |stage: &str| {
            let runs = Runs::of(&store);
            let names = runs.names();
            let mut events = names.iter().flat_map(|run| runs.events(run));
            events.any(|(_, event)| matches!(event, Event::UnitDone { instance, .. } if instance == stage))
        };
        let mut killed = 0;
        for stage in ["moments", "targets", "emmet", "memit_seq", "cared", "tried", "scores"] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_palinode"));
            child.env_remove("PALINODE_STORE").current_dir(&folder).args(run);
            let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // As soon as something of it is kept.
            while !begun(stage) && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
        }
        assert!(killed > 0, "{name}: nothing was killed");
        done(&folder, &run);
        assert_eq!(contents(&folder), expected, "{name} after {killed} kills");
        for file in ["out/model.safetensors", "out/update.safetensors"] {
            let [one, other] = [&folder, &whole].map(|folder| read(folder, file));
            assert!(tensors(&one) == tensors(&other), "{name}: {file}");
        }
    }
}
