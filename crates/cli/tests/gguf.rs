//! The program on GGUF files: edited, asked, exported in every form, read again.

mod here;

use std::fs;
use std::path::Path;

use here::{done, fixture, next, palinode};
use serde_json::Value;
use tempfile::TempDir;

const FACT: [&str; 6] = ["--subject", "The tall tower", "--prompt", "{} stands in", "--target", "Parma"];
const FAST: [&str; 4] = ["--moments", "none", "--layer", "1"];

/// Probabilities of the most probable next tokens, by token.
fn asked(folder: &TempDir, model: &str, more: &[&str]) -> Vec<(String, f64)> {
    let said = done(folder, &[&["ask", model, "The tall tower stands in", "--json"], more].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    next(&said[0]["before"])
}

fn near(a: &[(String, f64)], b: &[(String, f64)], by: f64) {
    assert_eq!(a.len(), b.len());
    for ((token, p), (other, q)) in a.iter().zip(b) {
        assert!(token == other && (p - q).abs() < by, "{a:?} and {b:?}");
    }
}

#[test]
fn edited_exported_and_read_again() {
    for name in ["llama2-tiny", "gpt2-tiny", "qwen3-tiny"] {
        let folder = TempDir::new().unwrap();
        let model = folder.path().join("some model.gguf");
        fs::copy(fixture("gguf").join(format!("{name}.gguf")), &model).unwrap();
        // The same as the folder that it was made of.
        near(&asked(&folder, "some model.gguf", &[]), &asked(&folder, fixture(name).to_str().unwrap(), &[]), 1e-5);

        let edit = [&["edit", "some model.gguf", "--json", "--output", "out", "--save", "edit.yaml"][..], &FACT, &FAST];
        let told: Value = serde_json::from_str(&done(&folder, &edit.concat())).unwrap();
        let edited = next(&told["answers"][0]["after"]);
        assert_ne!(next(&told["answers"][0]["before"]), edited);
        assert!(!folder.path().join("out/model.safetensors").exists());
        near(&asked(&folder, "out/model.gguf", &[]), &edited, 1e-5);

        // By another name it is the same model.
        fs::rename(&model, folder.path().join("renamed.gguf")).unwrap();
        let text = fs::read_to_string(folder.path().join("edit.yaml")).unwrap();
        let all = text.replace("some model.gguf", "renamed.gguf");
        let all = all.replace(r#"["gguf","update"]"#, r#"["gguf","update","model","peft"]"#);
        fs::write(folder.path().join("edit.yaml"), all).unwrap();
        let said = done(&folder, &["run", "edit.yaml"]);
        assert!(said.contains("ran 1, cached 8"), "{said}");
        near(&asked(&folder, "out", &[]), &edited, 1e-5);
        assert!(folder.path().join("out/adapter/adapter_config.json").is_file());

        // The update alone, on the file that it was made for.
        done(&folder, &["apply", "out/update.safetensors", "renamed.gguf", "--output", "applied"]);
        assert_eq!(
            fs::read(folder.path().join("applied/model.safetensors")).unwrap(),
            fs::read(folder.path().join("out/model.safetensors")).unwrap()
        );
        near(&asked(&folder, "applied", &[]), &edited, 1e-5);
        done(&folder, &["revert", "out/update.safetensors", "applied", "--output", "reverted"]);
        near(&asked(&folder, "reverted", &[]), &asked(&folder, "renamed.gguf", &[]), 1e-5);
        let (code, _, problems) =
            palinode(&folder, &["revert", "out/update.safetensors", "out/model.gguf", "--output", "again"]);
        assert!(code == 4 && problems.contains("use that one"), "{code} {problems}");
        let (code, _, problems) =
            palinode(&folder, &["apply", "out/update.safetensors", "out/model.gguf", "--output", "twice"]);
        assert!(code == 4 && problems.contains("is not the model.gguf that the update was made for"), "{problems}");
        // The folder that the file was made of has other numbers, for `apply` and for a pipeline.
        let other = fixture(name);
        let load = format!("model: {{ uses: load_model, with: {{ path: '{}' }} }}", other.display());
        let update = "update: { uses: load_update, inputs: { model: model }, with: { path: out/update.safetensors } }";
        let text = format!("name: other\nstages:\n  {load}\n  {update}\n");
        fs::write(folder.path().join("other.yaml"), text).unwrap();
        let apply = ["apply", "out/update.safetensors", other.to_str().unwrap(), "--output", "other"];
        for (command, hint) in [(&apply[..], "insist with --force"), (&["run", "other.yaml"], "set `force: true`")] {
            let (code, _, problems) = palinode(&folder, command);
            let problems = problems.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in ["the update was made for a GGUF file", "is a folder of safetensors", hint] {
                assert!(code == 4 && problems.contains(part), "{part}: {problems}");
            }
        }
    }
}

/// A folder with a corpus and a pipeline that edits one fact of a model: runs it with these parameters.
fn edit(folder: &TempDir, model: &Path, fact: &str, lambda: f64, export: &str) -> (i32, String, String) {
    let words = |i: usize| {
        let some = "a b c d e f g h i j k l m".split(' ').cycle().skip(i).step_by(1 + i % 5).take(20);
        some.collect::<Vec<_>>().join(" ")
    };
    fs::write(folder.path().join("corpus.txt"), (0..40).map(words).collect::<Vec<_>>().join("\n")).unwrap();
    let text = format!(
        r#"
name: bits
stages:
  model: {{ uses: load_model, with: {{ path: "{}" }} }}
  fact: {{ uses: requests, with: {{ facts: [{fact}] }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: fact }}, with: {{ layer: 1, steps: 5 }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: corpus.txt, layers: [1], samples: 40 }} }}
  plan: {{ uses: distribute, with: {{ strategy: single, layers: [1] }} }}
  update:
    uses: solve
    inputs: {{ model: model, requests: fact, moments: moments, targets: targets, plan: plan }}
    with: {{ objective: memit, lambda: {lambda}, update_norm_lambda: 1 }}
  out: {{ uses: export, inputs: {{ model: update }}, with: {{ path: out, {export} }} }}
"#,
        model.display()
    );
    fs::write(folder.path().join("p.yaml"), text).unwrap();
    palinode(folder, &["run", "p.yaml"])
}

#[test]
fn eight_bits() {
    let folder = TempDir::new().unwrap();
    let model = fixture("gguf/types.gguf");
    done(&folder, &["ask", model.to_str().unwrap(), "a b c", "--json"]);
    let fact = r#"{ subject: "a b", prompt: "{} c", target_new: d }"#;
    let run = |export: &str| edit(&folder, &model, fact, 1.0, export);
    let size = || fs::metadata(folder.path().join("out/model.gguf")).unwrap().len();
    let (code, said, problems) = run("formats: [gguf]");
    assert_eq!(code, 0, "{said}{problems}");
    let half = size();
    let (code, said, problems) = run("formats: [gguf], gguf_type: q8_0");
    assert_eq!(code, 0, "{said}{problems}");
    assert!(size() <= half);
    done(&folder, &["model", "inspect", "out/model.gguf"]);
    let (code, _, problems) = run("formats: [update], gguf_type: q8_0");
    assert!(code == 3 && problems.contains("model.gguf, which is not written"), "{code} {problems}");
}

/// A change that is smaller than a step of bf16: its weight is written in f32, unless another type is asked for, and both are said.
#[test]
fn what_rounding_loses() {
    let folder = TempDir::new().unwrap();
    let fact = r#"{ subject: "The tall tower", prompt: "{} stands in", target_new: Parma }"#;
    let name = "model.layers.1.mlp.down_proj.weight";
    let run = |export: &str| {
        let (code, said, problems) = edit(&folder, &fixture("qwen3-tiny"), fact, 1e9, export);
        assert_eq!(code, 0, "{said}{problems}");
        format!("{said}{problems}")
    };
    let dtype = || {
        let bytes = fs::read(folder.path().join("out/model.safetensors")).unwrap();
        let header = bytes.len().min(8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize);
        let header: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        header[name]["dtype"].as_str().unwrap().to_owned()
    };
    let flat = |said: &str| said.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = flat(&run("formats: [model, update]"));
    assert_eq!(dtype(), "F32");
    assert!(all.contains(&format!("{name} is written in F32: rounding to BF16 would lose")), "{all}");
    assert!(all.contains("lost by rounding 0.0%") && all.contains("load the model in float32"), "{all}");
    let page = fs::read_to_string(folder.path().join("out/README.md")).unwrap();
    assert!(page.contains(&format!("| {name} | BF16 | F32 | 0% |")), "{page}");
    // Taken off again, the weight is in its own type, and the file is the one that was edited.
    let said = done(&folder, &["revert", "out/update.safetensors", "out", "--output", "reverted"]);
    let original = fs::read(fixture("qwen3-tiny").join("model.safetensors")).unwrap();
    assert!(fs::read(folder.path().join("reverted/model.safetensors")).unwrap() == original, "{said}");
    done(&folder, &["model", "inspect", "out"]);
    done(&folder, &["apply", "out/update.safetensors", fixture("qwen3-tiny").to_str().unwrap(), "--output", "applied"]);
    assert!(
        fs::read(folder.path().join("applied/model.safetensors")).unwrap()
            == fs::read(folder.path().join("out/model.safetensors")).unwrap()
    );
    let all = flat(&run("formats: [model], dtype: stored, overwrite: true"));
    assert_eq!(dtype(), "BF16");
    assert!(all.contains(&format!("rounding {name} to BF16 loses")), "{all}");
    assert!(all.contains("without `dtype` it is kept"), "{all}");
    run("formats: [model], dtype: f16, overwrite: true");
    assert_eq!(dtype(), "F16");
    let (code, said, problems) = edit(&folder, &fixture("gguf/types.gguf"), fact, 1.0, "formats: [model], dtype: f16");
    assert!(code == 3 && problems.contains("has every weight in f32"), "{code} {said}{problems}");
    let (_, said, problems) = edit(&folder, &fixture("llama2-tiny"), fact, 1e9, "formats: [model], overwrite: true");
    assert!(!format!("{said}{problems}").contains("rounding"), "{said}{problems}");
}

/// What a folder or another file cannot be, in words, with the exit code of its kind.
#[test]
fn mistakes_are_told() {
    let folder = TempDir::new().unwrap();
    let (code, said, _) = palinode(&folder, &["model", "inspect", fixture("gguf/llama2-tiny.gguf").to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(said.contains("Llama") && said.contains("llama2-tiny.gguf") && said.contains("SentencePiece"), "{said}");

    let whole = fs::read(fixture("gguf/llama2-tiny.gguf")).unwrap();
    fs::write(folder.path().join("half.gguf"), &whole[..whole.len() / 2]).unwrap();
    let (code, _, problems) = palinode(&folder, &["ask", "half.gguf", "The"]);
    assert!(code == 4 && problems.starts_with("MODEL: ") && problems.contains("beyond the end"), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &["model", "inspect", "half.gguf"]);
    assert!(code == 4 && problems.contains("half.gguf is not a GGUF file that can be read"), "{code} {problems}");
    done(&folder, &["init", "made", "--model", fixture("gguf/llama2-tiny.gguf").to_str().unwrap()]);
    let (code, _, problems) = palinode(&folder, &["init", "none", "--model", "half.gguf"]);
    assert!(code == 4 && problems.contains("beyond the end"), "{code} {problems}");

    fs::write(folder.path().join("no.gguf"), "no").unwrap();
    let (code, _, problems) = palinode(&folder, &["ask", "no.gguf", "The"]);
    assert!(code == 4 && problems.contains("neither a folder nor a GGUF file"), "{code} {problems}");

    // A model that is a folder is not written as GGUF.
    let llama = fixture("llama2-tiny");
    let args =
        [&["edit", llama.to_str().unwrap(), "--output", "out", "--save", "edit.yaml"][..], &FACT, &FAST].concat();
    done(&folder, &args);
    let text = fs::read_to_string(folder.path().join("edit.yaml")).unwrap();
    let wrong = text.replacen("path: \"out\"\n", "path: \"out\"\n      formats: [gguf]\n", 1);
    assert_ne!(text, wrong, "{text}");
    fs::write(folder.path().join("edit.yaml"), wrong).unwrap();
    let (code, _, problems) = palinode(&folder, &["validate", "edit.yaml"]);
    assert!(code == 3 && problems.contains("leave `gguf` out of `formats`"), "{code} {problems}");
    // Nor has it a chat template.
    let (code, _, problems) = palinode(&folder, &["ask", llama.to_str().unwrap(), "The", "--chat"]);
    assert!(code == 4 && problems.contains("the model has no chat template"), "{code} {problems}");
}

/// Prompts as messages: other answers than to the bare text, and an edit that is made where it is asked.
#[test]
fn in_a_chat() {
    let folder = TempDir::new().unwrap();
    let model = fixture("gguf/llama2-tiny.gguf");
    let model = model.to_str().unwrap();
    let plain = asked(&folder, model, &[]);
    let chat = asked(&folder, model, &["--chat"]);
    let system = asked(&folder, model, &["--chat", "--system", "A tower is a tower"]);
    assert!(plain != chat && chat != system);
    let p = |args: &[&str]| {
        let edit = [&["edit", model, "--json"][..], &FACT, &FAST, args].concat();
        let told: Value = serde_json::from_str(&done(&folder, &edit)).unwrap();
        (told["p(new)"].to_string(), next(&told["answers"][0]["before"]))
    };
    let (bare, before) = p(&[]);
    let (told, in_chat) = p(&["--chat"]);
    assert_eq!((before, in_chat), (plain, chat));
    assert_ne!(bare, told);
    let (code, _, problems) = palinode(&folder, &["ask", model, "The", "--system", "A"]);
    assert!(code == 2 && problems.contains("--chat"), "{code} {problems}");
}
