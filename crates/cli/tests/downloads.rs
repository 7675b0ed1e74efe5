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
