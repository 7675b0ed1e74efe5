//! `hf:` through the built program: a server on this machine has the Hub's routes and a tiny model.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MODEL: &str = "hf:owner/tiny";
const FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/gpt2-tiny")
}

/// A server, and the routes that it was asked for.
struct Server {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &seen);
            }
        });
        Self { endpoint, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let route = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    asked.lock().unwrap().push(route.clone());
    let name = route.strip_prefix(&format!("/owner/tiny/resolve/{COMMIT}/"));
    let body = match name.and_then(|name| FILES.iter().find(|known| **known == name)) {
        Some(name) => Some(std::fs::read(fixture().join(name))?),
        None if route.starts_with("/api/models/owner/tiny/revision/main?") => Some(listing().into_bytes()),
        None if route.starts_with("/api/datasets/owner/texts/revision/main?") => Some(shards().into_bytes()),
        None if route.starts_with(&format!("/datasets/owner/texts/resolve/{COMMIT}/")) => {
            Some(shard(route.rsplit('/').next().unwrap_or_default()).into_bytes())
        }
        None if route == "/data/counterfact.json" => Some(COUNTERFACT.as_bytes().to_vec()),
        None => None,
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn listing() -> String {
    let sibling = |(at, name): (usize, &&str)| {
        let size = std::fs::metadata(fixture().join(name)).unwrap().len();
        format!(r#"{{"rfilename":"{name}","size":{size},"blobId":"{at:040x}"}}"#)
    };
    let siblings: Vec<String> = FILES.iter().enumerate().map(sibling).collect();
    format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(","))
}

/// A data set of one record, as its authors give it: at an address.
const COUNTERFACT: &str = r#"[{"case_id": 0, "requested_rewrite": {"prompt": "{} speaks", "subject": "Ada",
    "target_new": {"str": "b"}, "target_true": {"str": "c"}}}]"#;
/// Files of a data set of the Hub.
const SHARDS: [&str; 6] = ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.jsonl", "f.jsonl"];

/// What one of them holds.
fn shard(name: &str) -> String {
    (0..30).map(|line| format!("{{\"text\": \"{name} says {line}\"}}\n")).collect()
}

fn shards() -> String {
    let sibling = |(at, name): (usize, &&str)| {
        format!(r#"{{"rfilename":"{name}","size":{},"blobId":"{at:039x}a"}}"#, shard(name).len())
    };
    let siblings: Vec<String> = SHARDS.iter().enumerate().map(sibling).collect();
    format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(","))
}

/// A folder to work in, with a cache of its own.
struct Bench {
    folder: TempDir,
    endpoint: String,
}

impl Bench {
    fn new(endpoint: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let yaml = format!(
            "name: p\nstages:\n  model: {{ uses: load_model, with: {{ path: {MODEL} }} }}\n  \
             say: {{ uses: ask, inputs: {{ model: model }}, with: {{ prompts: [a], tokens: 2 }} }}\n"
        );
        std::fs::write(folder.path().join("p.yaml"), yaml).unwrap();
        Self { folder, endpoint: endpoint.to_owned() }
    }

    fn say(&self, args: &[&str], offline: bool) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        for name in ["PALINODE_STORE", "PALINODE_LOG", "CLICOLOR_FORCE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", self.folder.path().join("hf"));
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" }).env("NO_COLOR", "1");
        let output = command.current_dir(&self.folder).stdin(Stdio::null()).args(args).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap_or(-1), text)
    }

    fn check(&self, args: &[&str], code: i32, words: &[&str]) {
        let (found, text) = self.say(args, false);
        assert_eq!(found, code, "{args:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{args:?}: no `{word}` in\n{text}");
        }
    }
}

#[test]
fn a_run_fetches_after_all_is_checked_and_before_keys() {
    let server = Server::new();
    let bench = Bench::new(&server.endpoint);

    // What only looks says what a run would fetch, and fetches nothing.
    bench.check(
        &["validate", "p.yaml"],
        0,
        &["a run would download", "p.yaml:3:", "hf:owner/tiny@main is not in the cache"],
    );
    bench.check(&["plan", "p.yaml"], 0, &["would first download", "hf:owner/tiny"]);
    bench.check(&["plan", "p.yaml", "--json"], 0, &[r#""downloads": ["#]);
    // So does a run that may not.
    bench.check(&["run", "p.yaml", "--offline"], 4, &["p.yaml:3:", "is not in the cache", "without --offline"]);
    let (code, text) = bench.say(&["run", "p.yaml"], true);
    assert!(code == 4 && text.contains("unset HF_HUB_OFFLINE") && text.contains("p.yaml:3:"), "{code} {text}");
    // Nothing is fetched for a pipeline with another mistake.
    bench.check(&["run", "p.yaml", "--set", "stages.say.with.tokens=x"], 3, &["tokens"]);
    assert_eq!(server.asked(), [""; 0]);

    bench.check(&["run", "p.yaml"], 0, &["downloading hf:owner/tiny", "ran 2"]);
    // The record says which commit the branch was.
    let run = std::fs::read_dir(bench.folder.path().join(".palinode/runs")).unwrap().next().unwrap().unwrap().path();
    let resolved = std::fs::read_to_string(run.join("resolved.yaml")).unwrap();
    assert!(resolved.contains(&format!("hf:owner/tiny@{COMMIT}")), "{resolved}");
    assert_eq!(server.asked().len(), 1 + FILES.len());
    // From then on the network is not needed.
    bench.check(&["run", "p.yaml", "--offline"], 0, &["nothing to do"]);
    bench.check(&["plan", "p.yaml"], 0, &["cached"]);
    // What the model's configuration forbids is found once that is here.
    bench.check(&["ask", MODEL, "a", "--tokens", "2", "--offline"], 0, &["says"]);
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn quick_commands_and_inspections_fetch_too() {
    let server = Server::new();
    let bench = Bench::new(&server.endpoint);
    bench.check(&["model", "inspect", MODEL, "--offline"], 4, &["is not in the cache", "without --offline"]);
    bench.check(&["model", "inspect", MODEL], 0, &["GPT-2"]);
    let bench = Bench::new(&server.endpoint);
    server.asked();
    bench.check(&["ask", MODEL, "a", "--tokens", "2", "--json"], 0, &["before"]);
    assert_eq!(server.asked().len(), 1 + FILES.len());
    bench.check(&["init", "new", "--model", MODEL, "--offline"], 0, &["wrote"]);
    bench.check(&["validate", "new/pipeline.yaml"], 0, &["no mistakes"]);
}

#[test]
fn a_download_that_fails_is_told_where_it_is_named() {
    let bench = Bench::new("http://127.0.0.1:1");
    bench.check(&["run", "p.yaml"], 4, &["p.yaml:3:", "cannot reach http://127.0.0.1:1", "HF_ENDPOINT"]);
    bench.check(&["ask", MODEL, "a"], 4, &["MODEL: cannot reach"]);
    let server = Server::new();
    let bench = Bench::new(&server.endpoint);
    bench.check(
        &["run", "p.yaml", "--set", "stages.model.with.path=hf:owner/none"],
        4,
        &["--set:1:", "has no hf:owner/none"],
    );
}

/// The pipeline `moments.yaml`: second moments of the data set's files, with these parameters beside.
fn moments(bench: &Bench, with: &str) {
    let model = fixture();
    let yaml = format!(
        "name: m\nstages:\n  model: {{ uses: load_model, with: {{ path: {} }} }}\n  moments:\n    uses: covariance\n    \
         inputs: {{ model: model }}\n    with: {{ corpus: \"hf:datasets/owner/texts/*.jsonl\", layers: [0], samples: 40, seed: 3{with} }}\n",
        model.display()
    );
    std::fs::write(bench.folder.path().join("moments.yaml"), yaml).unwrap();
}

#[test]
fn a_few_shards_of_a_corpus_are_fetched_and_in_the_key() {
    let server = Server::new();
    let bench = Bench::new(&server.endpoint);
    let fetched = || server.asked().iter().filter(|route| route.contains("/resolve/")).count();

    moments(&bench, ", sampling: shards");
    bench.check(
        &["validate", "moments.yaml"],
        0,
        &["a run would download", "hf:datasets/owner/texts@main is not in the cache"],
    );
    assert_eq!(fetched(), 0);
    bench.check(&["run", "moments.yaml"], 0, &["downloading hf:datasets/owner/texts/*.jsonl#shards=2,seed=3", "ran 2"]);
    assert_eq!(fetched(), 2, "two of six by default");
    bench.check(&["run", "moments.yaml", "--offline"], 0, &["nothing to do"]);
    // A larger number has the smaller one's files.
    moments(&bench, ", sampling: shards, shards: 4");
    bench.check(&["run", "moments.yaml"], 0, &["ran 1", "shards"]);
    assert_eq!(fetched(), 2);
    // All of them, and how much that is before it begins.
    moments(&bench, ", sampling: published");
    bench.check(&["run", "moments.yaml"], 0, &["downloading hf:datasets/owner/texts/*.jsonl (", "KiB", "ran 1"]);
    assert_eq!(fetched(), 2);
    // Which is what a file means that does not say, as all did before.
    moments(&bench, "");
    bench.check(&["run", "moments.yaml", "--offline"], 0, &["nothing to do"]);
    moments(&bench, ", shards: 2");
    bench.check(&["validate", "moments.yaml"], 3, &["says nothing without `sampling: shards`"]);
    moments(&bench, ", sampling: shards, shards: 0");
    bench.check(&["validate", "moments.yaml"], 3, &["shards"]);
    moments(&bench, ", sampling: some");
    bench.check(&["validate", "moments.yaml"], 3, &["published", "shards"]);
}

#[test]
fn shards_of_a_folder_are_chosen_by_the_seed() {
    let bench = Bench::new("http://127.0.0.1:1");
    std::fs::create_dir(bench.folder.path().join("texts")).unwrap();
    for name in SHARDS {
        std::fs::write(bench.folder.path().join("texts").join(name), shard(name)).unwrap();
    }
    let key = |seed: &str| {
        let set = format!("stages.moments.with.seed={seed}");
        moments(&bench, ", sampling: shards");
        let args = ["run", "moments.yaml", "--set", "stages.moments.with.corpus=texts", "--set", &set];
        bench.check(&args, 0, &["ran "]);
        let (_, said) = bench.say(&["show", "moments", "--json"], false);
        let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
        shown["results"]["moments"]["output"]["meta"]["documents"].as_u64()
    };
    assert_eq!(key("1"), Some(40));
    assert_eq!(key("2"), Some(40));
}

#[test]
fn facts_come_from_an_address() {
    let server = Server::new();
    let bench = Bench::new(&server.endpoint);
    let address = format!("{}/data/counterfact.json", server.endpoint);
    let write = |path: &str| {
        let yaml = format!("name: f\nstages:\n  facts: {{ uses: load_requests, with: {{ path: \"{path}\" }} }}\n");
        std::fs::write(bench.folder.path().join("f.yaml"), yaml).unwrap();
    };
    write(&address);
    bench.check(&["validate", "f.yaml"], 0, &["a run would download", "counterfact.json is not in the cache"]);
    bench.check(&["run", "f.yaml", "--offline"], 4, &["f.yaml:3:", "without --offline"]);
    assert_eq!(server.asked(), [""; 0]);
    bench.check(&["run", "f.yaml"], 0, &["downloading http://127.0.0.1", "ran 1"]);
    bench.check(&["run", "f.yaml", "--offline"], 0, &["nothing to do"]);
    assert_eq!(server.asked(), ["/data/counterfact.json"]);
    // The key has what it holds, and not where it lies.
    std::fs::write(bench.folder.path().join("mine.json"), COUNTERFACT).unwrap();
    write("mine.json");
    bench.check(&["run", "f.yaml"], 0, &["nothing to do"]);
    write(&format!("{}/none.json", server.endpoint));
    bench.check(&["run", "f.yaml"], 4, &["f.yaml:3:", "the server answered 404", "give its path"]);
    write("http://example.org/facts.json");
    bench.check(&["run", "f.yaml", "--offline"], 4, &["f.yaml:3:"]);
    // What is fetched is looked at as any file.
    write(&address);
    bench.check(&["run", "f.yaml", "--set", "stages.facts.with.dataset=zsre"], 4, &["record 0", "subject"]);
}
