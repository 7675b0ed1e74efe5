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
    // What a first visitor gets without any choice is an edit without a doubt, that leaves another country where it was.
    assert_eq!((&told["doubts"], &told["layer"]), (&serde_json::json!([]), &serde_json::json!(0)), "{told}");
    assert!(first(&told["answers"][1], "after").1 > 0.9, "{told}");

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
    assert!(code == 2 && problems.starts_with("--prompt: ") && problems.contains("{}"), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &["ask", model, " "]);
    assert!(code == 2 && problems.starts_with("PROMPTS: the prompt is empty"), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &["ask", model, "a", "--update", "none.safetensors"]);
    assert!(code == 4 && problems.starts_with("--update: "), "{code} {problems}");
    let fact = ["edit", model, "--subject", "Finland", "--prompt", "{} is in", "--target", "Africa"];
    let (code, _, problems) = palinode(&folder, &[&fact[..], &["--layer", "99"]].concat());
    assert!(code == 2 && problems.starts_with("--layer: ") && !problems.contains("yaml"), "{code} {problems}");
    // A number that is none would be left out of the pipeline, and the default used.
    for none in ["nan", "inf"] {
        let (code, _, problems) = palinode(&folder, &[&fact[..], &["--lambda", none]].concat());
        assert!(code == 2 && problems.contains("--lambda"), "{none}: {code} {problems}");
    }
    // What has mistakes is not saved.
    let (code, _, problems) = palinode(&folder, &[&fact[..], &["--lambda=-1", "--save", "wrong.yaml"]].concat());
    assert!(code == 2 && !folder.path().join("wrong.yaml").exists(), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &[&fact[..], &["--lambda=-1"]].concat());
    assert!(code == 2 && problems.starts_with("--lambda: "), "{code} {problems}");
    // Texts mean what they say, also in the file that is saved.
    let (code, _, problems) = palinode(&folder, &["ask", model, "It costs ${5} \"there\"", "--save", "ask.yaml"]);
    assert_eq!(code, 0, "{problems}");
    let (code, said, problems) = palinode(&folder, &["run", "ask.yaml"]);
    assert!(code == 0 && said.contains("nothing to do"), "{said}{problems}");
    std::fs::write(folder.path().join("other.safetensors"), "not one").unwrap();
    let (code, _, problems) = palinode(&folder, &["ask", model, "--update", "other.safetensors", "Finland is"]);
    assert!(code == 4 && problems.contains("not a safetensors file"), "{code} {problems}");
}

/// The demo's model with one bit changed: to us a stranger's.
fn strange(folder: &TempDir) -> &'static str {
    let to = folder.path().join("model");
    std::fs::create_dir(&to).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(model().join(name), to.join(name)).unwrap();
    }
    let mut weights = std::fs::read(model().join("model.safetensors")).unwrap();
    let last = weights.len() - 4;
    weights[last] ^= 1;
    std::fs::write(to.join("model.safetensors"), weights).unwrap();
    "model"
}

const FINLAND: [&str; 6] =
    ["--subject", "Finland", "--prompt", "{} is located in the continent of", "--target", "Africa"];

#[test]
fn a_strangers_model_needs_a_word_on_what_to_preserve() {
    let folder = TempDir::new().unwrap();
    let model = strange(&folder);
    let edit = |args: &[&str]| palinode(&folder, &[&["edit", model][..], &FINLAND, args].concat());
    let (code, said, problems) = edit(&[]);
    assert_eq!((code, said.as_str()), (2, ""), "{problems}");
    for way in ["--corpus FILE", "--moments FILE", "--moments none", "at 100 GFLOP/s"] {
        assert!(problems.contains(way), "{way}: {problems}");
    }
    assert!(!folder.path().join(".palinode").exists(), "nothing was started");
    let (code, said, problems) = edit(&["--moments", "none", "--json"]);
    assert_eq!(code, 0, "{problems}");
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(first(&told["answers"][0], "after").0, "Africa");
    let (code, _, problems) = edit(&["--moments", "none.npz"]);
    assert!(code == 4 && problems.starts_with("--moments: "), "{code} {problems}");
    let (code, _, problems) = edit(&["--moments", "none", "--corpus", "a.txt"]);
    assert!(code == 2 && problems.contains("cannot be used with"), "{code} {problems}");
}

#[test]
fn several_facts_are_one_batch() {
    let folder = TempDir::new().unwrap();
    let model = model();
    let model = model.to_str().unwrap();
    let csv = "subject,prompt,target_new,paraphrases\n\
        Finland,{} is located in the continent of,Africa,\n\
        Chile,The official language of {} is,Thai,\"[\"\"In Chile, people speak\"\"]\"\n";
    std::fs::write(folder.path().join("facts.csv"), csv).unwrap();
    let (code, said, problems) = palinode(&folder, &["edit", model, "--facts", "facts.csv"]);
    assert_eq!(code, 0, "{problems}");
    assert!(said.contains("2 of 2 edits took"), "{said}");
    // The same as lines of JSON, where a field may be a list as it is.
    let lines = r#"{"subject": "Finland", "prompt": "{} is located in the continent of", "target_new": "Africa"}
{"subject": "Chile", "prompt": "The official language of {} is", "target_new": "Thai", "paraphrases": ["In Chile, people speak"]}
"#;
    std::fs::write(folder.path().join("facts.jsonl"), lines).unwrap();
    let (code, again, problems) = palinode(&folder, &["edit", model, "--facts", "facts.jsonl"]);
    assert_eq!((code, again), (0, said), "{problems}");
    let (code, _, problems) = palinode(&folder, &["edit", model, "--facts", "facts.csv", "--method", "rome"]);
    assert!(code == 2 && problems.contains("--method emmet"), "{code} {problems}");
    let (code, _, problems) = palinode(&folder, &["edit", model, "--facts", "facts.csv", "--subject", "Finland"]);
    assert!(code == 2 && problems.contains("cannot be used with"), "{code} {problems}");
    // Mistakes of the file have a line.
    std::fs::write(
        folder.path().join("wrong.csv"),
        "subject,prompt,target_new\nFinland,{} is in\nChile,{} is in,Asia\n",
    )
    .unwrap();
    let (code, _, problems) = palinode(&folder, &["edit", model, "--facts", "wrong.csv"]);
    assert!(code == 4 && problems.contains("wrong.csv:2: the row has 2 cells, and the heading 3"), "{code} {problems}");
    std::fs::write(folder.path().join("wrong.csv"), "subject,prompt,target\nFinland,{} is in,Africa\n").unwrap();
    let (code, _, problems) = palinode(&folder, &["edit", model, "--facts", "wrong.csv"]);
    assert!(code == 4 && problems.contains("wrong.csv:2: ") && problems.contains("`target`"), "{code} {problems}");
}

#[test]
fn a_doubtful_edit_is_called_so() {
    let folder = TempDir::new().unwrap();
    let model = model();
    let edit = |args: &[&str]| {
        palinode(&folder, &[&["edit", model.to_str().unwrap()][..], &FINLAND, &["--method", "memit"], args].concat())
    };
    // So much preservation leaves no room for an edit.
    let (code, said, problems) = edit(&["--lambda", "1e12"]);
    assert!(code == 0 && said.contains("! the edit did not take"), "{said}{problems}");
    let (code, strict, problems) = edit(&["--lambda", "1e12", "--strict"]);
    assert_eq!((code, strict), (10, said), "{problems}");
    let (code, said, problems) = edit(&["--lambda", "100", "--strict"]);
    assert!(code == 0 && !said.contains('!'), "{said}{problems}");
}

#[test]
fn what_is_no_model_is_told_alike_by_every_command() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let fact = ["--subject", "Finland", "--prompt", "{} is in", "--target", "Africa"];
    let hint = "hint: name a model's folder, a GGUF file, or hf:owner/name";
    for args in [["ask", "nowhere", "a"].to_vec(), [&["edit", "nowhere"][..], &fact].concat()] {
        let (code, _, problems) = palinode(&folder, &args);
        assert!(
            code == 4 && problems.contains("there is no file or folder nowhere") && problems.contains(hint),
            "{problems}"
        );
        // There is no pipeline file whose folder a path could start from.
        assert!(!problems.contains("pipeline file"), "{problems}");
    }
    let (code, _, problems) = palinode(&folder, &[&["edit", "empty"][..], &fact].concat());
    assert!(code == 4 && problems.contains("empty has no config.json") && problems.contains(hint), "{problems}");
}

#[test]
fn tables_of_facts_may_have_semicolons_or_tabs() {
    let folder = TempDir::new().unwrap();
    let model = model();
    let told = |between: &str| {
        let rows = ["subject,prompt,target_new", "Finland,\"{} is located in the continent of\",Africa"];
        let text = rows.map(|row| row.replace(',', between)).join("\n");
        std::fs::write(folder.path().join("facts.csv"), text).unwrap();
        let (code, said, problems) = palinode(&folder, &["edit", model.to_str().unwrap(), "--facts", "facts.csv"]);
        assert_eq!(code, 0, "{problems}");
        said
    };
    assert!(told(",").contains("p(Africa)"));
    assert_eq!(told(";"), told(","));
    assert_eq!(told("\t"), told(","));
    // A mistake that every record has is said a few times, and counted.
    let requests = model.parent().unwrap().join("requests.json");
    let args = ["edit", model.to_str().unwrap(), "--facts", requests.to_str().unwrap()];
    let (code, _, problems) = palinode(&folder, &args);
    assert!(code == 4 && problems.matches("unknown field").count() == 3, "{problems}");
    assert!(problems.contains("more records have mistakes"), "{problems}");
}

#[test]
fn an_exported_folder_tells_where_it_comes_from() {
    let folder = TempDir::new().unwrap();
    let model = model();
    let fact = ["--subject", "Finland", "--prompt", "{} is located in the continent of", "--target", "Africa"];
    let args = [&["edit", model.to_str().unwrap(), "--output", "made"][..], &fact].concat();
    assert_eq!(palinode(&folder, &args).0, 0);
    for what in ["made", "made/palinode.json"] {
        let (code, said, problems) = palinode(&folder, &["show", what]);
        assert_eq!(code, 0, "{problems}");
        for part in ["objective.objective", "model.family", "GPT-2", "emmet", "relative_norm"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let (_, said, _) = palinode(&folder, &["show", what, "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["provenance"]["objective"]["objective"], "emmet");
    }
    let (code, _, problems) = palinode(&folder, &["show", "nothing"]);
    assert!(code == 2 && problems.contains("no run, stage or file is named `nothing`"), "{problems}");
}
