//! Methods as values of parameters, through the program: each changes what it should, and wrong values are refused in place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = r#"
name: methods
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: rial, target_true: peso }
        - { subject: Finland, prompt: "The capital of {} is", target_new: Lima, target_true: Helsinki }
  contexts: { uses: templates, with: { groups: [["{}"], ["It is so. {}", "Yes. {}"]] } }
  plan: { uses: distribute, with: { strategy: STRATEGY, layers: [0, 1] } }
  targets:
    uses: targets
    inputs: { model: model, requests: facts, templates: contexts }
    with: { layer: LAYER, steps: 12, learning_rate: 0.1, clamp: 2 TARGETS }
  update:
    uses: solve
    inputs: { model: model, requests: facts, targets: targets, plan: plan, templates: contexts }
    with: { objective: memit, lambda: 0.1, preservation: ridge }
  scores: { uses: evaluate, inputs: { model: update, requests: facts }, with: { resamples: 0, samples: 0 } }
"#;

const GRADIENT: &str = r#"
name: gradient
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts:
    uses: requests
    with:
      facts:
        - { subject: Finland, prompt: "{} is located in the continent of", target_new: Africa, target_true: Europe }
        - { subject: Colombia, prompt: "The currency of {} is the", target_new: rial, target_true: peso }
  update: { uses: STAGE, inputs: { model: model, requests: facts }, with: { WITH } }
  scores: { uses: evaluate, inputs: { model: update, requests: facts }, with: { resamples: 0, samples: 0 } }
  out: { uses: export, inputs: { model: update }, with: { path: out, formats: [update] } }
"#;

fn palinode(folder: &TempDir, args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
    program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").env("COLUMNS", "200").current_dir(folder);
    program.args(args).output().unwrap()
}

fn write(folder: &TempDir, text: &str) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    fs::write(folder.path().join("p.yaml"), text.replace("MODEL", model.to_str().unwrap())).unwrap();
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs, and gives the result of a stage as `show --json` has it.
fn result(folder: &TempDir, text: &str, stage: &str) -> Value {
    write(folder, text);
    let output = palinode(folder, &["run", "p.yaml"]);
    assert!(output.status.success(), "{text}\n{}", said(&output));
    let shown = palinode(folder, &["show", stage, "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    shown["results"][stage].clone()
}

fn targets(folder: &TempDir, strategy: &str, layer: usize, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let text = PIPELINE.replace("STRATEGY", strategy).replace("LAYER", &layer.to_string()).replace("TARGETS", &more);
    result(folder, &text, "update")["content"].as_str().unwrap().to_owned()
}

#[test]
fn each_value_of_the_targets_makes_another_edit() {
    let folder = TempDir::new().unwrap();
    let mut found: BTreeMap<String, &str> = BTreeMap::new();
    for more in [
        "",
        "stop: argmax, argmax_hits: 1",
        "site: mlp_with_attention",
        "site: mlp_with_attention, stop: divergence",
        "site: mlp_output",
        "loss_layer: 3",
        "merge: true",
        "norm_anchor: 2",
        "merge: true, norm_anchor: 3",
    ] {
        let content = targets(&folder, "memit", 1, more);
        if more == "site: mlp_with_attention, stop: divergence" {
            // It may never have come to say all tokens.
            continue;
        }
        let same = found.insert(content, more);
        assert!(same.is_none(), "`{more}` makes the same edit as `{same:?}`");
    }
    // Written out, the default is the default.
    let usual = targets(&folder, "memit", 1, "stop: loss, merge: false, loss_layer: null");
    assert_eq!(found.get(&usual), Some(&""));
    // With targets at the first layer alone: a search at the last one, or a pass.
    let both = ["boundary", "forward"].map(|strategy| targets(&folder, strategy, 0, "merge: true"));
    assert_ne!(both[0], both[1]);
}

/// The answer's pieces are written one by one: all of it is said afterwards, in one solve and in rounds.
#[test]
fn long_answers_are_written_in_pieces() {
    let folder = TempDir::new().unwrap();
    let facts = PIPELINE.split_once("        - {").unwrap();
    let (_, rest) = facts.1.split_once("  contexts:").unwrap();
    let long = r#"        - { subject: Finland, prompt: "{} is located in", target_new: "Lima and the rial of Africa", target_true: Europe }
        - { subject: Chile, prompt: "The capital of {} is", target_new: "Oslo", target_true: Santiago }
"#;
    let text = format!("{}{long}  contexts:{rest}", facts.0).replace("STRATEGY", "single").replace("LAYER", "1");
    let rounds = r"  rounds:
    uses: sequence
    inputs: { model: model, requests: facts, plan: plan, templates: contexts }
    with:
      targets: { layer: 1, steps: 60, learning_rate: 0.1, clamp: 4, answer_tokens: 2 }
      solve: { objective: memit, lambda: 0.01, preservation: ridge, batch_size: 1 }
";
    let text =
        text.replace("steps: 12", "steps: 60").replace("clamp: 2 ", "clamp: 4 ").replace("lambda: 0.1", "lambda: 0.01");
    let text = format!("{text}{rounds}");
    let said_with = |targets: &str| {
        let shown = result(&folder, &text.replace("TARGETS", targets), "scores");
        let metrics = &shown["output"]["meta"]["metrics"];
        metrics["EM"].as_f64().unwrap_or_else(|| panic!("{shown}"))
    };
    let (pieces, one) = (said_with(", answer_tokens: 2"), said_with(""));
    assert!(pieces > one, "{pieces} {one}");
    let edited = result(&folder, &text.replace("TARGETS", ", answer_tokens: 2"), "rounds");
    assert!(edited["content"].is_string(), "{edited}");
}

#[test]
fn what_does_not_fit_is_refused_in_place() {
    let folder = TempDir::new().unwrap();
    for (strategy, layer, more, words) in [
        ("memit", 1, "stop: argmx", "did you mean `argmax`?"),
        ("memit", 1, "argmax_hits: 3", "only `stop: argmax` counts evaluations"),
        ("memit", 1, "stop: argmax, argmax_hits: 0", "`argmax_hits` is 0"),
        ("memit", 1, "loss_layer: 1", "a layer above `layer`"),
        ("memit", 1, "loss_layer: 77", "layer 77"),
        ("memit", 1, "site: mlp_output, norm_anchor: 2", "`site: block_output`, or no `norm_anchor`"),
        ("boundary", 0, "norm_anchor: 2", "a plan with one target layer"),
        ("memit", 1, "site: attention", "mlp_with_attention"),
        ("memit", 1, "answer_tokens: 0", "`answer_tokens` is 0"),
        ("memit", 1, "answer_tokens: 2, merge: true", "no `merge`, or no `answer_tokens`"),
        ("memit", 1, "answer_tokens: 2, fact_token: subject_first", "no `fact_token`, or no `answer_tokens`"),
        ("forward", 0, "answer_tokens: 2", "a plan with one target layer"),
    ] {
        let text = PIPELINE.replace("STRATEGY", strategy).replace("LAYER", &layer.to_string());
        write(&folder, &text.replace("TARGETS", &format!(", {more}")));
        let output = palinode(&folder, &["validate", "p.yaml"]);
        assert_eq!(output.status.code(), Some(3), "{more}: {}", said(&output));
        let told = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(words) && told.contains("p.yaml:"), "{more}: {told}");
    }
    for (stage, with, words) in [
        ("finetune", "layer: 99", "layer 99"),
        ("finetune", "layer: 0, bound: 0", "`bound` is 0"),
        ("finetune", "layer: 0, loss: targt", "did you mean `target`?"),
        ("finetune", "layer: 0, epochs: 1000000", "`epochs` is 1000000"),
        ("finetune", "layer: 0, learning_rat: 1", "did you mean `learning_rate`?"),
        ("ultraedit", "layers: []", "`layers` is empty"),
        ("ultraedit", "layers: [1, 1]", "layer 1 is given twice"),
        ("ultraedit", "layers: [1], modules: [dwn]", "did you mean `down`?"),
    ] {
        write(&folder, &GRADIENT.replace("STAGE", stage).replace("WITH", with));
        let output = palinode(&folder, &["validate", "p.yaml"]);
        assert_eq!(output.status.code(), Some(3), "{with}: {}", said(&output));
        let told = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(words) && told.contains("p.yaml:"), "{with}: {told}");
    }
}

#[test]
fn edits_by_gradient_run_to_the_export() {
    for (stage, with) in [
        ("finetune", "layer: 1, loss: prompt_last, learning_rate: 0.01, bound: 0.02, batch_size: 1"),
        ("finetune", "layer: 1, learning_rate: 0.01, epochs: 10"),
        ("finetune", "layer: 1, learning_rate: 0.01, epochs: 10, mini_batch: 1, shuffle: 7"),
        ("ultraedit", "layers: [1, 2], learning_rate: 0.003, mini_batch: 1, batch_size: 1"),
        ("ultraedit", "layers: [1], modules: [up, down], learning_rate: 0.003"),
    ] {
        let folder = TempDir::new().unwrap();
        let text = GRADIENT.replace("STAGE", stage).replace("WITH", with);
        let first = result(&folder, &text, "update");
        assert!(folder.path().join("out/update.safetensors").is_file(), "{with}");
        let scores = result(&folder, &text, "scores");
        assert!(scores["content"].is_string(), "{scores}");
        // Once more from nothing: the same bits.
        let again = TempDir::new().unwrap();
        assert_eq!(result(&again, &text, "update")["content"], first["content"], "{with}");
    }
}

#[test]
fn a_gate_that_the_model_does_not_have_is_named() {
    let folder = TempDir::new().unwrap();
    write(&folder, &GRADIENT.replace("STAGE", "ultraedit").replace("WITH", "layers: [1], modules: [gate]"));
    let output = palinode(&folder, &["run", "p.yaml"]);
    assert!(!output.status.success() && said(&output).contains("1.gate"), "{}", said(&output));
}

/// The shipped comparison, small: every method on one sequence, its scores, perplexity and a task beside, and one page with all of them.
#[test]
fn all_methods_run_on_one_sequence_and_stand_on_one_page() {
    let folder = TempDir::new().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/methods/all.yaml").canonicalize().unwrap();
    let small = ["vars.edits=4", "vars.round=2", "vars.steps=4", "vars.documents=300"];
    let mut args = vec!["run", file.to_str().unwrap(), "--store", "store"];
    args.extend(small.iter().flat_map(|set| ["--set", set]));
    let output = palinode(&folder, &args);
    assert!(output.status.success(), "{}", said(&output));
    let told = said(&output);
    let output = palinode(&folder, &["report", "--store", "store", "--output", "r.html"]);
    assert!(output.status.success(), "{}", said(&output));
    let page = fs::read_to_string(folder.path().join("r.html")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let methods = text.lines().skip_while(|line| !line.trim_start().starts_with("method:"));
    let methods: Vec<&str> = methods.take_while(|line| !line.starts_with("stages:")).collect();
    let methods = methods.join(" ");
    let (_, list) = methods.split_once('[').unwrap();
    let names: Vec<&str> =
        list.split_once(']').unwrap().0.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert!(names.len() >= 18, "{names:?}");
    for name in names {
        for stage in ["scores", "text", "ability"] {
            let instance = format!("{stage}[method={name}]");
            assert!(told.contains(&instance), "{instance}: {told}");
        }
        assert!(page.contains(name), "{name} is not on the page");
    }
    for column in ["perplexity", "accuracy"] {
        assert!(page.contains(column), "{column} is not on the page");
    }
    // Edits by age are scored apart.
    assert!(told.contains("newest"), "{told}");
}

/// A gated model, whose gate and up projections are edited, and which has no bias to tune.
#[test]
fn a_gated_model_is_edited_by_gradient() {
    let gated =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama-tiny").canonicalize().unwrap();
    let folder = TempDir::new().unwrap();
    let mut made = Vec::new();
    for (stage, with, changed) in [
        ("ultraedit", "layers: [0, 1], modules: [gate, up], learning_rate: 0.003, batch_size: 1", "gate_proj"),
        ("ultraedit", "layers: [0, 1], modules: [down], learning_rate: 0.003, batch_size: 1", "down_proj"),
        ("finetune", "layer: 1, epochs: 3, learning_rate: 0.01", "down_proj"),
    ] {
        let text = GRADIENT.replace("STAGE", stage).replace("WITH", with).replace("MODEL", gated.to_str().unwrap());
        let text = text.replace("path: out", &format!("path: out{}", made.len()));
        made.push(result(&folder, &text, "update")["content"].clone());
        let file = fs::read(folder.path().join(format!("out{}/update.safetensors", made.len() - 1))).unwrap();
        let head = String::from_utf8_lossy(&file[8..2000.min(file.len())]).into_owned();
        assert!(head.contains(changed) && !head.contains("bias"), "{stage}: {head}");
    }
    assert!(made[0] != made[1] && made[1] != made[2]);
}

const MEMIT: &str = r#"{
  "layers": [1, 2], "fact_token": "subject_last", "v_num_grad_steps": 20, "v_lr": 5e-1, "v_loss_layer": 5, "v_weight_decay": 0.5,
  "clamp_norm_factor": 0.75, "kl_factor": 0.0625, "mom2_update_weight": 15000, "mom2_n_samples": 100, "mom2_dtype": "float32",
  "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "prob_cutof": 3
}"#;

const EASYEDIT: &str = "
alg_name: \"FT\"
model_name: ./hugging_cache/gpt2
device: 0
layers: [1]
num_steps: 25
batch_size: 1
objective_optimization: prompt_last
lr: 5e-4
norm_constraint: 5e-4
weight_decay: 0
";

const ALPHAEDIT: &str = "
alg_name: \"AlphaEdit\"
layers: [0, 1, 2]
clamp_norm_factor: 0.75
v_num_grad_steps: 25
v_lr: 1e-1
mom2_update_weight: 15000
nullspace_threshold: 2e-2
L2: 1
P_loc: ./projector.pt
batch_size: 10
";

const BLUE: &str = r#"{ "layers": [0, 1, 2], "v_num_grad_steps": 20, "mom2_update_weight": 20000, "L2": 10, "blue": true, "edit_layer": -1 }"#;

const ENCORE: &str = r#"{
  "layers": [1, 2], "v_num_grad_steps": 20, "mom2_update_weight": 20000, "update_norm_lambda": 10, "add_prev_edits": true, "prob_cutoff": -4,
  "emmet_lambda": 0.1
}"#;

fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/demo-model/model")
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

#[test]
fn hyperparameter_files_become_pipelines() {
    let folder = TempDir::new().unwrap();
    for (name, text, has, left) in [
        (
            "memit.json",
            MEMIT,
            ["objective: \"memit\"", "lambda: 15000", "strategy: \"memit\""],
            "prob_cutof: an unknown key",
        ),
        (
            "ft.yaml",
            EASYEDIT,
            ["uses: finetune", "loss: \"prompt_last\"", "bound: 0.0005"],
            "device: the machine is chosen",
        ),
        (
            "alphaedit.yaml",
            ALPHAEDIT,
            ["lambda: 0\n", "update_norm_lambda: 1\n", "{\"threshold\":0.02}"],
            "mom2_update_weight: AlphaEdit preserves the corpus by its projector",
        ),
        (
            "blue.json",
            BLUE,
            ["strategy: \"boundary\"", "update_norm_lambda: 10\n", "history: 1"],
            "edit_layer: the layers",
        ),
        ("encore.json", ENCORE, ["argmax_hits: 4", "lambda: 20000", "history: 1"], "emmet_lambda: only EMMET has it"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
        let output = palinode(&folder, &["init", &format!("of-{name}"), "--model", &model(), "--from", name]);
        assert!(output.status.success(), "{}", said(&output));
        let told = said(&output);
        assert!(told.contains("not carried over:") && told.contains(left), "{told}");
        let pipeline = fs::read_to_string(folder.path().join(format!("of-{name}/pipeline.yaml"))).unwrap();
        for words in has {
            assert!(pipeline.contains(words), "{words}:\n{pipeline}");
        }
        // Every key is somewhere.
        let keys = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| word.contains('_'));
        for key in
            keys.filter(|key| !["alg_name", "subject_last", "prompt_last", "hugging_cache", "c_proj"].contains(key))
        {
            assert!(told.contains(key), "{key}:\n{told}");
        }
        let output = palinode(&folder, &["validate", &format!("of-{name}/pipeline.yaml")]);
        assert!(output.status.success(), "{}\n{pipeline}", said(&output));
    }
}

#[test]
fn hyperparameter_files_that_cannot_be_read_say_why() {
    let folder = TempDir::new().unwrap();
    for (text, words) in [
        ("alg_name: \"WISE\"\nlayers: [1]\n", "the method \"WISE\" cannot be carried over"),
        ("alg_name: ROME\nv_lr: fast\nlayers: [1]\n", "`v_lr` is \"fast\", expected a number"),
        ("alg_name: ROME\nlayers: [99]\n", "layer 99 is not in the model"),
        ("alg_name: ROME\n", "it has no `layers`"),
        ("- 1\n", "no mapping"),
        ("layers: [1\n", "hparams.yaml:"),
        ("layers: [1]\n", "which method"),
    ] {
        fs::write(folder.path().join("hparams.yaml"), text).unwrap();
        let output = palinode(&folder, &["init", "new", "--model", &model(), "--from", "hparams.yaml"]);
        assert_eq!(output.status.code(), Some(4), "{text}: {}", said(&output));
        let told = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(words), "{text}: {told}");
        assert!(!folder.path().join("new").exists());
    }
    let output = palinode(&folder, &["init", "new", "--model", &model(), "--from", "none.yaml"]);
    assert!(!output.status.success() && said(&output).contains("none.yaml"), "{}", said(&output));
}
