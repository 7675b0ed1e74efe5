//! Downloads from a server on this machine that has the Hub's routes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use palinode_hub::{Hub, HubError, Reference, Snapshot};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has, and what it was asked.
#[derive(Default)]
struct State {
    /// Files by path; those of 1000 bytes and more are large files, given by another route.
    files: BTreeMap<String, Vec<u8>>,
    /// The token that opens the repository.
    token: Option<String>,
    /// Break the connection after so many bytes of a body, so many times.
    breaks: Vec<usize>,
    /// Announce contents other than those that are given.
    lies: bool,
    /// Requests: method and route, and the headers that matter.
    asked: Vec<String>,
}

struct Server {
    port: u16,
    other: u16,
    state: Arc<Mutex<State>>,
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        // Large files lie on another host, as the Hub's do: another name of this machine.
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.2:0").unwrap()];
        let [port, other] = [&listeners[0], &listeners[1]].map(|listener| listener.local_addr().unwrap().port());
        for (name, listener) in ["hub", "cdn"].into_iter().zip(listeners) {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let _ = answer(stream, name, other, &state);
                }
            });
        }
        Self { port, other, state }
    }

    fn hub(&self, cache: &Path) -> Hub {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        Hub { cache: cache.to_owned(), endpoint, token: None, offline: false }
    }

    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut self.state.lock().unwrap().asked);
        asked.into_iter().map(|line| line.replace(&self.other.to_string(), "PORT")).collect()
    }
}

fn answer(mut stream: TcpStream, host: &str, other: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let route = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut state = state.lock().unwrap();
    let shown: Vec<String> =
        ["authorization", "range"].iter().filter_map(|name| Some(format!(" {name}={}", headers.get(*name)?))).collect();
    state.asked.push(format!("{host} {route}{}", shown.concat()));
    let mut plain = |status: &str, extra: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{extra}\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    };
    let open = state.token.as_ref().is_none_or(|t| headers.get("authorization") == Some(&format!("Bearer {t}")));
    if host == "hub" && !open {
        return plain("401 Unauthorized", "", b"{}");
    }
    if route.starts_with("/api/") {
        let known =
            ["/api/models/owner/tiny/revision/main?", "/api/datasets/owner/texts/revision/refs%2Fconvert%2Fparquet?"];
        let commit = format!("/api/models/owner/tiny/revision/{COMMIT}?");
        if !known.iter().any(|known| route.starts_with(known)) && !route.starts_with(&commit) {
            return plain("404 Not Found", "", b"{}");
        }
        let siblings: Vec<String> = state.files.iter().map(|(name, bytes)| sibling(name, bytes, state.lies)).collect();
        return plain("200 OK", "", format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(",")).as_bytes());
    }
    let name = route.split(&format!("/{COMMIT}/")).nth(1).unwrap_or_default().replace("%20", " ");
    let Some(bytes) = state.files.get(&name).cloned() else { return plain("404 Not Found", "", b"") };
    if host == "hub" && bytes.len() >= 1000 {
        let to = format!("location: http://127.0.0.2:{other}/cdn/{COMMIT}/{}\r\n", name.replace(' ', "%20"));
        return plain("302 Found", &to, b"");
    }
    let from: usize = headers.get("range").map_or(0, |r| r["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    if bytes.len() >= 1000 && !state.breaks.is_empty() {
        let keep = state.breaks.remove(0);
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", bytes.len() - from);
        stream.write_all(head.as_bytes())?;
        return stream.write_all(&bytes[from..from + keep]);
    }
    plain(status, "", &bytes[from..])
}

fn sibling(name: &str, bytes: &[u8], lies: bool) -> String {
    let sha = hex(if lies { b"other" } else { bytes });
    let large = if bytes.len() >= 1000 {
        format!(r#","lfs":{{"sha256":"{sha}","size":{}}}"#, bytes.len())
    } else {
        String::new()
    };
    format!(r#"{{"rfilename":"{name}","size":{},"blobId":"{}"{large}}}"#, bytes.len(), &hex(bytes)[..40])
}

fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"a\": 1}".to_vec()),
        ("model.safetensors", (0..50_000u32).map(|i| (i % 251) as u8).collect()),
        ("pytorch_model.bin", vec![0; 2000]),
        ("onnx/model.onnx", vec![0; 2000]),
        ("README.md", b"# read me".to_vec()),
    ]
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap().unwrap()
}

fn fetch(hub: &Hub, text: &str) -> Result<Snapshot, HubError> {
    hub.fetch(&reference(text), &mut |_| true)
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let name = |path: &PathBuf| path.strip_prefix(&snapshot.folder).unwrap().display().to_string();
    snapshot.files.iter().map(name).collect()
}

#[test]
fn a_model_is_fetched_once_and_then_found() {
    let server = Server::new(&model());
    let cache = TempDir::new().unwrap();
    let hub = server.hub(cache.path());
    assert_eq!(hub.cached(&reference("hf:owner/tiny")), None);
    assert!(server.asked().is_empty(), "looking into the cache uses no network");
    let mut last = (0, 0);
    let snapshot = hub
        .fetch(&reference("hf:owner/tiny"), &mut |progress| {
            assert!(progress.done >= last.0);
            last = (progress.done, progress.total);
            true
        })
        .unwrap();
    assert_eq!(last, (50_010, 50_010));
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(names(&snapshot), ["config.json", "model.safetensors", "tokenizer.json"]);
    for (name, bytes) in &model()[..3] {
        assert!(std::fs::read(snapshot.folder.join(name)).unwrap() == *bytes, "{name}");
    }
    assert_eq!(
        server.asked(),
        [
            "hub /api/models/owner/tiny/revision/main?blobs=true".to_owned(),
            format!("hub /owner/tiny/resolve/{COMMIT}/config.json"),
            format!("hub /owner/tiny/resolve/{COMMIT}/model.safetensors"),
            format!("cdn /cdn/{COMMIT}/model.safetensors"),
            format!("hub /owner/tiny/resolve/{COMMIT}/tokenizer.json"),
        ]
    );
    // Other programs find it where they would have put it.
    let folder = cache.path().join("models--owner--tiny");
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert!(folder.join("blobs").join(hex(&model()[2].1)).is_file());
    let offline = Hub { offline: true, ..hub.clone() };
    for text in ["hf:owner/tiny", &format!("hf:owner/tiny@{COMMIT}")] {
        assert_eq!(offline.cached(&reference(text)), Some(snapshot.clone()));
    }
    // Nothing is fetched twice, and a file that was lost is.
    std::fs::remove_file(snapshot.folder.join("config.json")).unwrap();
    assert_eq!(hub.cached(&reference("hf:owner/tiny")), None);
    fetch(&hub, "hf:owner/tiny").unwrap();
    assert_eq!(server.asked().len(), 1);
    // What huggingface_hub left here is found too, though the list of files is not known.
    std::fs::remove_dir_all(folder.join("listings")).unwrap();
    assert_eq!(offline.cached(&reference("hf:owner/tiny")), Some(snapshot));
}

#[test]
fn a_token_stays_with_its_host() {
    let server = Server::new(&model());
    server.state.lock().unwrap().token = Some("secret".into());
    let cache = TempDir::new().unwrap();
    let hub = server.hub(cache.path());
    assert!(fetch(&hub, "hf:owner/tiny").is_err());
    server.asked();
    fetch(&Hub { token: Some("secret".into()), ..hub }, "hf:owner/tiny").unwrap();
    for line in server.asked() {
        assert_eq!(line.contains("secret"), line.starts_with("hub"), "{line}");
    }
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let server = Server::new(&model());
    server.state.lock().unwrap().breaks = vec![20_000, 20_000];
    let cache = TempDir::new().unwrap();
    let snapshot = fetch(&server.hub(cache.path()), "hf:owner/tiny").unwrap();
    assert!(std::fs::read(snapshot.folder.join("model.safetensors")).unwrap() == model()[2].1);
    let ranges: Vec<String> = server.asked().iter().filter(|l| l.starts_with("cdn")).cloned().collect();
    assert!(ranges[1].ends_with("range=bytes=20000-") && ranges[2].ends_with("range=bytes=40000-"), "{ranges:?}");
    // So does one that was stopped.
    let cache = TempDir::new().unwrap();
    let hub = server.hub(cache.path());
    let stopped = hub.fetch(&reference("hf:owner/tiny"), &mut |progress| progress.file == "config.json");
    assert_eq!(stopped.unwrap_err().message, "interrupted");
    server.asked();
    fetch(&hub, "hf:owner/tiny").unwrap();
    assert!(server.asked().iter().all(|line| !line.contains("config.json")));
}

#[test]
fn files_of_a_data_set_are_those_that_fit() {
    let files = ["wiki/a-0.parquet", "wiki/a-1.parquet", "wiki/b c.parquet", "books/a.parquet", "README.md"];
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|name| (*name, name.repeat(100).into_bytes())).collect();
    let server = Server::new(&files);
    let cache = TempDir::new().unwrap();
    let hub = server.hub(cache.path());
    let text = |pattern: &str| format!("hf:datasets/owner/texts@refs/convert/parquet/{pattern}");
    assert_eq!(names(&fetch(&hub, &text("wiki/a-*.parquet")).unwrap()), ["wiki/a-0.parquet", "wiki/a-1.parquet"]);
    assert!(hub.cached(&reference(&text("wiki/*.parquet"))).is_none(), "one of them is not here");
    assert_eq!(names(&fetch(&hub, &text("wiki/*.parquet")).unwrap()).len(), 3);
    assert_eq!(hub.cached(&reference(&text("wiki/*.parquet"))).unwrap().files.len(), 3);
    assert_eq!(names(&hub.cached(&reference(&text("wiki/a-1.parquet"))).unwrap()), ["wiki/a-1.parquet"]);
}

#[test]
fn mistakes() {
    let server = Server::new(&model());
    let cache = TempDir::new().unwrap();
    let hub = server.hub(cache.path());
    let mut text = String::new();
    let mut say = |what: &str, result: Result<Snapshot, HubError>| {
        let error = result.expect_err(what);
        let hint = error.hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        text += &format!("── {what}\n{}{hint}\n", error.message);
    };
    let set = |change: &dyn Fn(&mut State)| change(&mut server.state.lock().unwrap());
    for reference in
        ["hf:", "hf:a/b/c", "hf:../x", "hf:a/b@", "hf:datasets/a", "hf:datasets/a/b", "hf:a/.b", "hf:a/b@x?y"]
    {
        say(reference, Err(Reference::parse(reference).unwrap().unwrap_err()));
    }
    say("no such model", fetch(&hub, "hf:owner/none"));
    say("no such revision", fetch(&hub, "hf:owner/tiny@none"));
    say("offline", fetch(&Hub { offline: true, ..hub.clone() }, "hf:owner/tiny"));
    say("nobody there", fetch(&Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() }, "hf:owner/tiny"));
    say("no file fits", fetch(&hub, "hf:datasets/owner/texts@refs/convert/parquet/x/*.parquet"));
    set(&|state| state.token = Some("secret".into()));
    say("gated", fetch(&hub, "hf:owner/tiny"));
    say("gated, wrong token", fetch(&Hub { token: Some("wrong".into()), ..hub.clone() }, "hf:owner/tiny"));
    set(&|state| (state.token, state.lies) = (None, true));
    say("other contents", fetch(&hub, "hf:owner/tiny"));
    set(&|state| {
        state.lies = false;
        state.files.insert("../../evil".into(), vec![]);
        state.files.insert("model-../../x.safetensors".into(), vec![]);
        let weights = state.files.remove("model.safetensors").unwrap();
        state.files.insert("model.safetensors.index.json".into(), weights);
    });
    say("a path that leads out", fetch(&hub, "hf:owner/tiny"));
    set(&|state| state.files.retain(|name, _| !name.contains("safetensors")));
    say("no safetensors", fetch(&hub, "hf:owner/tiny"));
    let text = text.replace(&cache.path().display().to_string(), "CACHE").replace(&server.port.to_string(), "PORT");
    insta::assert_snapshot!(text);
}
