//! Every mistake a person can make with models, data and numbers: told clearly, in place, and with the store unharmed.

mod common;

use std::fs;

use common::{Bench, PIPELINE, REQUESTS};
use palinode_engine::{Outcome, Store};

/// One line of the pipeline, or a file beside it, made wrong.
struct Case<'a> {
    what: &'a str,
    yaml: String,
    spoil: Box<dyn Fn(&Bench) + 'a>,
}

fn with<'a>(what: &'a str, from: &str, to: &str) -> Case<'a> {
    let yaml = good();
    assert!(yaml.contains(from), "{from}");
    Case { what, yaml: yaml.replace(from, to), spoil: Box::new(|_| {}) }
}

fn spoiled<'a>(what: &'a str, spoil: impl Fn(&Bench) + 'a) -> Case<'a> {
    Case { what, yaml: good(), spoil: Box::new(spoil) }
}

fn good() -> String {
    PIPELINE
        .replace("MODEL", "gpt2")
        .replace("[rome, memit, emmet]", "[emmet]")
        .replace("[single, memit]", "[memit]")
        .replace("${matrix.objective}-${matrix.strategy}", "edited")
}

fn cut(bench: &Bench, name: &str, keep: usize) {
    let path = bench.path(name);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..keep.min(bytes.len())]).unwrap();
}

fn change(bench: &Bench, name: &str, from: &str, to: &str) {
    let path = bench.path(name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// What a person would be told.
fn told(bench: &Bench, yaml: &str) -> String {
    let text = if let Err(mistakes) = bench.load(yaml) {
        format!("kind {:?}\n{mistakes}", mistakes.kind())
    } else {
        let report = bench.run(yaml);
        let Some((stage, kind)) = report.failure() else { return "no mistake was found\n".into() };
        let Outcome::Failed { message, hint, .. } = &stage.outcome else { unreachable!() };
        let hint = hint.as_ref().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
        format!("kind {:?}\n{} failed: {message}\n{hint}", kind, stage.instance)
    };
    text.replace(&bench.dir.path().display().to_string(), "DIR")
}

fn check(name: &str, cases: Vec<Case<'_>>) {
    let bench = Bench::new();
    bench.ran(&good());
    let mut text = String::new();
    for case in cases {
        let bench = Bench::new();
        (case.spoil)(&bench);
        text += &format!("── {}\n{}\n", case.what, told(&bench, &case.yaml));
        assert!(!text.contains("no mistake was found"), "{}", case.what);
        // What was done before the mistake is kept whole, and the good pipeline runs in the same store.
        if bench.path(".palinode").is_dir() {
            let verified = Store::open(&bench.path(".palinode")).unwrap().verify();
            assert!(verified.damage.is_empty(), "{}", case.what);
        }
        let fresh = Bench::new();
        for name in
            ["gpt2/model.safetensors", "gpt2/config.json", "gpt2/tokenizer.json", "requests.jsonl", "corpus.txt"]
        {
            fs::copy(fresh.path(name), bench.path(name)).unwrap();
        }
        bench.ran(&good());
    }
    let text = without_rounding(&text);
    insta::assert_snapshot!(name, text);
}

/// A pivot that ends a factorisation is as small as rounding, and another number on another machine.
fn without_rounding(text: &str) -> String {
    let Some((before, rest)) = text.split_once("pivot 67 of 128 is ") else { return text.to_owned() };
    let (pivot, after) = rest.split_once(' ').unwrap();
    assert!(pivot.parse::<f64>().unwrap().abs() < 1e-14, "{pivot}");
    format!("{before}pivot 67 of 128 is ROUNDING {after}")
}

#[test]
fn pipelines() {
    check(
        "pipelines",
        vec![
            with("unknown stage kind", "uses: covariance", "uses: covarince"),
            with("unknown parameter", "steps: 6", "step: 6"),
            with("wrong type", "lambda: 10", "lambda: ten"),
            with("wrong port type", "moments: moments, targets: targets", "moments: targets, targets: moments"),
            with(
                "cycle",
                "model: { uses: load_model, with: { path: gpt2 } }",
                "model: { uses: solve, inputs: { model: update } }",
            ),
            with("missing input", "inputs: { model: update, requests: edits }", "inputs: { model: update }"),
            with("unknown objective", "objective: [emmet]", "objective: [emmett]"),
            with("layer out of range", "layers: [0, 1]", "layers: [1, 12]"),
            with(
                "layers that do not rise",
                "strategy: '${matrix.strategy}', layers: [0, 1]",
                "strategy: single, layers: [2, 1]",
            ),
            with("weights for fewer layers", "strategy: '${matrix.strategy}'", "strategy: weights, weights: [1]"),
            with(
                "weights without their strategy",
                "strategy: '${matrix.strategy}'",
                "strategy: memit, weights: [1, 2]",
            ),
            with("a boundary with targets at the last layer", "strategy: '${matrix.strategy}'", "strategy: boundary"),
            with("target layer off", "layer: 1, steps", "layer: 2, steps"),
            with(
                "layer without second moment",
                "corpus: corpus.txt, layers: [0, 1]",
                "corpus: corpus.txt, layers: [2]",
            ),
            with(
                "rome in batches",
                "objective: '${matrix.objective}', lambda",
                "objective: rome, batch_size: 4, lambda",
            ),
            with("no second moments", "moments: moments, targets", "targets"),
            with("several batches to export", "lambda: 10", "batch_size: 2, lambda: 10"),
            with("no batch of this number", "batch: 0", "batch: 3"),
            with("no number", "lambda: 10", "lambda: -1, update_norm_lambda: .nan"),
            with("numbers out of range", "lambda: 10", "lambda: -1, update_norm_lambda: -0.5, batch_size: 0"),
            with(
                "a number of more than 64 bits",
                "lambda: 10",
                "lambda: 10, batch_size: 340282366920938463463374607431",
            ),
            with("a template without place", "generate: [{ count: 3, length: 6 }]", "groups: [['{}'], ['The end.']]"),
        ]
        .into_iter()
        .map(|mut case| {
            // An export of one of several batches is no mistake.
            if case.what.starts_with("several") {
                case.yaml = case.yaml.replace(", batch: 0", "");
            }
            case
        })
        .collect(),
    );
}

#[test]
fn files() {
    let requests = |text: &'static str| move |bench: &Bench| fs::write(bench.path("requests.jsonl"), text).unwrap();
    check(
        "files",
        vec![
            with("no model folder", "path: gpt2", "path: gpt3"),
            spoiled("no tokenizer", |b| fs::remove_file(b.path("gpt2/tokenizer.json")).unwrap()),
            spoiled("no weights", |b| fs::remove_file(b.path("gpt2/model.safetensors")).unwrap()),
            spoiled("no corpus", |b| fs::remove_file(b.path("corpus.txt")).unwrap()),
            spoiled("truncated weights", |b| cut(b, "gpt2/model.safetensors", 90_000)),
            spoiled("weights that are not safetensors", |b| {
                fs::write(b.path("gpt2/model.safetensors"), "hello").unwrap();
            }),
            spoiled("damaged tokenizer", |b| cut(b, "gpt2/tokenizer.json", 900)),
            spoiled("damaged configuration", |b| cut(b, "gpt2/config.json", 40)),
            spoiled("unknown family", |b| change(b, "gpt2/config.json", "gpt2", "mamba")),
            spoiled("sizes that are not those of the weights", |b| {
                change(b, "gpt2/config.json", "\"n_embd\": 32", "\"n_embd\": 64");
            }),
            spoiled("more layers than the weights have", |b| {
                change(b, "gpt2/config.json", "\"n_layer\": 3", "\"n_layer\": 4");
            }),
            spoiled(
                "subject not in prompt",
                requests(r#"{"subject": "Rome", "prompt": "It lies in", "target_new": "Spain"}"#),
            ),
            spoiled("no target", requests(r#"{"subject": "Rome", "prompt": "{} lies in"}"#)),
            spoiled("not JSON", requests("subject: Rome\n")),
            spoiled("an empty file", requests("")),
            spoiled("not UTF-8", |b| fs::write(b.path("requests.jsonl"), b"{\"subject\": \"\xff\"}").unwrap()),
            spoiled("CounterFact that is JSONL", |b| fs::write(b.path("requests.jsonl"), REQUESTS).unwrap()),
            spoiled("a corpus without text", |b| fs::write(b.path("corpus.txt"), "\n\n").unwrap()),
        ]
        .into_iter()
        .map(|mut case| {
            if case.what.starts_with("CounterFact") {
                case.yaml = case.yaml.replace("dataset: jsonl", "dataset: counterfact");
            }
            case
        })
        .collect(),
    );
}

#[test]
fn numbers() {
    let long =
        format!(r#"{{"subject": "Rome", "prompt": "{} {{}} lies in", "target_new": "Spain"}}"#, "word ".repeat(200));
    let twice = REQUESTS.lines().next().unwrap();
    let twice = format!("{twice}\n{}\n", twice.replace("\"Rome\"", "\"Oslo\"").replace("\"tower\"", "\"again\""));
    check(
        "numbers",
        vec![
            with("too few tokens", "corpus: corpus.txt,", "corpus: corpus.txt, samples: 2,"),
            spoiled("a prompt longer than the context", |b| fs::write(b.path("requests.jsonl"), &long).unwrap()),
            Case {
                what: "one key, two targets, no slack",
                yaml: good().replace("emmet_lambda: 0.1", "emmet_lambda: 0"),
                spoil: Box::new(|b| fs::write(b.path("requests.jsonl"), &twice).unwrap()),
            },
        ],
    );
}
