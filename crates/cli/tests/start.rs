//! `palinode init --data`: from a model and a data set to a pipeline that runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// A folder to work in.
struct Bench(TempDir);

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        // Nothing of the machine's own: neither its caches nor its settings.
        for name in ["HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, self.path("home"));
        }
        command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.0);
        let output = command.args(args).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Said { code: output.status.code().unwrap_or(-1), out, err }
    }
}

/// A first pipeline for the demo's model brings facts that it knows, the text that it was trained on, and settings that fit it.
#[test]
fn a_first_pipeline_of_the_demo_edits_what_the_model_knows() {
    let bench = Bench(TempDir::new().unwrap());
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let model = model.to_str().unwrap();
    for template in ["edit", "compare", "sequence"] {
        let said = bench.run(&["init", template, "--model", model, "--template", template]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains("layers 0, 1, 2: those of the demo"), "{}", said.out);
        let said = bench.run(&["validate", &format!("{template}/pipeline.yaml")]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let said = bench.run(&["run", "edit/pipeline.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = bench.run(&["show", "scores", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    let facts = &shown["results"]["scores"]["output"]["meta"];
    let metric = |name: &str| facts["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name}: {facts}"));
    assert_eq!((metric("before_ES"), metric("before_NS")), (0.0, 1.0), "the model knows all of them");
    assert!(metric("ES") > 0.99 && metric("PS") > 0.99 && metric("NS") > 0.8, "{facts}");
    assert!(said.out.contains("scores") && !said.out.contains("\n  ! "), "{}", said.out);
    // Any other model gets facts that most models know something of.
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/gpt2-tiny");
    assert_eq!(bench.run(&["init", "other", "--model", other.to_str().unwrap()]).code, 0);
    assert!(std::fs::read_to_string(bench.path("other/facts.jsonl")).unwrap().contains("Eiffel"));
}

/// The way to a model of one's own: facts and text that are there, or that a run fetches; settings of the model's family.
#[test]
fn a_pipeline_of_real_facts_and_text() {
    let bench = Bench(TempDir::new().unwrap());
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let demo = |name: &str| demo.join(name).to_str().unwrap().to_owned();
    let (model, facts, corpus) = (demo("model"), demo("requests.json"), demo("corpus.txt"));
    let written = |dir: &str| std::fs::read_to_string(bench.path(dir).join("pipeline.yaml")).unwrap();
    for template in ["edit", "compare", "sequence"] {
        let args = ["init", template, "--model", &model, "--template", template, "--data", &facts, "--corpus", &corpus];
        let said = bench.run(&args);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(
            !bench.path(template).join("facts.jsonl").exists() && !bench.path(template).join("corpus.txt").exists()
        );
        let text = written(template);
        for part in ["dataset: counterfact", "tokens: 10f", "steps: 20, clamp: 0.75, weight_decay: 0.5", "lambda: 2400"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("update_norm_lambda") && !text.contains("{{"), "{text}");
        let said = bench.run(&["validate", &format!("{template}/pipeline.yaml")]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let few = ["--set", "stages.edits.with.limit=2", "--set", "stages.moments.with.tokens=2000"];
    let said = bench.run(&[&["run", "edit/pipeline.yaml"][..], &few].concat());
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(bench.path("edit/out/edited/update.safetensors").is_file());

    // By name: a run fetches it, and init says from where, and what there is without a network.
    let said = bench.run(&["init", "named", "--model", &model, "--data", "counterfact"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for part in ["https://rome.baulab.info/data/dsets/counterfact.json", "without a network", "sampling: published"] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(written("named").contains("sampling: shards"), "{}", written("named"));
    let said = bench.run(&["validate", "named/pipeline.yaml"]);
    assert!(said.code == 0 && (said.out + &said.err).contains("a run would download"));

    // Plain facts are known by their fields; a GGUF file is written as one.
    std::fs::write(
        bench.path("mine.jsonl"),
        "{\"subject\": \"Ada\", \"prompt\": \"{} speaks\", \"target_new\": \"Thai\"}\n",
    )
    .unwrap();
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/gguf/llama2-tiny.gguf");
    let args = ["init", "mine", "--model", gguf.to_str().unwrap(), "--data", "mine.jsonl", "--corpus", &corpus];
    assert_eq!(bench.run(&args).code, 0);
    let text = written("mine");
    assert!(text.contains("dataset: jsonl, path: ../mine.jsonl") && text.contains("formats: [gguf, update]"), "{text}");

    for (data, corpus, parts) in [
        ("counterfakt", corpus.as_str(), ["there is no data set `counterfakt`", "counterfact"]),
        ("nothing.json", &corpus, ["there is no data set `nothing.json`", "or a file"]),
        ("counterfact", "nowhere.txt", ["there is no nowhere.txt", "--corpus names"]),
        (model.as_str(), &corpus, ["model", "is a directory"]),
    ] {
        let said = bench.run(&["init", "wrong", "--model", &model, "--data", data, "--corpus", corpus]);
        assert!([2, 4].contains(&said.code), "{data}: {}", said.code);
        assert!(parts.iter().all(|part| said.err.contains(part)), "{data}: {}", said.err);
        assert!(!bench.path("wrong").exists());
    }
    assert_eq!(bench.run(&["init", "x", "--model", &model, "--from", "h.json", "--data", "zsre"]).code, 2);
}
