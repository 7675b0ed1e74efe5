//! `palinode edit` and `palinode ask` on the demo model, as a first visitor would use them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model")
}

/// Exit code, and what was printed on stdout and stderr.
fn palinode(folder: &TempDir, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(folder).args(args);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn first(answers: &Value, side: &str) -> (String, f64) {
    let next = &answers[side]["next"][0];
    (next["token"].as_str().unwrap().trim().to_owned(), next["p"].as_f64().unwrap())
}

#[test]
fn an_edit_is_made_asked_kept_and_run_again() {
    let folder = TempDir::new().unwrap();
    let model = model();
    let model = model.to_str().unwrap();
    let also = "Sweden is located in the continent of";
    let prompt = ["--subject", "Finland", "--prompt", "{} is located in the continent of", "--target", "Africa"];
    let mut args = vec!["edit", model, "--also", also, "--json", "--output", "out", "--save", "edit.yaml"];
    args.extend(prompt);
    let (code, told, problems) = palinode(&folder, &args);
    assert_eq!(code, 0, "{problems}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let (before, after) = (first(&told["answers"][0], "before"), first(&told["answers"][0], "after"));
    assert_eq!((before.0.as_str(), after.0.as_str()), ("Europe", "Africa"));
    assert!(before.1 > 0.9 && after.1 > 0.5, "{told}");
    assert_eq!(first(&told["answers"][1], "after").0, "Europe");

    // The pipeline that was kept does the same, and finds everything done.
    let (code, said, problems) = palinode(&folder, &["run", "edit.yaml"]);
    assert!(code == 0 && said.contains("nothing to do"), "{said}{problems}");
    // A second file of that name is not written over the first.
    let (code, _, problems) = palinode(&folder, &args);
    assert!(code == 4 && problems.contains("choose another name"), "{problems}");

    // The update that was written, on the model that it was made for.
    let update = ["--update", "out/update.safetensors", "Finland is located in the continent of"];
    let (code, said, problems) = palinode(&folder, &[&["ask", model, "--tokens", "2"][..], &update[..]].concat());
    assert_eq!(code, 0, "{problems}");
    insta::assert_snapshot!(said);
}

#[test]
fn mistakes_are_told() {
    let folder = TempDir::new().unwrap();
    let model = model();
    let model = model.to_str().unwrap();
    let edit = |model: &str, prompt: &str| {
        palinode(&folder, &["edit", model, "--subject", "Finland", "--prompt", prompt, "--target", "Africa"])
    };
    let (code, _, problems) = edit("nowhere", "{} is in");
    assert!(code == 4 && problems.contains("name a model's folder"), "{code} {problems}");
    let (code, _, problems) = edit(model, "Norway is in");
    assert!(code == 3 && problems.starts_with("--prompt: ") && problems.contains("{}"), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &["ask", model, " "]);
    assert!(code == 3 && problems.starts_with("PROMPTS: the prompt is empty"), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &["ask", model, "a", "--update", "none.safetensors"]);
    assert!(code == 4 && problems.starts_with("--update: "), "{code} {problems}");
    let fact = ["edit", model, "--subject", "Finland", "--prompt", "{} is in", "--target", "Africa"];
    let (code, _, problems) = palinode(&folder, &[&fact[..], &["--layer", "99"]].concat());
    assert!(code == 3 && problems.starts_with("--layer: ") && !problems.contains("yaml"), "{code} {problems}");
    // A number that is none would be left out of the pipeline, and the default used.
    for none in ["nan", "inf"] {
        let (code, _, problems) = palinode(&folder, &[&fact[..], &["--lambda", none]].concat());
        assert!(code == 2 && problems.contains("--lambda"), "{none}: {code} {problems}");
    }
    // What has mistakes is not saved.
    let (code, _, problems) = palinode(&folder, &[&fact[..], &["--lambda=-1", "--save", "wrong.yaml"]].concat());
    assert!(code == 3 && !folder.path().join("wrong.yaml").exists(), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &[&fact[..], &["--lambda=-1"]].concat());
    assert!(code == 3 && problems.starts_with("--lambda: "), "{code} {problems}");
    // Texts mean what they say, also in the file that is saved.
    let (code, _, problems) = palinode(&folder, &["ask", model, "It costs ${5} \"there\"", "--save", "ask.yaml"]);
    assert_eq!(code, 0, "{problems}");
    let (code, said, problems) = palinode(&folder, &["run", "ask.yaml"]);
    assert!(code == 0 && said.contains("nothing to do"), "{said}{problems}");
    std::fs::write(folder.path().join("other.safetensors"), "not one").unwrap();
    let (code, _, problems) = palinode(&folder, &["ask", model, "--update", "other.safetensors", "Finland is"]);
    assert!(code == 4 && problems.contains("not a safetensors file"), "{code} {problems}");
}
