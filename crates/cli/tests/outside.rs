//! What the program writes outside its store: never over what is someone else's, and made again only for what it is made from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = r#"
name: outside
stages:
  model: { uses: load_model, with: { path: models/gpt2 } }
  facts:
    uses: requests
    with:
      facts: [{ subject: Finland, prompt: "{} is located in the continent of", target_new: Africa }]
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 2, steps: 4 } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, targets: targets, plan: plan }
    with: { objective: memit, lambda: 0.1, preservation: ridge }
  out: { uses: export, inputs: { model: update }, with: { path: out, formats: [model, update, peft] } }
"#;

struct Bench(TempDir);

/// How a command ended.
struct Said {
    code: i32,
    all: String,
}

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model");
        fs::create_dir_all(bench.path("models/gpt2")).unwrap();
        for file in fs::read_dir(demo).unwrap().map(|file| file.unwrap().path()) {
            fs::copy(&file, bench.path("models/gpt2").join(file.file_name().unwrap())).unwrap();
        }
        fs::write(bench.path("p.yaml"), PIPELINE).unwrap();
        bench
    }

    /// After a run.
    fn ran() -> Self {
        let bench = Self::new();
        bench.well("run p.yaml");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn run(&self, args: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        for name in ["PALINODE_STORE", "PALINODE_LOG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1").env("COLUMNS", "200").current_dir(&self.0).args(args.split(' '));
        let output = command.output().unwrap();
        let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        Said { code: output.status.code().unwrap_or(-1), all }
    }

    fn well(&self, args: &str) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args}: {}", said.all);
        said.all
    }

    /// A command that is refused, with these words, and changes nothing but the store.
    fn refused(&self, args: &str, code: i32, words: &[&str]) {
        let before = self.files();
        let said = self.run(args);
        assert_eq!(said.code, code, "{args}: {}", said.all);
        for word in words {
            assert!(said.all.contains(word), "{args} said no `{word}`: {}", said.all);
        }
        assert_eq!(self.files(), before, "{args}");
    }

    /// Everything but the stores.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut todo = vec![self.0.path().to_owned()];
        while let Some(folder) = todo.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if !path.is_dir() {
                    all.insert(path.clone(), fs::read(path).unwrap());
                } else if !path.ends_with(".palinode") {
                    todo.push(path);
                }
            }
        }
        all
    }

    /// The stages that a plan says will run.
    fn planned(&self) -> Vec<String> {
        let plan: Value = serde_json::from_str(&self.well("plan p.yaml --json")).unwrap();
        let stages = plan["stages"].as_array().unwrap().iter();
        let left = stages.filter(|stage| stage["status"] != "cached");
        left.map(|stage| stage["instance"].as_str().unwrap().to_owned()).collect()
    }
}

/// A folder that something else is in, or an export that the user has worked on, is left alone unless the user says otherwise.
#[test]
fn an_export_goes_where_nothing_else_is() {
    let bench = Bench::new();
    // Said before anything runs.
    fs::create_dir(bench.path("out")).unwrap();
    bench.write("out/thesis.txt", "mine");
    bench.write("out/config.json", "mine");
    bench.refused("run p.yaml", 4, &["`path` of `out`", "was not written by this stage", "`overwrite: true`"]);
    assert!(!bench.path(".palinode/runs").read_dir().is_ok_and(|mut runs| runs.next().is_some()), "it ran");
    let insist = PIPELINE.replace("path: out,", "path: out, overwrite: true,");
    bench.write("p.yaml", &insist);
    bench.well("run p.yaml");
    assert_eq!(fs::read_to_string(bench.path("out/thesis.txt")).unwrap(), "mine");
    assert_ne!(fs::read_to_string(bench.path("out/config.json")).unwrap(), "mine");
    // Now it is the stage's own, which the parameter has no part in.
    bench.write("p.yaml", PIPELINE);
    assert_eq!(bench.planned(), [""; 0]);
    let stronger = |text: &str| text.replace("lambda: 0.1", "lambda: 0.3");
    bench.write("p.yaml", &stronger(PIPELINE));
    assert!(bench.well("run p.yaml").contains("ran 2, cached 4"));
    // What was deleted is written again. What was changed is the user's.
    fs::remove_file(bench.path("out/update.safetensors")).unwrap();
    assert_eq!(bench.planned(), ["out"]);
    bench.well("run p.yaml");
    bench.write("out/config.json", "{}");
    assert_eq!(bench.planned(), ["out"]);
    bench.refused("run p.yaml", 4, &["config.json was changed since", "move away"]);
    bench.write("p.yaml", &stronger(&insist));
    bench.well("run p.yaml");
    assert_eq!(fs::read_to_string(bench.path("out/thesis.txt")).unwrap(), "mine");
    // Another stage's, and another store's.
    bench.write("p.yaml", &PIPELINE.replace("  out:", "  other:").replace("lambda: 0.1", "lambda: 0.2"));
    bench.refused("run p.yaml", 4, &["was written by `out` of `outside` with the store ../.palinode"]);
    bench.write("p.yaml", &PIPELINE.replace("lambda: 0.1", "lambda: 0.2"));
    bench.refused("run p.yaml --store new/.palinode", 4, &["was written by `out` of `outside`"]);
}

/// What version 0.1.0 wrote has a marker that lists its weights, and counts.
#[test]
fn an_export_of_an_earlier_version_is_ours() {
    let bench = Bench::ran();
    let mut note = bench.json("out/palinode.json");
    let map = note.as_object_mut().unwrap();
    assert!(map.remove("made_by").is_some() && map.remove("files").is_some());
    bench.write("out/palinode.json", &note.to_string());
    // Without a store that knows better.
    fs::remove_dir_all(bench.path(".palinode")).unwrap();
    bench.well("run p.yaml");
    assert!(bench.json("out/palinode.json")["made_by"]["stage"] == "out");
    bench.write("out/palinode.json", &note.to_string());
    let weights = bench.path("out/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(weights, bytes).unwrap();
    fs::remove_dir_all(bench.path(".palinode")).unwrap();
    bench.refused("run p.yaml", 4, &["model.safetensors was changed since"]);
}

/// Files of the model's folder from which nothing is computed are in the key of the export that copies them, and in no other.
#[test]
fn files_that_decide_nothing_make_nothing_run_but_the_export() {
    let bench = Bench::ran();
    for (act, there) in [(Some("{\"top_k\": 5}"), true), (Some("{\"top_k\": 6}"), true), (None, false)] {
        let file = "models/gpt2/generation_config.json";
        match act {
            Some(text) => bench.write(file, text),
            None => fs::remove_file(bench.path(file)).unwrap(),
        }
        assert_eq!(bench.planned(), ["out"], "{act:?}");
        // Without the file it is the export of before, which has been written over since.
        let why =
            if there { "file.other/generation_config.json" } else { "published file out/palinode.json was changed" };
        assert!(bench.well("why p.yaml out").contains(why), "{act:?}");
        assert!(bench.well("run p.yaml").contains("ran 1, cached 5"), "{act:?}");
        let copy = bench.path("out/generation_config.json");
        assert_eq!(copy.exists(), there, "{act:?}");
        if let Some(text) = act {
            assert_eq!(fs::read_to_string(copy).unwrap(), text);
        }
    }
    // An export that copies no file of the folder has none in its key.
    bench.write("p.yaml", &PIPELINE.replace("[model, update, peft]", "[update]"));
    bench.well("run p.yaml");
    bench.write("models/gpt2/generation_config.json", "{}");
    assert_eq!(bench.planned(), [""; 0]);
    // What tokens mean is computed from.
    bench.write("models/gpt2/tokenizer_config.json", "{\"add_bos_token\": false}");
    assert_eq!(bench.planned(), ["model", "targets", "update", "out"]);
}

/// An adapter names the model by where it is; that is in its key, so that it is right again once the model has moved.
#[test]
fn an_adapter_names_the_model_that_it_is_for() {
    let bench = Bench::ran();
    let name = || bench.json("out/adapter/adapter_config.json")["base_model_name_or_path"].as_str().unwrap().to_owned();
    assert_eq!(Path::new(&name()), bench.path("models/gpt2").canonicalize().unwrap());
    fs::rename(bench.path("models"), bench.path("moved")).unwrap();
    bench.write("p.yaml", &PIPELINE.replace("models/gpt2", "moved/gpt2"));
    assert_eq!(bench.planned(), ["out"]);
    assert!(bench.well("why p.yaml out").contains("with.base_model"));
    bench.well("run p.yaml");
    assert_eq!(Path::new(&name()), bench.path("moved/gpt2").canonicalize().unwrap());
    // One that is named is named so, wherever the model is.
    let named = PIPELINE.replace("path: out,", "path: out, base_model: owner/gpt2@v1,");
    bench.write("p.yaml", &named.replace("models/gpt2", "moved/gpt2"));
    bench.well("run p.yaml");
    let config = bench.json("out/adapter/adapter_config.json");
    assert_eq!(
        (config["base_model_name_or_path"].as_str(), config["revision"].as_str()),
        (Some("owner/gpt2"), Some("v1"))
    );
    fs::rename(bench.path("moved"), bench.path("models")).unwrap();
    bench.write("p.yaml", &named);
    assert_eq!(bench.planned(), [""; 0]);
}

/// Models and results that are asked for one by one go to folders and files of their own, too.
#[test]
fn commands_write_where_nothing_else_is() {
    let bench = Bench::ran();
    // Updates put onto models.
    let (update, model) = ("out/update.safetensors", "models/gpt2");
    bench.well(&format!("apply {update} {model} -o edited"));
    bench.well(&format!("apply {update} {model} -o edited"));
    for out in ["models/gpt2", "models"] {
        bench.refused(&format!("apply {update} {model} -o {out} --overwrite"), 4, &["is the folder that is read"]);
    }
    bench.write("edited/config.json", "{}");
    bench.refused(&format!("apply {update} {model} -o edited"), 4, &["config.json was changed since", "--overwrite"]);
    bench.well(&format!("apply {update} {model} -o edited --overwrite"));
    bench.well(&format!("revert {update} edited -o again"));
    bench.refused(&format!("revert {update} edited -o again"), 4, &["was not written by"]);
    // Files of results.
    bench.well("show targets --save saved");
    bench.well("show targets --save saved");
    bench.refused("show targets --save models/gpt2", 4, &["models/gpt2 is there already"]);
    bench.refused("show update --save saved", 4, &["was written by `palinode show targets`"]);
    bench.well("show update --save saved --overwrite");
    // Reports, figures, schemas.
    for command in
        ["report", "graph p.yaml --format svg -o graph.svg", "schema -o schema.json", "graph p.yaml -o graph.txt"]
    {
        bench.well(command);
        bench.well(command);
    }
    for (file, command) in [
        ("report.html", "report"),
        ("graph.svg", "graph p.yaml --format svg -o graph.svg"),
        ("schema.json", "schema -o schema.json"),
        ("graph.txt", "graph p.yaml -o graph.txt"),
    ] {
        let text = fs::read_to_string(bench.path(file)).unwrap();
        bench.write(file, &format!("mine\n{text}"));
        bench.refused(command, 2, &["is there already", "--overwrite"]);
        bench.well(&format!("{command} --overwrite"));
        assert!(!fs::read_to_string(bench.path(file)).unwrap().contains("mine"), "{file}");
    }
    bench.refused("report --assets models/gpt2", 4, &["models/gpt2 is there already"]);
    bench.well("report --assets paper");
    bench.well("report --assets paper");
    // A pipeline to start from.
    fs::create_dir(bench.path("study")).unwrap();
    bench.write("study/corpus.txt", "mine");
    bench.refused("init study --model models/gpt2", 2, &["corpus.txt", "would be overwritten"]);
    bench.well("init study --model models/gpt2 --overwrite");
}

/// A pipeline that is saved in another folder names the export as a run of it finds it.
#[test]
fn a_saved_pipeline_finds_what_was_exported() {
    let bench = Bench::new();
    fs::create_dir(bench.path("kept")).unwrap();
    let edit = |save: &str| {
        let fact = ["--subject", "Finland", "--prompt", "{} is located in the continent of", "--target", "Africa"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&bench.0);
        command.args(["edit", "models/gpt2", "--samples", "64", "-o", "o", "--save", save]).args(fact);
        let output = command.output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
    };
    let (code, problems) = edit("nodir/x.yaml");
    assert!(code == 2 && problems.contains("there is no folder nodir"), "{code} {problems}");
    let (code, problems) = edit("kept/x.yaml");
    assert_eq!(code, 0, "{problems}");
    let text = fs::read_to_string(bench.path("kept/x.yaml")).unwrap();
    assert!(text.contains("../o") && text.contains("../models/gpt2"), "{text}");
    let said = bench.well("run kept/x.yaml");
    assert!(said.contains("nothing to do"), "{said}");
    assert!(bench.path("o/model.safetensors").is_file() && !bench.path("kept/o").exists());
    // The folder as a whole is somewhere else: nothing of it is lost.
    let (code, problems) = edit("kept/x.yaml");
    assert!(code == 4 && problems.contains("choose another name"), "{code} {problems}");
}
